package gh_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/githubsim"
)

// learned is the hook that the sim's deliveries say they came by.
func learned(kind string) (h router.Hook) {
	h.Kind = router.HookKind(kind)
	switch h.Kind {
	case router.HookOrganization:
		h.ID, h.Owner = githubsim.HookID("acme", ""), "acme"
	case router.HookRepository:
		h.ID, h.Owner, h.Repo = githubsim.HookID("acme", "web"), "acme", "web"
	}
	return h
}

func TestLostDeliveriesAreListedAndMadeAgain(t *testing.T) {
	for _, of := range []string{githubsim.AppHook, githubsim.OrganizationHook, githubsim.RepositoryHook} {
		t.Run(of, func(t *testing.T) {
			a := newAppTest(t, githubsim.Config{Hook: of, App: &githubsim.App{ID: appID, Permissions: map[string]string{
				"organization_hooks": "write", "repository_hooks": "write",
			}}}, nil, "acme")
			for range 150 {
				a.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web"})
			}
			if err := a.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			h := learned(of)
			var all []router.SentDelivery
			pages := 0
			for cursor := ""; pages == 0 || cursor != ""; pages++ {
				page, next, err := a.client.Deliveries(t.Context(), h, cursor)
				if err != nil {
					t.Fatal(err)
				}
				all, cursor = append(all, page...), next
			}
			if len(all) != 150 || pages != 2 {
				t.Fatalf("%d deliveries on %d pages, want 150 on 2", len(all), pages)
			}
			last := a.Server.Deliveries()[149]
			want := router.SentDelivery{ID: 150, GUID: last.GUID, At: last.DeliveredAt.UTC().Truncate(time.Second), Said: last.Status, Event: "workflow_job", Action: "queued"}
			if diff := cmp.Diff(want, all[0]); diff != "" {
				t.Errorf("the newest delivery (-want +got):\n%s", diff)
			}
			body, err := a.client.Delivery(router.ForJobs(t.Context()), h, 7)
			var got, sent any
			if err := errors.Join(err, json.Unmarshal(body, &got), json.Unmarshal(githubsim.Payload(a.Jobs()[6], "queued"), &sent)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(sent, got); diff != "" {
				t.Errorf("the seventh delivery (-sent +got):\n%s", diff)
			}
			if _, err := a.client.Delivery(t.Context(), h, 999); kind(err) != "give up" {
				t.Errorf("Delivery of one that is gone = %v, want give up", err)
			}
			limit, kept := a.client.DeliveryLimit(h)
			if limit.Limit != 5000 || limit.Remaining >= 5000 || limit.Remaining < 4000 || kept != 5 {
				t.Errorf("DeliveryLimit = %+v, %d, want what is left of 5000 requests, of which 5 percent are kept", limit, kept)
			}
			if err := a.client.Redeliver(t.Context(), h, 7); err != nil {
				t.Errorf("Redeliver = %v", err)
			}
			if err := a.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if all := a.Server.Deliveries(); len(all) != 151 || all[150].GUID != all[6].GUID {
				t.Errorf("%d deliveries, want one more, with the GUID of the seventh", len(all))
			}
			if err := a.client.Redeliver(t.Context(), h, 999); kind(err) != "give up" {
				t.Errorf("Redeliver of one that is gone = %v, want give up", err)
			}
		})
	}
}

func TestWhatItTakesToSeeDeliveries(t *testing.T) {
	t.Run("a token is no App", func(t *testing.T) {
		c, _ := simulated(t, githubsim.Config{Token: token})
		if len(c.OwnHooks()) > 0 {
			t.Error("a token has a webhook")
		}
		if _, _, err := c.Deliveries(t.Context(), learned(githubsim.AppHook), ""); kind(err) != "fix" {
			t.Errorf("Deliveries = %v, want fix", err)
		}
	})
	t.Run("an App that lacks the permission", func(t *testing.T) {
		for hook, says := range map[string]string{
			githubsim.OrganizationHook: "organization permission Webhooks (read) on acme",
			githubsim.RepositoryHook:   "repository permission Webhooks (read) on acme/web",
		} {
			a := newAppTest(t, githubsim.Config{Hook: hook}, nil, "acme")
			if _, _, err := a.client.Deliveries(t.Context(), learned(hook), ""); kind(err) != "fix" || !strings.Contains(err.Error(), says) {
				t.Errorf("Deliveries = %v, want fix with %q", err, says)
			}
		}
	})
	t.Run("a webhook of an enterprise", func(t *testing.T) {
		c, _ := simulated(t, githubsim.Config{Token: token})
		for _, h := range []router.Hook{{Kind: "business", ID: 1}, {}, {Kind: router.HookOrganization, ID: 1, Owner: "a/b"}, {Kind: router.HookRepository, ID: 1, Owner: "a"}} {
			if err := c.Redeliver(t.Context(), h, 1); kind(err) != "give up" {
				t.Errorf("Redeliver for %+v = %v, want give up", h, err)
			}
		}
	})
}

func TestDeliveriesThatMakeNoSenseAreRefused(t *testing.T) {
	const good = `{"id": 1, "guid": "g", "delivered_at": "2026-11-24T12:00:00Z", "status": "OK"}`
	for _, tt := range []struct{ name, body, link string }{
		{"nothing", "", ""},
		{"no ID", `[{"guid": "g", "delivered_at": "2026-11-24T12:00:00Z"}]`, ""},
		{"no time", `[{"id": 1, "guid": "g"}]`, ""},
		{"a GUID with a line feed", `[{"id": 1, "guid": "g\n", "delivered_at": "2026-11-24T12:00:00Z"}]`, ""},
		{"a GUID that is long", `[{"id": 1, "guid": "` + strings.Repeat("g", 129) + `", "delivered_at": "2026-11-24T12:00:00Z"}]`, ""},
		{"a page that is long", "[" + strings.Repeat(good+",", 100) + good + "]", ""},
		{"a next page that is the same", "[" + good + "]", `<https://api.github.com/x?cursor=here>; rel="next"`},
		{"a next page that is long", "[" + good + "]", `<https://api.github.com/x?cursor=` + strings.Repeat("c", 513) + `>; rel="next"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if tt.link != "" {
					w.Header().Set("Link", tt.link)
				}
				answer(w, http.StatusOK, tt.body)
			}), nil)
			page, next, err := c.Deliveries(t.Context(), learned(githubsim.OrganizationHook), "here")
			if kind(err) != "retry" || page != nil || next != "" {
				t.Errorf("Deliveries = %v, %q, %v, want an error that is worth a retry", page, next, err)
			}
		})
	}
}

func TestADeliveryThatMakesNoSenseIsRefused(t *testing.T) {
	for name, body := range map[string]string{
		"nothing": "", "another": `{"id": 8, "request": {"headers": {}, "payload": {"action": "queued"}}}`,
		"no payload": `{"id": 7, "request": {"headers": null, "payload": null}}`, "no request": `{"id": 7}`,
		"too large": `{"id": 7, "request": {"payload": {"x": "` + strings.Repeat("x", 1<<20) + `"}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			c := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, body) }), nil)
			if got, err := c.Delivery(t.Context(), learned(githubsim.OrganizationHook), 7); kind(err) != "retry" || got != nil {
				t.Errorf("Delivery = %.50q, %v, want an error that is worth a retry", got, err)
			}
		})
	}
}

// Housekeeping leaves a fifth of a limit, and what jobs wait for a twentieth.
func TestWhatJobsWaitForMayUseMoreOfTheAppsLimit(t *testing.T) {
	a := newAppTest(t, githubsim.Config{RateLimit: 100}, nil, "acme")
	h := learned(githubsim.AppHook)
	read := func(ctx context.Context) (n int) {
		for {
			if _, _, err := a.client.Deliveries(ctx, h, ""); err != nil {
				if kind(err) != "retry at" {
					t.Errorf("Deliveries = %v, want one that says when to retry", err)
				}
				return n
			}
			n++
		}
	}
	if n := read(t.Context()); n != 80 {
		t.Errorf("a sweep may read %d times, want 80", n)
	}
	if n := read(router.ForJobs(t.Context())); n != 15 {
		t.Errorf("what jobs wait for may then read %d times, want 15", n)
	}
}
