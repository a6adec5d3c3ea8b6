package storetest

import (
	"testing"
	"time"

	"switchyard/router"
)

var lostTests = []test{
	{"a hook is known once, by its newest name, and keeps how far it was swept", func(t *testing.T, f *fixture) {
		org := router.Hook{Kind: router.HookOrganization, ID: 7, Owner: "acme"}
		f.must(f.SawHook(f.ctx(), org, T0))
		f.must(f.SawHook(f.ctx(), router.Hook{Kind: router.HookApp}, T0.Add(time.Second)))
		org.Owner = "acme-2"
		f.must(f.SawHook(f.ctx(), org, T0.Add(time.Hour)))
		f.must(f.Swept(f.ctx(), router.HookSweep{Hook: org, Swept: T0, Newest: T0.Add(time.Minute), Cursor: "c"}, nil, T0))
		got, err := f.Hooks(f.ctx())
		f.must(err)
		wantDiff(t, got, []router.HookSweep{
			{Hook: router.Hook{Kind: router.HookApp}, Swept: T0.Add(time.Second)},
			{Hook: org, Swept: T0, Newest: T0.Add(time.Minute), Cursor: "c"},
		})
	}},
	{"a failed delivery is due until it is received, too old, or asked for often enough", func(t *testing.T, f *fixture) {
		h := router.HookSweep{Hook: router.Hook{Kind: router.HookRepository, ID: 7, Owner: "acme", Repo: "web"}}
		f.must(f.SawHook(f.ctx(), h.Hook, T0))
		stored := queued(1)
		f.receive(stored)
		at := func(id int64, guid string, at time.Time) router.SentDelivery {
			return router.SentDelivery{ID: id, GUID: guid, At: at}
		}
		f.must(f.Swept(f.ctx(), h, []router.SentDelivery{at(3, "c", T0.Add(2)), at(2, "b", T0), at(1, stored.ID, T0), at(4, "old", T0.Add(-time.Hour))}, T0))
		f.must(f.Swept(f.ctx(), h, []router.SentDelivery{at(9, "b", T0.Add(time.Second))}, T0.Add(time.Hour))) // another attempt at it
		due := func(now time.Time, limit int) (list []router.Redelivery) {
			t.Helper()
			list, err := f.Redeliveries(f.ctx(), now, T0.Add(-time.Minute), limit)
			f.must(err)
			return list
		}
		b, c := router.Redelivery{GUID: "b", Hook: h.Hook, DeliveryID: 9}, router.Redelivery{GUID: "c", Hook: h.Hook, DeliveryID: 3}
		wantDiff(t, due(T0, 10), []router.Redelivery{c, b}[0:2:2])
		wantDiff(t, len(due(T0, 1)), 1)
		f.must(f.Redelivered(f.ctx(), "b", T0.Add(time.Minute)))
		f.must(f.Redelivered(f.ctx(), "c", time.Time{}))
		wantDiff(t, len(due(T0, 10)), 0)
		b.Tries = 1
		wantDiff(t, due(T0.Add(time.Minute), 10), []router.Redelivery{b})
		// One that is asked for no more stays so when it is seen again.
		f.must(f.Swept(f.ctx(), h, []router.SentDelivery{at(3, "c", T0)}, T0))
		wantDiff(t, due(T0.Add(time.Minute), 10), []router.Redelivery{b})
		d := queued(2)
		d.ID = "b"
		if !f.receive(d) {
			t.Error("a redelivery of what never arrived changed nothing")
		}
		wantDiff(t, len(due(T0.Add(time.Hour), 10)), 0)
	}},
}
