package server_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/server"
	"switchyard/rules"
)

// Each start forgets what ended too long ago.
func TestOldHistoryIsForgotten(t *testing.T) { bubble(t, testOldHistoryIsForgotten) }
func testOldHistoryIsForgotten(t *testing.T) {
	st := openStore(t)
	for id, age := range map[int64]time.Duration{1: 100 * time.Hour, 2: time.Hour} {
		d := delivery(id, "completed", "self-hosted", "linux")
		d.ReceivedAt = time.Now().Add(-age)
		must(t, errOf(st.Receive(t.Context(), d)))
	}
	start(t, st, &cluster{}, &hub{}, func(c *server.Config) { c.Keep = 80 * time.Hour })
	eventually(t, "the old job is gone", func() bool {
		_, err := st.Job(t.Context(), 1)
		return errors.Is(err, router.ErrNotFound)
	})
	if _, err := st.Job(t.Context(), 2); err != nil {
		t.Errorf("the new job: %v", err)
	}
}

func TestHistoryIsKeptAsLongAsGitHubRemembers(t *testing.T) {
	set, err := rules.Parse("rules.yaml", []byte(testRules))
	must(t, err)
	_, err = server.New(server.Config{
		Store: openStore(t), Nomad: &cluster{}, GitHub: &hub{}, Rules: set, Logger: slog.New(slog.DiscardHandler),
		Webhook: func(func(context.Context, router.Delivery) error) (http.Handler, error) {
			return http.NotFoundHandler(), nil
		},
		Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", Keep: time.Hour,
	})
	if err == nil || !strings.Contains(err.Error(), "keep history for 1h0m0s: at least 72h0m0s") {
		t.Errorf("New = %v, want it to refuse an hour", err)
	}
}
