package runners

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"switchyard/router"
)

const (
	maxFull    = 16                 // places in the queue of MakeRoom
	strayEvery = 12                 // sweeps; after a failure it is only one
	strayKept  = 2 * 24 * time.Hour // GitHub itself drops a single-use runner that is offline for a day: https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners/remove-runners (read 2026-11-24)
)

// A StrayStore is what Strays uses of the database.
type StrayStore interface {
	// Targets returns where runners were registered on GitHub about which anything was
	// recorded since.
	Targets(ctx context.Context, since time.Time) ([]router.Target, error)

	RunnerNamed(ctx context.Context, name string) (router.Runner, error)

	Runner(ctx context.Context, id string) (router.Runner, error)
}

// Strays removes dead runners from GitHub that nobody else will. It is made by NewStrays.
type Strays struct {
	Store   StrayStore
	Runners *Runners

	full chan router.Target // size maxFull; see Crowded
	turn int                // sweeps since the last removal; used by Remove only
}

// NewStrays returns Strays whose first Remove is due at once.
func NewStrays(store StrayStore, runners *Runners) *Strays {
	return &Strays{Store: store, Runners: runners, full: make(chan router.Target, maxFull), turn: strayEvery}
}

// Remove removes runners from GitHub that have ended and are still registered there,
// offline. It touches only runners in the database: those whose ID on GitHub is known and
// that ended, and those that GitHub registered although the request seemed to fail.
func (st *Strays) Remove(ctx context.Context) error {
	if st.turn++; st.turn < strayEvery {
		return nil
	}
	targets, err := st.Store.Targets(ctx, st.Runners.Now().Add(-strayKept))
	if err != nil {
		return err
	}
	var errs []error
	again := false            // after one sweep, as it may succeed then
	full := map[string]bool{} // hosts that take no more for now
	for _, t := range targets {
		if full[t.Host] {
			continue
		}
		err := st.removeFrom(ctx, t)
		errs = append(errs, err)
		full[t.Host] = errors.As(err, new(*router.RetryAtError))
		again = again || err != nil && !errors.As(err, new(*router.FixError))
		if ctx.Err() != nil {
			break
		}
	}
	if !again {
		st.turn = 0
	}
	return errors.Join(errs...)
}

// Crowded has MakeRoom remove dead runners from a place where GitHub takes no more.
func (st *Strays) Crowded(t router.Target) {
	select {
	case st.full <- t:
	default: // the next refusal calls it again
	}
}

// MakeRoom removes dead runners from the places that Crowded names, until ctx ends: from
// each once in a sweep, as it may hold thousands.
func (st *Strays) MakeRoom(ctx context.Context) error {
	cleared := map[router.Target]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case t := <-st.full:
			maps.DeleteFunc(cleared, func(_ router.Target, at time.Time) bool { return st.Runners.Now().Sub(at) >= st.Runners.Sweep })
			if _, ok := cleared[t]; ok {
				continue
			}
			cleared[t] = st.Runners.Now()
			st.Runners.Log.Error("a runner group on GitHub is full; switchyard's own dead runners are removed from it now",
				"owner", t.Owner, "repo", t.Repo, "enterprise", t.Enterprise, "fix", "remove unused runners from that group, or name another group in the rules")
			if err := st.removeFrom(ctx, t); err != nil && ctx.Err() == nil {
				st.Runners.Log.Warn("cannot make room for runners on GitHub", "owner", t.Owner, "repo", t.Repo, "enterprise", t.Enterprise, "err", err)
			}
		}
	}
}

func (st *Strays) removeFrom(ctx context.Context, t router.Target) error {
	listCtx, cancel := context.WithTimeout(ctx, router.ListTimeout)
	defer cancel()
	list, err := st.Runners.GitHub.Runners(listCtx, t)
	if err != nil {
		return fmt.Errorf("list the runners of %s on GitHub: %w", t.Owner, err)
	}
	for _, g := range list {
		if g.Online || g.Busy {
			continue
		}
		r, err := st.runnerOf(ctx, t, g)
		if errors.Is(err, router.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if err := st.Runners.Unregister(ctx, r); errors.Is(err, router.ErrBusy) {
			continue
		} else if err != nil {
			return err
		}
		st.Runners.Log.Info("a runner that ended was removed from GitHub", "job_id", r.JobID, "nomad_job", r.ID, "runner", r.Name)
	}
	return nil
}

// runnerOf returns the runner that g was registered for; ErrNotFound when g is not one of
// ours, or may still be used.
func (st *Strays) runnerOf(ctx context.Context, t router.Target, g router.GitHubRunner) (router.Runner, error) {
	r, err := st.Store.RunnerNamed(ctx, g.Name)
	if err == nil {
		if r.GitHubID != g.ID || r.Target != t || r.EndedAt.IsZero() || !r.State.Final() {
			err = router.ErrNotFound
		}
		return r, err
	}
	// GitHub may answer 5xx and yet register a runner, whose name is recorded nowhere.
	at := strings.LastIndexByte(g.Name, '-')
	if !errors.Is(err, router.ErrNotFound) || at < 0 || len(g.Name)-at-1 != router.NameSuffix {
		return r, err
	}
	if r, err = st.Store.Runner(ctx, g.Name[:at]); err != nil {
		return r, err
	}
	if r.State == router.RunnerDispatched || r.State == router.RunnerClaimed {
		return r, router.ErrNotFound // its registration is under way
	}
	r.Name, r.GitHubID, r.Target = g.Name, g.ID, t
	return r, nil
}
