package nomad

import (
	"io"
	"mime"
	"net/http"
	"sync"
	"time"

	"switchyard/router"
)

// withoutIndex has the calls that Nomad answers without the index of its state
// (1.8.0 and 2.0.5, tried 2026-11-29). All other answers have it.
var withoutIndex = map[string]bool{"parse job": true, "validate job": true, "list servers": true, "other": true}

// A heard is the body of a 200 that is being read. One that is empty, cut off or not
// Nomad's is reported as router.Unreadable: a 200 alone does not say that Nomad works.
type heard struct {
	io.ReadCloser
	whole whole
	tell  func(status int)
	once  sync.Once
}

// listen returns the body of an answer to a call, and reports the answer once, when its
// body was read or closed.
func listen(call string, resp *http.Response, took time.Duration, called func(string, int, time.Duration), wanted func() bool) io.ReadCloser {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	foreign := kind != "application/json" || !withoutIndex[call] && resp.Header.Get("X-Nomad-Index") == ""
	return &heard{ReadCloser: resp.Body, tell: func(status int) {
		switch {
		case !wanted(): // the caller went away
		case foreign:
			called(call, router.Unreadable, took)
		default:
			called(call, status, took)
		}
	}}
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	h.whole.take(p[:n])
	if err != nil {
		h.end(err == io.EOF)
	}
	return n, err
}

func (h *heard) Close() error {
	h.end(true)
	return h.ReadCloser.Close()
}

// end reports the answer; ok is false when it could not be read to its end.
func (h *heard) end(ok bool) {
	h.once.Do(func() {
		if ok && h.whole.complete() {
			h.tell(http.StatusOK)
		} else {
			h.tell(router.Unreadable)
		}
	})
}

// A whole checks whether a text is one complete JSON value, by its brackets and quotes
// alone.
type whole struct {
	begun, quoted, escaped, wrong bool
	depth                         int
}

func (w *whole) take(p []byte) {
	for _, c := range p {
		switch {
		case w.escaped:
			w.escaped = false
		case w.quoted:
			w.escaped, w.quoted = c == '\\', c != '"'
		case c == ' ' || c == '\n' || c == '\r' || c == '\t':
		case c == '"':
			w.begun, w.quoted = true, true
		case c == '{' || c == '[':
			w.begun = true
			w.depth++
		case c == '}' || c == ']':
			w.depth--
			w.wrong = w.wrong || w.depth < 0
		case !w.begun:
			w.begun, w.wrong = true, c != 't' && c != 'f' && c != 'n' && c != '-' && (c < '0' || c > '9')
		}
	}
}

func (w *whole) complete() bool { return w.begun && !w.wrong && !w.quoted && w.depth == 0 }
