package nomad

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-version"
)

// onceSince is the first release whose servers check EnforceIndex as they commit
// a job (hashicorp/nomad#27832; read in the sources of 1.8.0 to 2.0.5, 2026-11-29).
// Enterprise has it in 1.10.11 and 1.11.5, too.
const onceSince = "2.0.1"

// The releases that the contract tests were run against, without the patch number.
const (
	oldestTried = "1.8"
	newestTried = "2.0"
)

const (
	releaseKept   = 10 * time.Minute // servers are replaced one by one
	releaseRetry  = time.Minute      // after an answer that said nothing
	releaseWithin = 5 * time.Second  // for the question: a registration waits for it
)

// Releases are those of the servers of a Nomad, such as 1.11.3 or 2.0.6-dev.
type Releases struct {
	Oldest, Newest *version.Version // the same when all servers are alike
}

// String returns, for example, "2.0.5" or "1.11.3 to 2.0.5".
func (r Releases) String() string {
	if r.Oldest.Equal(r.Newest) {
		return r.Oldest.String()
	}
	return fmt.Sprintf("%s to %s", r.Oldest, r.Newest)
}

// Untried says, for people, that Switchyard was not tested with such servers; "" when
// it was.
func (r Releases) Untried() string {
	oldest, newest := version.Must(version.NewVersion(oldestTried)), version.Must(version.NewVersion(newestTried))
	switch {
	case r.Oldest.Core().LessThan(oldest):
		return fmt.Sprintf("Nomad is %s; Switchyard needs %s or later: expect jobs that Nomad refuses", r, oldestTried)
	case minor(r.Newest).GreaterThan(newest):
		return fmt.Sprintf("Nomad is %s; this Switchyard was tried with %s to %s: test it where nothing depends on it, and look for a newer Switchyard", r, oldestTried, newestTried)
	}
	return ""
}

// minor returns a version without its patch number and what follows it.
func minor(v *version.Version) *version.Version {
	parts := v.Segments()
	return version.Must(version.NewVersion(fmt.Sprintf("%d.%d", parts[0], parts[1])))
}

// Releases asks Nomad for the releases of its servers, in all regions that it knows. It
// needs node read. Errors are classified as for Start.
func (c *Client) Releases(ctx context.Context) (r Releases, err error) {
	ask := Call{What: "list Nomad's servers", Capability: NodeRead}
	members, err := c.api.Agent().MembersOpts(Scope{}.Read(ctx))
	if err != nil {
		return r, ask.Classify(err)
	}
	for _, m := range members.Members {
		if m.Status != "alive" {
			continue
		}
		v, err := version.NewVersion(m.Tags["build"])
		if err != nil {
			return r, fmt.Errorf("%s: the release of %s: %w", ask, Printable(m.Name, maxValue), err)
		}
		if r.Oldest == nil || v.LessThan(r.Oldest) {
			r.Oldest = v
		}
		if r.Newest == nil || v.GreaterThan(r.Newest) {
			r.Newest = v
		}
	}
	if r.Oldest == nil {
		return r, fmt.Errorf("%s: %w", ask, errors.New("none is alive"))
	}
	return r, nil
}

// A released has what is known about the servers' releases, until a time.
type released struct {
	once  bool // all of them check EnforceIndex as they commit
	until time.Time
}

// registersOnce reports whether all servers are known to check EnforceIndex as they
// commit. It asks Nomad every 10 minutes, or one minute after a failure.
func (c *Client) registersOnce(ctx context.Context) bool {
	known := func() *released {
		if k := c.release.Load(); k != nil && time.Now().Before(k.until) {
			return k
		}
		return nil
	}
	if k := known(); k != nil {
		return k.once
	}
	unlock, err := c.hold.lock(ctx, "release") // one caller asks
	if err != nil {
		return false
	}
	defer unlock()
	if k := known(); k != nil {
		return k.once
	}
	asking, cancel := context.WithTimeout(ctx, releaseWithin)
	defer cancel()
	r, err := c.Releases(asking)
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		c.release.Store(&released{until: time.Now().Add(releaseRetry)})
		return false
	}
	once := r.Oldest.Core().GreaterThanOrEqual(version.Must(version.NewVersion(onceSince)))
	c.release.Store(&released{once, time.Now().Add(releaseKept)})
	return once
}
