package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/router/web/auth"
	"switchyard/router/web/problem"

	"github.com/gorilla/mux"
)

// An AuditTrail has what was recorded.
type AuditTrail interface {
	// Audits returns up to limit records, newest first, with IDs under before (0: from the newest).
	Audits(ctx context.Context, before int64, limit int) ([]router.Audit, error)
}

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

// Audited records in the audit trail what a change does: did and what are read off its
// path, unless a handler says by a Concerns function what it is made to.
func Audited[T any](g *auth.Guard, do func(*http.Request) (T, error)) func(*http.Request) (T, error) {
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
		g.Record(req, did, to, result)
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

// Audits answers GET /audit, an AuditList. The page Audit shows the same.
func (a *API) Audits(req *http.Request) (any, error) {
	ctx, cancel := context.WithTimeout(req.Context(), ReadTimeout)
	defer cancel()
	p := Parameters{Values: req.URL.Query()}
	before := p.Number("cursor", 0, 1, 1<<62)
	limit := int(p.Number("limit", 100, 1, 500))
	if err := p.End(); err != nil {
		return nil, err
	}
	l := AuditList{Audits: []Audit{}}
	if a.config.Audit == nil {
		return l, nil
	}
	found, err := a.config.Audit.Audits(ctx, before, limit+1) // whether there is another page
	l.Audits, l.NextCursor = page(found, limit, func(a router.Audit) Audit { return Audit(a) }, func(a router.Audit) string { return strconv.FormatInt(a.ID, 10) })
	return l, err
}
