// Package problem owns how a failed request is answered: a status, one sentence,
// and when to try again (RFC 9457, problem details). The API, the console and
// package auth return it as an error; the commands decode it.
package problem

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"switchyard/router"
)

// Details is the answer to a request that failed.
type Details struct {
	Type   string `json:"type"` // always about:blank
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"` // one sentence

	RetryAfter time.Duration `json:"-"` // when the client may try again, sent as Retry-After; 0: not said
}

// Error returns the detail.
func (d *Details) Error() string { return d.Detail }

// New returns the error that a request is answered with.
func New(status int, format string, args ...any) *Details {
	return &Details{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// Later returns the error of a request that may be tried again after wait: 429
// when the client's own share is used up, 503 when everybody's is.
func Later(status int, wait time.Duration, format string, args ...any) *Details {
	d := New(status, format, args...)
	d.RetryAfter = wait
	return d
}

// Canceled returns the error of a request whose client went away. It is not logged.
func Canceled() *Details {
	return New(http.StatusServiceUnavailable, "the client went away")
}

// Of returns how an error is answered. It is nil for an error with nothing to
// tell a client: the caller logs it and answers 500.
func Of(err error) *Details {
	if d, ok := errors.AsType[*Details](err); ok {
		return d
	}
	if c, ok := errors.AsType[*router.ConflictError](err); ok {
		return New(http.StatusConflict, "%s", c.Reason)
	}
	if errors.Is(err, router.ErrNotFound) {
		return New(http.StatusNotFound, "not found here, or no longer kept")
	}
	return nil
}

// GaveUp reports whether a request ended because its client went away, not
// because its time was over.
func GaveUp(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded)
}
