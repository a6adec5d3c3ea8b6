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
	maxFull    = 16                 // places of which crowded told, and that are not seen to yet
	strayEvery = 12                 // sweeps; one that failed is made again after one
	strayKept  = 2 * 24 * time.Hour // GitHub itself drops a single-use runner that is offline for a day: https://docs.github.com/en/actions/how-tos/manage-runners/self-hosted-runners/remove-runners (read 2026-11-24)
)

// A StrayStore is what Strays uses of the database.
type StrayStore interface {
	// Targets returns where runners were registered on GitHub, of those of
	// which anything was recorded since.
	Targets(ctx context.Context, since time.Time) ([]router.Target, error)

	RunnerNamed(ctx context.Context, name string) (router.Runner, error)

	Runner(ctx context.Context, id string) (router.Runner, error)
}

// Strays removes runners from GitHub that nobody will. It is made by NewStrays.
type Strays struct {
	Store   StrayStore
	Runners *Runners

	full chan router.Target // size maxFull; see Crowded
	turn int                // sweeps since all were looked at; used by Remove only
}

// NewStrays returns one that looks at all strays first.
func NewStrays(store StrayStore, runners *Runners) *Strays {
	return &Strays{Store: store, Runners: runners, full: make(chan router.Target, maxFull), turn: strayEvery}
}

// Remove removes the runners from GitHub that ended and are offline there still.
// Only those that the books know are touched: by their ID on GitHub and as
// ended, or as registered for a runner by a request that seemed to fail.
func (st *Strays) Remove(ctx context.Context) error {
	if st.turn++; st.turn < strayEvery {
		return nil
	}
	targets, err := st.Store.Targets(ctx, st.Runners.Now().Add(-strayKept))
	if err != nil {
		return err
	}
	var errs []error
	again := false            // sooner, as it may go well then
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

// Crowded has makeRoom see to a place in which GitHub takes no more runners.
func (st *Strays) Crowded(t router.Target) {
	select {
	case st.full <- t:
	default: // the next refusal tells of it
	}
}

// MakeRoom removes what ended from the places that crowded tells of, until ctx
// ends: of each once in a sweep, as it may hold thousands.
func (st *Strays) MakeRoom(ctx context.Context) error {
	looked := map[router.Target]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case t := <-st.full:
			maps.DeleteFunc(looked, func(_ router.Target, at time.Time) bool { return st.Runners.Now().Sub(at) >= st.Runners.Sweep })
			if _, ok := looked[t]; ok {
				continue
			}
			looked[t] = st.Runners.Now()
			st.Runners.Log.Error("GitHub takes no more runners in a place: its runner group is full; those of Switchyard that ended are removed from it now",
				"owner", t.Owner, "repo", t.Repo, "enterprise", t.Enterprise, "fix", "remove the runners of that group that are not used, or name another group in the rules")
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

// runnerOf returns the runner that g was registered for; ErrNotFound when it is
// another's, or may be used yet.
func (st *Strays) runnerOf(ctx context.Context, t router.Target, g router.GitHubRunner) (router.Runner, error) {
	r, err := st.Store.RunnerNamed(ctx, g.Name)
	if err == nil {
		if r.GitHubID != g.ID || r.Target != t || r.EndedAt.IsZero() || !r.State.Final() {
			err = router.ErrNotFound
		}
		return r, err
	}
	// GitHub may answer 5xx and yet register a runner. Its name was never heard of again.
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
