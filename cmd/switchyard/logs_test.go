package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/web/api"
)

// A duration in the log has a unit, in both forms and wherever it stands: JSON
// would have it as a number of nanoseconds.
func TestDurationsInTheLogHaveAUnit(t *testing.T) {
	const took = 41606237 * time.Nanosecond
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		log, err := newLogger(&out, format, "debug")
		must(t, err)
		log.Info("one", "took", took)
		log.With("took", took).Info("two")
		log.WithGroup("g").Info("three", slog.Duration("took", took))
		log.Info("four", slog.Group("g", "took", took), "any", any(took))
		if text := out.String(); strings.Contains(text, "41606237") || strings.Count(text, "41.606237ms") != 5 {
			t.Errorf("the log as %s:\n%s", format, text)
		}
	}
}

// An empty list says of what.
func TestEmptyListsSayOfWhat(t *testing.T) {
	var out bytes.Buffer
	err := errors.Join(writeAudits(&out, api.AuditList{}, 0, time.Time{}), writeRunners(&out, nil, 0, time.Time{}))
	if want := "nobody changed anything, or logged in\nno runners\n"; err != nil || out.String() != want {
		t.Errorf("empty lists: %v, %q, want %q", err, out.String(), want)
	}
	out.Reset()
	runners := []api.Runner{{ID: "gha-1-1", State: router.RunnerDispatched}, {ID: "gha-2-1", State: router.RunnerDispatched, NomadJob: "gha-2-1"}}
	if err := writeRunners(&out, runners, 0, time.Time{}); err != nil || !strings.Contains(out.String(), "gha-1-1  registering ") || !strings.Contains(out.String(), "gha-2-1  dispatched ") {
		t.Errorf("a runner that Nomad has not taken, and one that it has: %v\n%s", err, out.String())
	}
}
