package gh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v60/github"

	"switchyard/router"
)

const (
	leastPause = time.Minute // GitHub's own, for a limit that names no time
	mostPause  = time.Hour   // the longest that GitHub's limits last
	maxMessage = 300         // characters of GitHub's words in an error
)

// A call says what a request is for, and what GitHub's refusals of it mean.
type call struct {
	doing      string // "register a runner in organization acme"
	owner      string // "acme"
	permission string // of the token or the App, that it needs
	exists     string // what to check when GitHub answers 404, as it does for what the login may not see

	jobWaits  bool // a job waits for it
	mayBeGone bool // a 404 is expected: it says nothing about the installation
	notFound  bool // likewise, and from GitHub itself it is ErrNotFound besides

	asked // how much of the budget it may use
}

// registration reports whether a runner is registered by the request.
func (c call) registration() bool { return c.jobWaits && c.priority == claim }

func status(resp *github.Response) int {
	if resp == nil || resp.Response == nil {
		return 0 // GitHub did not answer
	}
	return resp.StatusCode
}

// sorted turns an error of go-github into one of router.GitHub's, and records it in the
// session's breaker. resp is nil when GitHub did not answer.
func (s *session) sorted(err error, resp *github.Response, c call, now time.Time) (sorted error) {
	defer func() { s.heard(sorted, resp, now) }()
	code, err := s.refused(err, resp, c.doing, now)
	who, accept := "the GitHub token", ""
	if s.app != nil {
		who, accept = s.app.String(), ", and have "+c.owner+" accept it"
		switch {
		case code == http.StatusUnauthorized:
			// The installation is gone, or our clock is slow: a new token shows which.
			s.mu.Lock()
			s.token, s.expires = "", time.Time{}
			s.mu.Unlock()
			s.forget()
			return err
		case code == http.StatusNotFound && !c.mayBeGone && !c.notFound:
			s.forget()
		case code == http.StatusForbidden && strings.Contains(err.Error(), "suspended"):
			return &router.FixError{Fix: s.app.unsuspend(c.owner), Err: err}
		}
	}
	switch code {
	case http.StatusUnauthorized:
		return &router.FixError{Fix: "give Switchyard a valid GitHub token", Err: &loginError{err}}
	case http.StatusNotFound:
		return &router.FixError{Fix: "give " + who + " the " + c.permission + accept + ", and check that " + c.exists, Err: err}
	}
	if code >= http.StatusBadRequest && code < http.StatusInternalServerError {
		return s.sortRefusal(code, err, resp, c, who, accept)
	}
	return err
}

// refused classifies errors that mean the same for all requests. It returns the status
// of GitHub's answer if the caller must classify further, else 0.
func (s *session) refused(err error, resp *github.Response, doing string, now time.Time) (code int, sorted error) {
	if kept, ok := errors.AsType[*router.RetryAtError](err); ok {
		return 0, &router.RetryAtError{At: kept.At, Err: fmt.Errorf("%s: %w", doing, kept.Err)} // GitHub was not asked
	}
	if at, primary, ok := limitedUntil(err, resp, now); ok {
		// The budget has the primary limit that GitHub names; the others stand.
		if !primary || resp.Header.Get("X-RateLimit-Resource") == "" {
			s.budget.blocks.block(s.budget.login, at, now)
		}
		return 0, limitError(at)
	}
	if fix, ok := errors.AsType[*router.FixError](err); ok {
		return 0, fix // GitHub was not asked
	}
	code = status(resp)
	if code < http.StatusMultipleChoices {
		return 0, fmt.Errorf("%s: %w", doing, router.WithoutLocalPort(err)) // no answer, or an unreadable one
	}
	// Not %w: go-github's errors hold the whole request.
	return code, fmt.Errorf("%s: GitHub answered %d%s", doing, code, words(err))
}

// limitedUntil reports whether GitHub refused the request for one of its rate
// limits, and until when. go-github v60 knows them as 403 alone; GitHub also
// answers 429:
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api (read 2026-11-24).
func limitedUntil(err error, resp *github.Response, now time.Time) (at time.Time, primary, ok bool) {
	var secondary *github.AbuseRateLimitError
	switch {
	case errors.As(err, &secondary):
		if secondary.RetryAfter != nil {
			at = now.Add(*secondary.RetryAfter)
		}
	case resp == nil || resp.Response == nil:
		return time.Time{}, false, false
	case resp.StatusCode == http.StatusTooManyRequests,
		resp.StatusCode == http.StatusForbidden && (resp.Header.Get("Retry-After") != "" || resp.Header.Get("X-RateLimit-Remaining") == "0"):
		at, primary = headerTime(resp.Header, now)
	default:
		return time.Time{}, false, false
	}
	switch {
	case !at.After(now):
		at, primary = now.Add(leastPause), false
	case at.After(now.Add(mostPause)):
		at = now.Add(mostPause)
	}
	return at, primary, true
}

// headerTime reads when a limit ends: in Retry-After seconds, else, when
// nothing remains, at X-RateLimit-Reset in Unix seconds. It is zero when neither says.
func headerTime(h http.Header, now time.Time) (at time.Time, primary bool) {
	if seconds, err := strconv.ParseInt(h.Get("Retry-After"), 10, 32); err == nil {
		return now.Add(time.Duration(seconds) * time.Second), false
	}
	if reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil && h.Get("X-RateLimit-Remaining") == "0" {
		return time.Unix(reset, 0), true
	}
	return time.Time{}, false
}

func limitError(at time.Time) error {
	return &router.RetryAtError{At: at, Err: fmt.Errorf("GitHub's rate limit is reached until %s", at.UTC().Format(time.RFC3339))}
}

// blocked returns a *router.RetryAtError while GitHub asked for no requests.
func (s *session) blocked(now time.Time) error {
	if until := s.budget.blocks.until(s.budget.login); now.Before(until) {
		return limitError(until)
	}
	return nil
}

// ready returns a *router.RetryAtError while a session cannot be used.
func (c *caller) ready(ctx context.Context, s *session) error {
	if err := s.blocked(c.now()); err != nil {
		return err
	}
	return c.reach(ctx, s)
}

// words returns GitHub's words about a refusal, as one line in brackets, or "".
func words(err error) string {
	r, ok := errors.AsType[*github.ErrorResponse](err)
	if !ok {
		return ""
	}
	said := []string{r.Message}
	for _, e := range r.Errors {
		said = append(said, cmp.Or(e.Message, strings.TrimSpace(e.Resource+" "+e.Field+" "+e.Code)))
	}
	said = slices.DeleteFunc(said, func(text string) bool { return text == "" })
	line := router.OneLine(strings.Join(said, "; "))
	if line == "" {
		return ""
	}
	return " (" + router.Shorten(line, maxMessage) + ")"
}
