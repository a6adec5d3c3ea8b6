package store

import (
	"testing"

	"switchyard/router"
)

func TestALimitIsSaidAloud(t *testing.T) {
	for want, l := range map[string]router.Limit{
		"waits for a place: rule linux runs at most 1 job at a time":                        {Running: 1, Per: "rule", Key: "linux"},
		"waits for a place: rule linux runs at most 2 jobs of owner acme at a time":         {Running: 2, Per: "owner", Key: "linux|acme"},
		"waits for a place: rule linux runs at most 1 job of repo h.example/a/b at a time":  {Running: 1, Per: "repo", Key: "linux|h.example/a/b"},
		"waits for a place: rule linux runs at most 3 jobs with the labels a,gpu at a time": {Running: 3, Per: "label", Key: "linux|a,gpu"},
		"waits for a place: rule linux runs at most 3 jobs without known labels at a time":  {Running: 3, Per: "label", Key: "linux|"},
	} {
		if got := saysLimit(&router.Decision{Rule: "linux", Limit: &l}); got != want {
			t.Errorf("the limit %+v is said as %q, want %q", l, got, want)
		}
	}
}
