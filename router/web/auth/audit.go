package auth

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"switchyard/router"
	"switchyard/router/web/problem"
)

// ResultOK is the result, in the audit trail, of what was done.
const ResultOK = "ok"

// auditTimeout is for writing one record.
const auditTimeout = 10 * time.Second

// Record writes to the audit trail and the log what the principal of a request did,
// or tried to, and how it ended. did, what and result may hold a stranger's text.
func (g *Guard) Record(req *http.Request, did, what, result string) {
	g.record(req, Who(req.Context()), did, printable(what), printable(result))
}

// record logs a failure to write: it cannot undo what was done.
func (g *Guard) record(req *http.Request, p Principal, did, what, result string) {
	from := origin(req)
	log := g.config.Logger.With("who", p.Name, "by", p.By, "did", did, "what", what, "result", result, "from", from)
	log.Info("an operator did something, or was refused")
	if g.config.Audit == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), auditTimeout)
	defer cancel()
	if err := g.config.Audit.Audit(ctx, router.Audit{At: g.config.Now(), Who: p.Name, By: p.By, From: from, Did: did, What: what, Result: result}); err != nil {
		log.Error("the audit trail is missing a record", "err", err)
	}
}

// origin returns where a request comes from: the sender's address, which nobody can
// choose, and the address that the sender says it is for, as a proxy does and anybody can.
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

// RecordRefusal records that a request was refused: a wrong token, a role or a
// host that may not, or too many requests. It skips other problems, and those of
// requests without a token.
func (g *Guard) RecordRefusal(req *http.Request, d *problem.Details) {
	switch d.Status {
	case http.StatusForbidden, http.StatusTooManyRequests:
	case http.StatusUnauthorized:
		if req.Header.Get("Authorization") == "" {
			return // nobody tried anything
		}
	default:
		return
	}
	p, why := Who(req.Context()), d.Detail
	p.Name = cmp.Or(p.Name, somebody)
	if d.Status == http.StatusUnauthorized {
		why = "the token was wrong" // the answer says which there are
	}
	g.recordWithin(g.refusalQuota, req, p, "refused", req.Method+" "+req.URL.Path, fmt.Sprintf("%d: %s", d.Status, why), strconv.Itoa(d.Status))
}

// recordLogIn records that somebody logged in, or could not.
func (g *Guard) recordLogIn(req *http.Request, p Principal, result string) {
	if result == ResultOK {
		g.recordWithin(g.sessionQuota, req, p, "log in", "", result, "in")
		return
	}
	p.Name = cmp.Or(p.Name, somebody)
	g.recordWithin(g.refusalQuota, req, p, "log in", "", result, "in")
}

// recordWithin records as many of one kind, by one and by all together, as
// the quota lets through. The next says how many it did not.
func (g *Guard) recordWithin(q *quota, req *http.Request, p Principal, did, what, result, kind string) {
	whose := p.By + " " + p.Name
	if p.Role == 0 {
		whose = source(req.RemoteAddr)
	}
	if !q.take(whose+" "+kind, g.config.Now()) {
		q.left.Add(1)
		return
	}
	result = printable(result)
	if n := q.left.Swap(0); n > 0 {
		result += fmt.Sprintf(" (%d before it were not recorded)", n)
	}
	g.record(req, p, did, printable(what), result)
}

// printable returns a stranger's text fit for a log, a sentence or the audit trail.
func printable(s string) string { return router.Printable(router.Shorten(s, 200)) }
