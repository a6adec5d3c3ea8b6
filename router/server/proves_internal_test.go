package server

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/intake"
	"switchyard/router/telemetry"
)

// deliveries has received what is in it.
type deliveries struct {
	intake.Store
	known map[string]bool
}

func (s deliveries) Receive(_ context.Context, d router.Delivery) (bool, error) {
	known := s.known[d.ID]
	s.known[d.ID] = true
	return !known, nil
}

// Whoever has one signed body could send it for ever: only news proves an address.
func TestADeliveryThatIsKnownProvesNoAddress(t *testing.T) {
	g := newGate(&wire{}, "public", 10, slog.New(slog.DiscardHandler))
	now := func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }
	a := &App{intake: intake.New(intake.Intake{
		Store: deliveries{known: map[string]bool{}}, Sweeper: &intake.Sweeper{Now: now}, Metrics: telemetry.NewMetrics(),
		Due: router.NewHint(), Leftover: router.NewJobHint(),
	})}
	for i, from := range []string{"192.0.2.1/32", "192.0.2.2/32"} {
		c := &guarded{gate: g, at: netip.MustParsePrefix(from), from: &source{}}
		must(t, a.receive(context.WithValue(t.Context(), guardedKey{}, c), router.Delivery{ID: "1", Action: "queued"}))
		if want := i == 0; c.from.proven != want {
			t.Errorf("delivery %d proves its address: %v, want %v", i+1, c.from.proven, want)
		}
	}
}
