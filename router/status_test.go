package router_test

import (
	"testing"
	"time"

	"switchyard/router"
)

func TestATroubleIsShownWithTheChangeBeforeIt(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	s := router.Status{Changes: []router.Changed{{At: at.Add(5 * time.Minute), What: "newer"}, {At: at, What: "older"}}}
	for since, want := range map[time.Duration]string{
		-time.Minute: "", -500 * time.Millisecond: "older", 0: "older", 4 * time.Minute: "older", 5 * time.Minute: "newer", 14 * time.Minute: "newer", 15 * time.Minute: "",
	} {
		c, ok := s.Before(router.Trouble{Since: at.Add(since)})
		if c.What != want || ok != (want != "") {
			t.Errorf("a trouble since %v has the change %q, want %q", since, c.What, want)
		}
	}
}
