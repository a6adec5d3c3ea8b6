package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"switchyard/router/web/auth"
	"switchyard/router/web/problem"
)

const (
	drafts       = 2                // read or checked at once; one of each principal
	draftQueue   = 3                // of each principal that may wait
	draftWait    = 10 * time.Second // for a slot
	draftRetry   = 5 * time.Second  // when to try again
	readingDraft = 10 * time.Second // 4 MiB at 3.5 Mbit/s, and what is usual, 100 kB, over any line
	checkTimeout = 10 * time.Second // for loading, checking, testing and comparing one: 10,000 rules take a third
	WritingDraft = 10 * time.Second // the answer
)

// slots bound how many drafts are read and checked at once, which takes memory and
// a processor that the router needs too. A slot is taken before the draft is read,
// so that waiting drafts do not fill the memory.
type slots struct {
	free     chan struct{} // holds one for each slot that is taken
	checking chan struct{} // holds one while a draft is checked: reading the next takes no processor

	mu  sync.Mutex
	own map[string]*ownSlot // by the name of the principal
}

type ownSlot struct {
	taken chan struct{} // holds one while it is taken
	users int           // who has it or waits for it
}

// take waits for a slot of the principal. The error is for the answer.
func (p *slots) take(ctx context.Context, name string) (done func(), err error) {
	p.mu.Lock()
	own := p.own[name]
	if own == nil {
		own = &ownSlot{taken: make(chan struct{}, 1)}
		p.own[name] = own
	}
	own.users++
	many := own.users > 1+draftQueue
	p.mu.Unlock()
	leave := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if own.users--; own.users == 0 {
			delete(p.own, name)
		}
	}
	if many {
		leave()
		return nil, problem.Later(http.StatusTooManyRequests, draftRetry, "%d drafts of %s are already waiting; they are checked one at a time", draftQueue, name)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, draftWait, problem.Later(http.StatusTooManyRequests, draftRetry, "other drafts are being checked; try again in a moment"))
	defer cancel()
	if err := acquire(ctx, own.taken); err != nil {
		leave()
		return nil, err
	}
	if err := acquire(ctx, p.free); err != nil {
		<-own.taken
		leave()
		return nil, err
	}
	return func() {
		<-p.free
		<-own.taken
		leave()
	}, nil
}

// acquire takes a place in a channel. The error is for the answer.
func acquire(ctx context.Context, to chan struct{}) error {
	select {
	case to <- struct{}{}:
		return nil
	case <-ctx.Done():
	}
	if late, ok := errors.AsType[*problem.Details](context.Cause(ctx)); ok {
		return late
	}
	return problem.Canceled()
}

// Start waits until a draft that was read may be checked. The context that it
// returns ends when that has taken long enough; done must be called afterwards.
func (d *Drafts) Start(ctx context.Context) (within context.Context, done func(), err error) {
	if err := acquire(ctx, d.slots.checking); err != nil {
		return nil, nil, err
	}
	within, cancel := context.WithTimeout(ctx, checkTimeout)
	return within, func() {
		cancel()
		<-d.slots.checking
	}, nil
}

// WithSlot lets requests with a draft through one after the other, each when it
// has its slot, and bounds how long they are read, and how long their answers are sent.
func (d *Drafts) WithSlot(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		done, err := d.slots.take(req.Context(), auth.Who(req.Context()).Name)
		if err != nil {
			w.Header().Set("Connection", "close") // its body is not read
			d.config.Fail(w, req, err)
			return
		}
		defer done()
		conn := http.NewResponseController(w)
		// A server that cannot set it bounds the whole request; so do tests.
		_ = conn.SetReadDeadline(time.Now().Add(readingDraft))
		// Past its end the deadline would cut off who waits for the answer.
		req.Body = &draftBody{req.Body, func() { _ = conn.SetReadDeadline(time.Time{}) }}
		next.ServeHTTP(draftWriter{w}, req)
	})
}

// A draftWriter bounds how long an answer is sent, from when its status is written.
type draftWriter struct{ http.ResponseWriter }

func (w draftWriter) WriteHeader(status int) {
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(WritingDraft)) // a recorder of a test has none
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.NewResponseController.
func (w draftWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A draftBody is a body that says when it was read.
type draftBody struct {
	io.ReadCloser
	read func()
}

func (b *draftBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.read()
	}
	return n, err
}

// TooSlow returns the error of a draft that took too long to arrive.
func TooSlow() error {
	return problem.New(http.StatusRequestTimeout, "the draft did not arrive within %v", readingDraft)
}
