package server_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"switchyard/router"
	"switchyard/router/server"
)

// shutCluster is a Nomad whose token may not list jobs.
type shutCluster struct{ *cluster }

func (shutCluster) Follow(context.Context, string, uint64, func(router.NomadEvent) error) error {
	return &router.FixError{Fix: "give the token list-jobs", Err: errors.New("403")}
}

// faults are the log lines at which a person must act.
type faults struct {
	slog.Handler
	said chan slog.Record
}

func (f faults) Handle(_ context.Context, r slog.Record) error {
	if r.Level == slog.LevelError {
		select {
		case f.said <- r:
		default:
		}
	}
	return nil
}

func (f faults) Enabled(context.Context, slog.Level) bool { return true }
func (f faults) WithAttrs([]slog.Attr) slog.Handler       { return f }

func TestATokenThatMayNotFollowNomadIsAFault(t *testing.T) {
	bubble(t, testATokenThatMayNotFollowNomadIsAFault)
}
func testATokenThatMayNotFollowNomadIsAFault(t *testing.T) {
	f := faults{slog.DiscardHandler, make(chan slog.Record, 1)}
	start(t, openStore(t), &cluster{}, &hub{}, func(c *server.Config) {
		c.Logger, c.Nomad = slog.New(f), shutCluster{c.Nomad.(*cluster)}
	})
	r := <-f.said
	fix := ""
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "fix" {
			fix = a.Value.String()
		}
		return true
	})
	if r.Message != "nomad does not allow its events to be followed" || fix != "give the token list-jobs" {
		t.Errorf("the log says %q, fix %q", r.Message, fix)
	}
}
