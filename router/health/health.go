// Package health owns the one answer to whether Switchyard is well: what is wrong, since
// when, whom it hits and what to do, what changed lately, and what worked last. Server makes
// one Health; /readyz, /metrics, the console, its API and the command status show it.
package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"switchyard/router"
	"switchyard/router/telemetry"
)

const (
	fresh      = time.Second           // for so long an answer is shown again,
	freshShare = 10                    // and for so many times as long as it took to find, as many may ask
	patience   = 50 * time.Millisecond // for which somebody waits for an answer that is not the first
	tooOld     = time.Minute           // an answer is not shown again

	unroutableFor = router.GoneAfter // GitHub has cancelled the job by then
	maxExamples   = 20               // groups of one cause with an example
	maxChanges    = 20
	changesFor    = 24 * time.Hour
	nothingAfter  = 10 * time.Minute // in which no job starts, though one waits
	unsignedLeast = 3                // requests without a valid signature; single ones come from anywhere
	unsignedFor   = 10 * time.Minute // after the last of them
	pollFailsFor  = time.Minute      // in which GitHub lists no deliveries
	lostFor       = 90 * time.Second // after a sweep found lost deliveries, and until another one arrives
	quietLeast    = 20 * time.Second // without a delivery
	quietExpected = 10               // jobs that came in the same time on the days before
	quietDays     = 7                // that are compared
	quietShare    = 20               // for a 20th of a silence the comparison stays
	diskShare     = 20               // a 20th of the disk is little
	diskEnough    = 2 << 30          // bytes that are enough for any database here
	diskLittle    = 256 << 20        // bytes that are too few, however small the disk is
	manyJobs      = 10               // make a warning critical
)

// Mark is the name of the mark that tests whether the database can be written.
const Mark = "ready"

// A Store is what health uses of the database.
type Store interface {
	// Counts returns how many jobs are in each state.
	Counts(ctx context.Context) (map[router.JobState]int, error)

	// Writable returns why changes cannot be made; nil: they can, or could be lately.
	Writable(ctx context.Context) error

	// Troubles returns the jobs that something keeps from their runners, by cause, rule and
	// repository, those with most jobs first; with them jobs that are Unroutable and were
	// received at since or later, that wait for a place under a limit or for newer runners, or whose runner has
	// been online since before online. Of each cause, the first examples have the labels
	// and the reason of their newest job.
	Troubles(ctx context.Context, within router.Scope, online, since time.Time, examples int) ([]router.JobTrouble, error)

	// LimitHolders returns who has the places under a limit that jobs wait for: the
	// repositories with most of them first.
	LimitHolders(ctx context.Context) ([]router.LimitHolder, error)

	OpenJobs(ctx context.Context, within router.Scope) ([]router.OpenJobs, error)

	// RunnerVersions returns which versions the runners of the rules have.
	RunnerVersions(ctx context.Context) ([]router.RuleVersion, error)

	// Received counts the jobs that were received from one time on and before another, and
	// returns when the oldest of all was; zero: there is none.
	Received(ctx context.Context, from, until time.Time) (jobs int, oldest time.Time, err error)

	// Disk returns what the database's files use, and what is left where they are.
	Disk() (router.Disk, error)
}

// A Config is what a Health is made from. All is required.
type Config struct {
	Store   Store
	Metrics *telemetry.Metrics
	Now     func() time.Time

	Rules         func() router.RulesStatus
	FirstSync     func() bool                              // whether the first sync is under way
	Silent        func() (d time.Duration, region string)  // for how long Nomad has answered no request for a runner in a region; 0: it answers
	NotEvaluating func() (d time.Duration, region string)  // for how long a region evaluates no jobs; 0: all do
	Lost          func() (deliveries int, since time.Time) // that the last sweep to find any found to have failed, and when
	Polls         func() []router.Polling                  // how deliveries are read from GitHub, if they are
	Overflows     func() []router.OverflowStatus           // the variables by which jobs overflow
	Warm          func() []router.WarmTrouble              // the rules whose warm runners keep failing
	Replicas      func(now time.Time) []router.Trouble     // what is wrong with the replicas; without replicas nothing is
}

// A Health finds out whether Switchyard is well. It is made by New and safe for
// concurrent use.
type Health struct {
	config  Config
	started time.Time

	mu       sync.Mutex
	until    time.Time     // until then found is shown again
	took     time.Duration // to find it
	asking   chan struct{} // closed when the database has been asked; nil: it is not being asked
	found    found         // what it said last,
	answered time.Time     // and when
	changes  []router.Changed

	silence silence // used by find only, which runs once at a time

	background sync.WaitGroup
}

// found is what the database said.
type found struct {
	at       time.Time
	counts   map[router.JobState]int
	jobs     []router.JobTrouble
	holders  []router.LimitHolder
	versions []router.RuleVersion
	others   []router.Trouble // that are not about single jobs
	diskInfo router.Disk

	// Since when the database fails, the disk is nearly full, and nothing starts; zero: that is not so.
	failing, low, stuck time.Time
}

// New returns a Health that has asked nothing yet. started is what is said of the start.
func New(c Config, started string) *Health {
	h := &Health{config: c, started: c.Now()}
	h.changes = []router.Changed{{At: h.started, What: started}}
	return h
}

