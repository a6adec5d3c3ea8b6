package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"switchyard/router/web/auth"
	"switchyard/router/web/problem"

	"github.com/gorilla/mux"
)

// An Audit is one thing that somebody did, or tried to, as the API shows it.
type Audit struct {
	ID     int64     `json:"id"`
	At     time.Time `json:"at"`
	Who    string    `json:"who"`
	By     string    `json:"by"`   // how that is known; "": it is not, or it is GitHub
	From   string    `json:"from"` // the address that the request came from; "": there was none
	Did    string    `json:"did"`
	What   string    `json:"what"`
	Result string    `json:"result"` // ok, or why it was not done
}

// An AuditList is a page of them, newest first.
type AuditList struct {
	Audits     []Audit `json:"audits"`
	NextCursor string  `json:"next_cursor"` // cursor of the next page; "": this is the last
}

// audited records what a change did, and to what.
func audited[T any](a *api, do func(*http.Request) (T, error)) func(*http.Request) (T, error) {
	return func(req *http.Request) (T, error) {
		var what string
		req = req.WithContext(context.WithValue(req.Context(), whatKey{}, &what))
		v, err := do(req)
		var p *problem.Details
		if errors.As(err, &p) && (p.Status == http.StatusForbidden || p.Status == http.StatusTooManyRequests) {
			return v, err // what answers it records it
		}
		result := auth.ResultOK
		if err != nil {
			result = err.Error()
		}
		did, to := deed(req)
		if what != "" {
			to = what
		}
		a.guard.Record(req, did, to, result)
		return v, err
	}
}

type whatKey struct{}

// concerns says what a change is made to, where its path does not.
func concerns(req *http.Request, what string) {
	if at, ok := req.Context().Value(whatKey{}).(*string); ok {
		*at = what
	}
}

// deed reads what a request does, and to what, off its path: "retry" and
// "jobs/4001" of /api/v1/jobs/4001/retry.
func deed(req *http.Request) (did, what string) {
	template, err := mux.CurrentRoute(req).GetPathTemplate()
	if err != nil {
		template = req.URL.Path
	}
	path := strings.Trim(strings.TrimPrefix(template, Prefix), "/")
	if i := strings.LastIndex(path, "/"); i >= 0 {
		path, did = path[:i], path[i+1:]
	} else {
		path, did = "", path
	}
	for name, value := range mux.Vars(req) {
		path = strings.ReplaceAll(path, "{"+name+"}", value)
	}
	return did, path
}

// listAudits answers GET /audit, and is what the page Audit shows.
func (a *api) listAudits(req *http.Request) (any, error) {
	ctx, cancel := context.WithTimeout(req.Context(), readTimeout)
	defer cancel()
	p := parameters{Values: req.URL.Query()}
	before := p.number("cursor", 0, 1, 1<<62)
	limit := int(p.number("limit", 100, 1, 500))
	if err := p.end(); err != nil {
		return nil, err
	}
	l := AuditList{Audits: []Audit{}}
	if a.Audit == nil {
		return l, nil
	}
	found, err := a.Audit.Audits(ctx, before, limit+1) // whether there is another page
	for i, one := range found {
		if i == limit {
			l.NextCursor = strconv.FormatInt(found[i-1].ID, 10)
			break
		}
		l.Audits = append(l.Audits, Audit(one))
	}
	return l, err
}
