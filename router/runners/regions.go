package runners

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"switchyard/router"
)

const maxRegions = 100 // that are followed: a label may give the name

// regions are those of Nomad whose runners are followed: the client's own, "", those that
// the rules name or that runners are in, and those that a job is about to get a runner in.
// It is safe for concurrent use.
type regions struct {
	wake     router.Hint // another is wanted
	listings router.Hint // there is one to be compared

	mu sync.Mutex
	of map[string]*followed
}

// A followed is a region that is followed.
type followed struct {
	wanted  time.Time // last
	stop    context.CancelFunc
	fresh   []router.NomadJob // the newest listing, if that is to be compared; else nil
	noted   bool              // the runners of a listing are known, or noted as orphans
	failing error             // why it cannot be listed or followed; nil: it can
}

// A listing has the Nomad jobs of the runners of some regions.
type listing struct {
	regions map[string]bool // which
	jobs    []router.NomadJob
}

func newRegions() *regions {
	return &regions{wake: router.NewHint(), listings: router.NewHint(), of: map[string]*followed{}}
}

// reset forgets all: this process begins to follow.
func (rs *regions) reset() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.of = map[string]*followed{}
}

// want has regions followed.
func (rs *regions) want(now time.Time, names ...string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, name := range names {
		f := rs.of[name]
		if f == nil {
			if len(rs.of) >= maxRegions {
				continue
			}
			f = &followed{}
			rs.of[name] = f
			rs.wake.Give()
		}
		f.wanted = now
	}
}

// names returns the regions that are followed, or about to be, in order.
func (rs *regions) names() (names []string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for name := range rs.of {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// listed takes a listing of a region, of which the newest counts.
func (rs *regions) listed(name string, jobs []router.NomadJob) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if f := rs.of[name]; f != nil {
		f.fresh = append([]router.NomadJob{}, jobs...)
		rs.listings.Give()
	}
}

// take returns the listings that are to be compared.
func (rs *regions) take() listing {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	l := listing{regions: map[string]bool{}}
	for name, f := range rs.of {
		if f.fresh != nil {
			l.regions[name] = true
			l.jobs = append(l.jobs, f.fresh...)
			f.fresh = nil
		}
	}
	return l
}

// note records that the runners of a listing are known, or noted as orphans.
func (rs *regions) note(l *listing) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for name := range l.regions {
		if f := rs.of[name]; f != nil {
			f.noted = true
		}
	}
}

// known reports whether the runners of a region are known.
func (rs *regions) known(name string) (ok bool, failing error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	f := rs.of[name]
	if f == nil {
		return false, nil
	}
	return f.noted, f.failing
}

// fails records why a region cannot be listed or followed; nil: it is.
func (rs *regions) fails(name string, err error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if f := rs.of[name]; f != nil {
		f.failing = err
	}
}

// Knows fails when it is not known yet which runners Nomad has in a region, which no job may
// get a runner in until then; it has the region followed. Of the client's own region dispatch
// waits for that by itself.
func (rs *Runners) Knows(region string) error {
	if region == "" {
		return nil
	}
	regions := rs.follower.regions
	regions.want(rs.Now(), region)
	switch ok, failing := regions.known(region); {
	case ok:
		return nil
	case failing != nil:
		return failing
	}
	return fmt.Errorf("the runners in region %s have not been listed yet", region)
}

// Away returns why the runners in a region are not followed now; nil: they are. It has the region
// followed. The client's own is never away.
func (rs *Runners) Away(region string) error {
	if err := rs.Knows(region); err != nil || region == "" {
		return err
	}
	_, failing := rs.follower.regions.known(region)
	return failing
}

// follow keeps the database in step with Nomad until ctx ends, in each region by itself.
func (f *follower) follow(ctx context.Context) error {
	f.regions.reset()
	tick := time.NewTicker(f.r.Sweep)
	defer tick.Stop()
	g, ctx := errgroup.WithContext(ctx)
	for {
		f.regions.want(f.r.Now(), "")
		f.regions.want(f.r.Now(), f.inRules()...)
		f.regions.mu.Lock()
		for name, of := range f.regions.of {
			switch {
			case of.stop == nil:
				var within context.Context
				within, of.stop = context.WithCancel(ctx)
				g.Go(func() error { return f.followRegion(within, name) })
			case f.r.Now().Sub(of.wanted) > 2*f.r.Sweep:
				of.stop()
				delete(f.regions.of, name)
			}
		}
		f.regions.mu.Unlock()
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-f.regions.wake:
		case <-tick.C:
		}
	}
}

// inRules returns the regions that the rules name.
func (f *follower) inRules() (names []string) {
	for _, name := range f.r.Decider.Rules().Regions() {
		names = append(names, f.r.Nomad.Region(router.Placement{Region: name}))
	}
	return names
}

// listAll lists all regions that are followed. What failed is not in the listing, and in err.
func (f *follower) listAll(ctx context.Context) (l listing, err error) {
	names := f.regions.names()
	if len(names) == 0 { // nothing is followed yet
		names = []string{""}
	}
	type answer struct {
		jobs []router.NomadJob
		err  error
	}
	answers := make([]answer, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { answers[i].jobs, _, answers[i].err = f.list(ctx, name) })
	}
	all.Wait()
	l.regions = map[string]bool{}
	var errs []error
	for i, a := range answers {
		if errs = append(errs, a.err); a.err == nil {
			l.regions[names[i]] = true
			l.jobs = append(l.jobs, a.jobs...)
		}
	}
	return l, errors.Join(errs...)
}
