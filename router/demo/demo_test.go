package demo

import (
	"testing"
	"time"

	"switchyard/router"
)

func TestTheIDsOfADemoAreTaken(t *testing.T) {
	now := time.Now()
	for _, now := range []time.Time{now, now.AddDate(50, 0, 0)} {
		if id := freshID(now); id < 1 || id+10_000 > router.MaxGitHubID {
			t.Errorf("freshID(%v) = %d", now, id)
		}
	}
	if freshID(now.Add(time.Second)) < freshID(now)+10_000 {
		t.Error("two demos share IDs")
	}
}
