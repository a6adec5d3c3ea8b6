package router

import (
	"fmt"
	"time"
)

// A Polling is how the deliveries of a webhook are read, in place of receiving them.
type Polling struct {
	Hook     string        `json:"hook"`     // Hook.String of it
	Interval time.Duration `json:"interval"` // between two lists of deliveries, at present
	Listed   time.Time     `json:"listed,omitzero"`
	Pending  int           `json:"pending"` // deliveries that are listed and not read

	// Failing is why GitHub does not list the deliveries, and FailingSince since when; "": it does.
	Failing      string    `json:"failing,omitempty"`
	FailingSince time.Time `json:"failing_since,omitzero"`

	// Needed is how many requests an hour it takes, Jobs for how many jobs an hour, and Allowed
	// how many GitHub takes; 0: not known, or any number.
	Needed  int `json:"needed"`
	Jobs    int `json:"jobs"`
	Allowed int `json:"allowed,omitempty"`
	// MostJobs is for about how many jobs an hour that is enough; 0: not known.
	MostJobs int `json:"most_jobs,omitempty"`
	// ShortSince is since when the requests are not enough; zero: they are. Until is when GitHub
	// takes more, if it takes none now.
	ShortSince time.Time `json:"short_since,omitzero"`
	Until      time.Time `json:"until,omitzero"`
}

// Short says, for people, that GitHub takes too few requests.
func (p Polling) Short() string {
	text := fmt.Sprintf("reading the deliveries of %s takes about %d requests an hour for %s, and GitHub takes %d", p.Hook, p.Needed, Count(p.Jobs, "job"), p.Allowed)
	if p.MostJobs > 0 {
		text += fmt.Sprintf(", which is enough for about %s an hour: more of them wait", Count(p.MostJobs, "job"))
	}
	if !p.Until.IsZero() {
		text += fmt.Sprintf("; it takes none until %s, and %s", p.Until.UTC().Format("15:04 UTC"), plural(p.Pending, "delivery waits", "deliveries wait"))
	}
	return text
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
