package gh

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/google/go-github/v60/github"

	"switchyard/router"
)

const (
	leastPause = time.Minute // GitHub's own, for a limit that names no time
	mostPause  = time.Hour   // the longest that GitHub's limits last
	maxMessage = 300         // characters of GitHub's words in an error
)

// sorted turns an error of go-github into one of router.GitHub's. resp is nil
// when GitHub did not answer.
func (s *session) sorted(err error, resp *github.Response, t target, now time.Time) error {
	if at, ok := limitedUntil(err, resp, now); ok {
		s.block(at)
		return limitError(at)
	}
	status := 0
	if resp != nil && resp.Response != nil {
		status = resp.StatusCode
	}
	if status < http.StatusMultipleChoices {
		return fmt.Errorf("register a runner in %s: %w", t, err) // no answer, or an odd one
	}
	// Not %w: go-github's errors hold the whole request.
	err = fmt.Errorf("register a runner in %s: GitHub answered %d%s", t, status, words(err))
	switch status {
	case http.StatusConflict:
		return fmt.Errorf("%w (%w)", router.ErrNameTaken, err)
	case http.StatusUnauthorized:
		return &router.FixError{Fix: "put a GitHub token that is valid where Switchyard reads it", Err: err}
	case http.StatusForbidden, http.StatusNotFound:
		return &router.FixError{Fix: permission(t, status), Err: err}
	case http.StatusUnprocessableEntity, http.StatusBadRequest:
		// The same request is refused again: its name is bounded by us, so it
		// is the labels or the runner group.
		return &router.GiveUpError{Err: err}
	}
	return err
}

// permission says what the token lacks:
// https://docs.github.com/en/rest/actions/self-hosted-runners (read 2026-11-24).
// GitHub answers 404 where it does not even show that something exists.
func permission(t target, status int) string {
	fix := "give the GitHub token the repository permission Administration (write) on " + t.owner + "/" + t.repo
	if t.organization {
		fix = "give the GitHub token the organization permission Self-hosted runners (write) on " + t.owner
	}
	if status == http.StatusNotFound {
		fix += ", and check that this " + t.kind() + " and the rule's runner group exist"
	}
	return fix
}

// limitedUntil reports whether GitHub refused the request for one of its rate
// limits, and until when. go-github v60 knows them as 403 alone; GitHub also
// answers 429:
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api (read 2026-11-24).
func limitedUntil(err error, resp *github.Response, now time.Time) (at time.Time, ok bool) {
	var primary *github.RateLimitError
	var secondary *github.AbuseRateLimitError
	switch {
	case errors.As(err, &primary):
		at = primary.Rate.Reset.Time // also when go-github remembers it and asked nobody
	case errors.As(err, &secondary):
		if secondary.RetryAfter != nil {
			at = now.Add(*secondary.RetryAfter)
		}
	case resp == nil || resp.Response == nil:
		return time.Time{}, false
	case resp.StatusCode == http.StatusTooManyRequests,
		resp.StatusCode == http.StatusForbidden && resp.Header.Get("Retry-After") != "":
		at = headerTime(resp.Header, now)
	default:
		return time.Time{}, false
	}
	switch {
	case !at.After(now):
		at = now.Add(leastPause)
	case at.After(now.Add(mostPause)):
		at = now.Add(mostPause)
	}
	return at, true
}

// headerTime reads when a limit ends: in Retry-After seconds, else, when
// nothing remains, at X-RateLimit-Reset in Unix seconds. It is zero when neither says.
func headerTime(h http.Header, now time.Time) time.Time {
	if seconds, err := strconv.ParseInt(h.Get("Retry-After"), 10, 32); err == nil {
		return now.Add(time.Duration(seconds) * time.Second)
	}
	if reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil && h.Get("X-RateLimit-Remaining") == "0" {
		return time.Unix(reset, 0)
	}
	return time.Time{}
}

func limitError(at time.Time) error {
	return &router.RetryAtError{At: at, Err: fmt.Errorf("GitHub's rate limit is reached until %s", at.UTC().Format(time.RFC3339))}
}

// block keeps requests with this token back until at.
func (s *session) block(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.After(s.until) {
		s.until = at
	}
}

// blocked is a *router.RetryAtError while requests are kept back.
func (s *session) blocked(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.until) {
		return limitError(s.until)
	}
	return nil
}

// words is what GitHub says of a refusal, as one line in brackets, or "".
func words(err error) string {
	var r *github.ErrorResponse
	if !errors.As(err, &r) {
		return ""
	}
	said := []string{}
	if r.Message != "" {
		said = append(said, r.Message)
	}
	for _, e := range r.Errors {
		text := e.Message
		if text == "" {
			text = strings.TrimSpace(e.Resource + " " + e.Field + " " + e.Code)
		}
		if text != "" {
			said = append(said, text)
		}
	}
	line := []rune(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, strings.Join(said, "; ")))
	if len(line) == 0 {
		return ""
	}
	if len(line) > maxMessage {
		line = append(line[:maxMessage], '…')
	}
	return " (" + string(line) + ")"
}
