package telemetry

import (
	"fmt"
	"testing"
	"time"
)

func TestTheKindsOfThrottledLinesAreBounded(t *testing.T) {
	var l throttle
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	written := 0
	for i := range 3 * maxLineKinds {
		if _, ok := l.allow(fmt.Sprint("runner ", i), now); ok {
			written++
		}
	}
	if len(l.kinds) > maxLineKinds+1 || written != maxLineKinds+1 {
		t.Errorf("%d kinds are kept and %d lines were written, want %d of both", len(l.kinds), written, maxLineKinds+1)
	}
	if leftOut, ok := l.allow("another", now.Add(lineEvery)); !ok || leftOut != 0 || len(l.kinds) != 1 {
		t.Errorf("a minute later: written %v, %d left out, %d kinds kept; want it written, alone", ok, leftOut, len(l.kinds))
	}
}