// Changed records that something was changed.
func (h *Health) Changed(c router.Changed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes = slices.Insert(h.changes, 0, c)
	h.changes = h.changes[:min(len(h.changes), maxChanges)]
}

// Counts returns how many jobs are in each state; nil: the database does not say.
func (h *Health) Counts() map[router.JobState]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refresh()
	return h.found.counts
}

// Status returns what is wrong with what a scope may see, and with what all share.
func (h *Health) Status(within router.Scope) router.Status {
	h.mu.Lock()
	h.refresh()
	f, now := h.found, h.config.Now()
	s := router.Status{Status: "ok", At: f.at, Troubles: []router.Trouble{}, Changes: []router.Changed{}, Proof: []router.Proof{}}
	for _, c := range h.changes {
		if now.Sub(c.At) < changesFor || c.At.Equal(h.started) {
			s.Changes = append(s.Changes, c)
		}
	}
	h.mu.Unlock()
	s.Troubles = fold(slices.Concat(f.others, h.sides(now, has(f.others, router.CauseNoDelivery)), overflows(h.config.Overflows(), within), warmTroubles(h.config.Warm())), jobTroubles(f.jobs, f.holders, within))
	slices.SortStableFunc(s.Troubles, worstFirst)
	for i, t := range s.Troubles {
		s.Troubles[i].Since = earlier(t.Since, now) // later: the clock was set back
		switch {
		case t.Cause == router.CauseStore, t.Cause == router.CauseClock:
			s.Status = "not ready"
		case t.Severity != router.Info && s.Status == "ok":
			s.Status = "degraded"
		}
	}
	for _, what := range []string{telemetry.WorkedDelivery, telemetry.WorkedRegistration, telemetry.WorkedClaim, telemetry.WorkedStart} {
		s.Proof = append(s.Proof, router.Proof{What: what, At: h.config.Metrics.Worked.Last(what)})
	}
	return s
}

// refresh asks the database, unless it was asked a moment ago. It waits for the answer if
// there was none yet, or none for long, or for a moment if the last one came quickly; else
// what was found then is shown meanwhile. h.mu is held, but not while it waits.
func (h *Health) refresh() {
	if h.asking == nil && !time.Now().Before(h.until) {
		asking, before := make(chan struct{}), h.found
		h.asking = asking
		h.background.Go(func() {
			began := time.Now()
			f := h.find(before)
			h.mu.Lock()
			defer h.mu.Unlock()
			h.found, h.took, h.answered = f, time.Since(began), time.Now()
			h.until = began.Add(max(fresh, freshShare*h.took))
			if !f.failing.IsZero() { // it must show when it is over
				h.until = h.answered.Add(fresh)
			}
			h.asking = nil
			close(asking)
		})
	}
	asking, first := h.asking, h.found.at.IsZero() || time.Since(h.answered) > tooOld
	if asking == nil || h.took >= patience && !first {
		return
	}
	h.mu.Unlock()
	defer h.mu.Lock()
	if first {
		<-asking
		return
	}
	enough := time.NewTimer(patience)
	defer enough.Stop()
	select {
	case <-asking:
	case <-enough.C:
	}
}

// Wait waits until the database is asked no more. Nobody may ask for the status from then on.
func (h *Health) Wait() { h.background.Wait() }

// find asks the database. It takes from what was found before since when something is so.
func (h *Health) find(before found) found {
	ctx, cancel := context.WithTimeout(context.Background(), router.StoreTimeout)
	defer cancel()
	f := found{at: h.config.Now(), low: before.low, stuck: before.stuck}
	f.diskInfo, _ = h.config.Store.Disk()
	err := f.ask(ctx, h.config.Store)
	if err == nil {
		f.others = h.shared(ctx, &f)
		return f
	}
	f.failing, f.jobs, f.holders = before.failing, before.jobs, before.holders
	if f.failing.IsZero() {
		f.failing = f.at
	}
	f.others = []router.Trouble{{
		Cause: router.CauseStore, Severity: router.Critical, Since: f.failing, What: "the database cannot be used, so no delivery is accepted",
		Said: err.Error(), Fix: router.StoreFix(err) + ". Deliveries that fail meanwhile are redelivered by themselves",
	}}
	for _, t := range before.others { // what was wrong before may be so still
		if t.Cause != router.CauseStore {
			f.others = append(f.others, t)
		}
	}
	return f
}

// ask reads from the database, and tests whether it can be written.
func (f *found) ask(ctx context.Context, store Store) (err error) {
	failing := func(what string, err error) error {
		if fix, ok := errors.AsType[*router.FixError](err); ok { // says by itself what to do
			return fmt.Errorf("the database failed: %w", fix)
		}
		return fmt.Errorf("the database %s: %w", what, err)
	}
	if f.counts, err = store.Counts(ctx); err != nil {
		return failing("does not answer", err)
	}
	if err = store.Writable(ctx); err != nil {
		return failing("cannot be written: check whether its disk is full"+f.diskInfo.Said(), err)
	}
	if f.jobs, err = store.Troubles(ctx, nil, f.at.Add(-router.OnlineAfter), f.at.Add(-unroutableFor), maxExamples); err != nil {
		return failing("does not answer", err)
	}
	if f.holders, err = store.LimitHolders(ctx); err != nil {
		return failing("does not answer", err)
	}
	if f.versions, err = store.RunnerVersions(ctx); err != nil {
		return failing("does not answer", err)
	}
	return nil
}
