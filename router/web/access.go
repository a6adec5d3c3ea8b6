package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"switchyard/router"
)

// A Role is what somebody may do. Each may do what those before it may.
type Role int

// The roles.
const (
	Viewer   Role = iota + 1 // look
	Operator                 // retry and cancel jobs, stop runners
	Editor                   // change the rules
)

// String is the role's name in the access file.
func (r Role) String() string {
	return map[Role]string{Viewer: "viewer", Operator: "operator", Editor: "editor"}[r]
}

// A Principal is who makes a request.
type Principal struct {
	Name  string
	Role  Role
	Scope router.Scope // what is seen; nil: everything
}

type principalKey struct{}

// who is who makes the request that ctx is of.
func who(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

// guard lets only those requests through that may ask.
func (a *api) guard(next http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Content-Security-Policy", policy)
		req.Body = http.MaxBytesReader(w, req.Body, bodyLimit(req))
		p, err := a.allowed(req)
		if err == nil && cross.Check(req) != nil {
			err = refuse(http.StatusForbidden, "this request comes from another site's page")
		}
		if err != nil {
			a.fail(w, req, err)
			return
		}
		next.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), principalKey{}, p)))
	})
}

// only lets those through that have at least the role.
func (a *api) only(role Role, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if p := who(req.Context()); p.Role < role {
			a.fail(w, req, refuse(http.StatusForbidden, "%s is a %s; this needs the role %s", p.Name, p.Role, role))
			return
		}
		next.ServeHTTP(w, req)
	})
}

func (a *api) allowed(req *http.Request) (Principal, error) {
	if a.Token == nil {
		if !local(req.Host) {
			return Principal{}, refuse(http.StatusForbidden, "without a token the API is asked as localhost or by address, not as %q", req.Host)
		}
		return Principal{Name: "local", Role: Editor}, nil
	}
	want, err := a.Token()
	if err != nil {
		return Principal{}, fmt.Errorf("read the operators' token: %w", err)
	}
	scheme, token, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(token))
	if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return Principal{}, refuse(http.StatusUnauthorized, "the API needs the header Authorization: Bearer with the server's --admin-token-file")
	}
	return Principal{Name: "the admin token", Role: Editor}, nil
}

// local reports whether a Host header is one that no other site's name can be.
func local(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(host, "localhost")
}
