package router

import (
	"context"
	"time"
)

// An Audit is one thing that a person or program did through the console or
// the API, or tried to.
type Audit struct {
	ID     int64 // assigned by the store; it grows
	At     time.Time
	Who    string // name of a token or of a person; "somebody" when it is not known, "GitHub"
	By     string // how Who is known: "token", "this machine" (nobody logs in), or the issuer and subject of an ID token; "": it is not known
	From   string // address that the request came from; "": there was none
	Did    string // log in, log out, retry, cancel, stop, sync, apply, refused, …
	What   string // to what: "jobs/4001", "runners/gha-4001-1"; "" when Did says it all
	Result string // ok, or why it was not done
}

type operatorKey struct{}

// ByOperator returns a context that carries the name of the operator who makes a
// request. "" and "local" are nobody in particular.
func ByOperator(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, operatorKey{}, name)
}

// Operator returns who makes the request of ctx, as the subject of a sentence.
func Operator(ctx context.Context) string {
	if name, _ := ctx.Value(operatorKey{}).(string); name != "" && name != "local" {
		return "operator " + name
	}
	return "an operator"
}
