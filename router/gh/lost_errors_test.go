package gh_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/gh"
)

// asks are the requests that nothing waits for: each makes at least one.
var asks = map[string]func(context.Context, *gh.Client) error{
	"Deliveries": func(ctx context.Context, c *gh.Client) error {
		_, _, err := c.Deliveries(ctx, router.Hook{Kind: router.HookOrganization, ID: 1, Owner: "acme"}, "")
		return err
	},
	"Redeliver": func(ctx context.Context, c *gh.Client) error {
		return c.Redeliver(ctx, router.Hook{Kind: router.HookRepository, ID: 1, Owner: "acme", Repo: "web"}, 1)
	},
	"Sees": func(ctx context.Context, c *gh.Client) error { _, err := c.Sees(ctx, acmeWeb); return err },
	"Unfinished": func(ctx context.Context, c *gh.Client) error {
		_, err := c.Unfinished(ctx, acmeWeb, 10, func(router.Delivery) error { return nil })
		return err
	},
	"Notice": func(ctx context.Context, c *gh.Client) error {
		_, err := c.Notice(ctx, router.Notice{Kind: router.NoticeCommitStatus, Repo: acmeWeb, SHA: strings.Repeat("0", 40), State: router.NoticeWaits}, 0)
		return err
	},
	"CancelRun": func(ctx context.Context, c *gh.Client) error { return c.CancelRun(ctx, acmeWeb, 7) },
}

func TestWhatGoesWrongWithWhatNothingWaitsForIsSorted(t *testing.T) {
	head := func(status int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			answer(w, status, `{"message": "no"}`)
		}
	}
	for _, tt := range []struct {
		name   string
		h      http.HandlerFunc
		want   string
		except map[string]string
	}{
		{"secondary limit", head(403, "Retry-After", "60"), "retry at", nil},
		{"secondary limit as 429", head(429, "Retry-After", "60"), "retry at", nil},
		{"429 that names no time", head(429), "retry at", nil},
		{"primary limit", head(403, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "4102444800"), "retry at", nil},
		{"401", head(401), "fix", nil},
		{"403", head(403), "fix", map[string]string{"Sees": "none"}},
		{"404", head(404), "fix", map[string]string{"Sees": "none", "Redeliver": "give up"}},
		{"409", head(409), "retry", map[string]string{"CancelRun": "none"}},
		{"422", head(422), "give up", nil},
		{"500", head(500), "retry", nil},
		{"a page of HTML", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, "<html><body>Unicorn!")
		}, "retry", nil},
		{"JSON of another type", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, `"x"`) }, "retry", map[string]string{
			"CancelRun": "none", // its answer says nothing, here and below
		}},
		{"half a body", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(http.StatusOK)
			_, _ = io.WriteString(w, `{"total`)
		}, "retry", map[string]string{"CancelRun": "none"}},
		{"a body that is too long", func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 200, `{"x": "`+strings.Repeat("x", 2<<20)+`"}`)
		}, "retry", map[string]string{"CancelRun": "none"}},
		{"no answer in time", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}, "retry", nil},
	} {
		for name, ask := range asks {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				c := client(t, tt.h, func(cfg *gh.Config) {
					if tt.name == "no answer in time" {
						cfg.Timeout = 100 * time.Millisecond
					}
				})
				want := tt.want
				if other, ok := tt.except[name]; ok {
					want = other
				}
				err := ask(t.Context(), c)
				if kind(err) != want {
					t.Errorf("%s: %v, want %s", kind(err), err, want)
				}
				if err != nil && (strings.Contains(err.Error(), token) || len(err.Error()) > 700) {
					t.Errorf("the error shows too much: %v", err)
				}
			})
		}
	}
}
