package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"

	"switchyard/router"
)

const resultOK = "ok"

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
		var p *Problem
		if errors.As(err, &p) && (p.Status == http.StatusForbidden || p.Status == http.StatusTooManyRequests) {
			return v, err // what answers it records it
		}
		result := resultOK
		if err != nil {
			result = shown(err.Error())
		}
		did, to := deed(req)
		if what != "" {
			to = what
		}
		a.record(req, who(req.Context()), did, to, result)
		return v, err
	}
}

type whatKey struct{}

// concerns says what a change is made to, where its path does not.
func concerns(req *http.Request, what string) {
	if at, ok := req.Context().Value(whatKey{}).(*string); ok {
		*at = shown(what)
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
	return did, shown(path)
}

// record remembers a deed, in the books and in the log. It cannot undo what
// was done, so a failure is logged.
func (a *api) record(req *http.Request, p Principal, did, what, result string) {
	from := origin(req)
	log := a.Logger.With("who", p.Name, "by", p.By, "did", did, "what", what, "result", result, "from", from)
	log.Info("an operator did something, or was refused")
	if a.Audit == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), readTimeout)
	defer cancel()
	if err := a.Audit.Audit(ctx, router.Audit{At: a.Now(), Who: p.Name, By: p.By, From: from, Did: did, What: what, Result: result}); err != nil {
		log.Error("the audit trail misses something", "err", err)
	}
}

// origin is where a request comes from: the address of who sent it, which nobody
// can choose, and who that says it is for, as a proxy does and anybody can.
func origin(req *http.Request) string {
	from := req.RemoteAddr
	if host, _, err := net.SplitHostPort(from); err == nil {
		from = host
	}
	if from == "" || from == "@" {
		from = "a local socket"
	}
	forwarded := req.Header.Values("X-Forwarded-For")
	if len(forwarded) == 0 {
		return from
	}
	last := forwarded[len(forwarded)-1]
	last = strings.TrimSpace(last[strings.LastIndex(last, ",")+1:])
	if addr, err := netip.ParseAddr(last); err == nil {
		from += " for " + addr.WithZone("").String()
	}
	return from
}

// A quota bounds what is recorded of what needs no right, or little: nobody must
// be able to fill the database with it, or to push out of sight what others did.
type quota struct {
	*budget
	left atomic.Int64 // not recorded since the last that was
}

// newRefusals bounds what is recorded of strangers: at most 8,640 a day.
func newRefusals() *quota {
	return &quota{budget: &budget{every: time.Minute, burst: 10, allEvery: 10 * time.Second, allBurst: 100}}
}

// newVisits bounds what is recorded of log-ins and log-outs. Many people may
// have one token, and all come in the morning.
func newVisits() *quota {
	return &quota{budget: &budget{every: 10 * time.Second, burst: 100, allEvery: time.Second, allBurst: 1000}}
}

// recordRefusal records that a request was refused to somebody: a wrong token,
// a role or a host that may not, or too many requests.
func (a *api) recordRefusal(req *http.Request, problem *Problem) {
	switch problem.Status {
	case http.StatusForbidden, http.StatusTooManyRequests:
	case http.StatusUnauthorized:
		if req.Header.Get("Authorization") == "" {
			return // nobody tried anything
		}
	default:
		return
	}
	p, why := who(req.Context()), problem.Detail
	p.Name = cmp.Or(p.Name, somebody)
	if problem.Status == http.StatusUnauthorized {
		why = "the token was wrong" // what is answered says which there are
	}
	a.recordWithin(a.refusals, req, p, "refused", req.Method+" "+req.URL.Path, fmt.Sprintf("%d: %s", problem.Status, why), strconv.Itoa(problem.Status))
}

// recordLogIn records that somebody logged in, or could not.
func (a *api) recordLogIn(req *http.Request, p Principal, result string) {
	if result == resultOK {
		a.recordWithin(a.visits, req, p, "log in", "", result, "in")
		return
	}
	p.Name = cmp.Or(p.Name, somebody)
	a.recordWithin(a.refusals, req, p, "log in", "", result, "in")
}

// recordWithin is record for as many of one kind, by one and by all together, as
// the quota lets through. The next says how many it did not.
func (a *api) recordWithin(q *quota, req *http.Request, p Principal, did, what, result, kind string) {
	whose := p.By + " " + p.Name
	if p.Role == 0 {
		whose = source(req.RemoteAddr)
	}
	if !q.take(whose+" "+kind, a.Now()) {
		q.left.Add(1)
		return
	}
	result = shown(result)
	if n := q.left.Swap(0); n > 0 {
		result += fmt.Sprintf(" (%d before it were not recorded)", n)
	}
	a.record(req, p, did, shown(what), result)
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
