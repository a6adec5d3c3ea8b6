// Package warm owns the warm runners: how many there are to be by the rules and the time, which
// are started, and which are stopped, as the rules, the time, their nodes or waiting jobs ask for.
// Dispatch gives them to jobs, and package claim answers them. Only the leader runs it.
package warm

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"switchyard/router"
	"switchyard/router/decide"
	"switchyard/router/telemetry"
	"switchyard/rules"
)

const (
	startsAtOnce = 4                // of one pass, for each kind
	patience     = 30 * time.Minute // for one with a node to come to the claim
	steady       = time.Minute      // at the claim, after which one that ends has not failed
	tellAfter    = 3                // failures in a row, which are a trouble
	firstPause   = 10 * time.Second // before another is started of a kind whose last one failed; doubled each time
	longestPause = 10 * time.Minute
	roomPause    = time.Minute // before another is started in the place of one that made room for a job
	nodesEvery   = 10 * time.Second
	endsEvery    = time.Minute // between two questions whether those that wait have ended, or got no node: an event may be lost
)

// A Store is what warm runners use of the database.
type Store interface {
	// WarmRunners returns those that are WarmStarting, WarmReady or WarmStopped, the oldest first.
	WarmRunners(ctx context.Context) ([]router.WarmRunner, error)

	// AddWarm records a runner that is WarmStarting, before Nomad is asked for it.
	AddWarm(ctx context.Context, w router.WarmRunner, tokenHash [32]byte, now time.Time) error

	// WarmRegistered records that Nomad has a runner, with the token of this hash.
	WarmRegistered(ctx context.Context, id string, at router.NomadAt, tokenHash [32]byte) error

	// StopWarm moves a runner from WarmStarting or WarmReady to WarmStopped, and reports whether it
	// did: not when a job has it, or when it is Doubted and has a node, unless its Nomad job is gone.
	StopWarm(ctx context.Context, id string, gone bool, reason string, now time.Time) (bool, error)

	// EndWarm moves a runner from WarmStopped to WarmEnded.
	EndWarm(ctx context.Context, id string) error

	// NoWarm returns those of the IDs of warm runners that the database does not have, or that are
	// WarmEnded.
	NoWarm(ctx context.Context, ids []string) ([]string, error)

	// RunnersOf returns how many runners of a rule have or may get a job.
	RunnersOf(ctx context.Context, rule string) (int, error)
}

// A Keeper keeps warm runners. It is made by New and safe for concurrent use; its exported fields
// are set before, and are required.
type Keeper struct {
	Store   Store
	Nomad   router.Nomad
	Decider *decide.Decider
	Log     *telemetry.Log
	Metrics *telemetry.Metrics
	Now     func() time.Time
	Changed router.Hint               // received: there may be something to do
	Stopped func()                    // called when a runner was stopped
	Away    func(region string) error // why Nomad is not asked for anything in a region now; nil: it is

	PublicURL string        // where runners claim
	Tick      time.Duration // between two passes though no hint came

	plan   *rules.WarmPlan // of planOf; used by Run alone
	planOf *rules.Set
	looked time.Time // at the nodes, likewise
	asked  time.Time // whether any has ended, likewise

	mu       sync.Mutex
	pause    map[kind]pause
	meant    map[string]bool      // stopped runners, by ID, that are not wanted any more: they have not failed
	unusable []router.WarmTrouble // of rules that no runner can be started for
}

// A kind is what warm runners have in common that are started for the same jobs.
type kind struct{ rule, fit string }

// A pause is until when no more runners of a kind are started.
type pause struct {
	until    time.Time
	failures int       // in a row: how often one failed, or several that were started together
	since    time.Time // when the first did
	at       time.Time // when the last did
	last     failure
}

// A failure is how a runner came to nothing.
type failure struct {
	why, fix string
	noRoom   bool // the nodes that could run it are busy
}

// A want is how many runners of a kind there are to be.
type want struct {
	rules.Warm
	have []router.WarmRunner
}

// New returns a Keeper whose exported fields are those of k.
func New(k *Keeper) *Keeper {
	k.forget()
	return k
}

// forget forgets what went wrong, when this process does not lead any more.
func (k *Keeper) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pause, k.meant, k.unusable = map[kind]pause{}, map[string]bool{}, nil
}

// Run keeps warm runners until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(k.Tick)
	defer tick.Stop()
	defer k.forget()
	for {
		if err := k.pass(ctx); err != nil && ctx.Err() == nil {
			k.Log.Throttled(slog.LevelWarn, "", "cannot keep warm runners; it will be retried", "err", err, "fix", router.StoreFix(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.Changed:
		case <-tick.C:
		}
	}
}

// pass starts and stops what the rules ask for now. Its errors are the store's; Nomad's are logged.
func (k *Keeper) pass(ctx context.Context) error {
	reading, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	all, err := k.Store.WarmRunners(reading)
	cancel()
	if err != nil {
		return err
	}
	wants, order := k.wants()
	of := map[string]int{} // live ones, by rule
	for _, w := range all {
		kd := kind{w.Rule, w.Fit}
		one := wants[kd]
		if w.State == router.WarmStopped { // by an event, before this process led, or Nomad did not stop it before
			if k.Away(w.NomadAt.Region) != nil {
				continue
			}
			f, failed := k.failureOf(ctx, w, one) // Nomad says it only as long as its job is there
			if k.end(ctx, w) && failed {
				k.failed(kd, f)
			}
			continue
		}
		if !w.ReadyAt.IsZero() && k.Now().Sub(w.ReadyAt) >= steady {
			k.succeeded(kd, w.ReadyAt)
		}
		switch {
		case !w.Registered: // whoever asked Nomad for it has ended, or failed
			err = k.stop(ctx, w, true, "Nomad did not say that it has it")
		case one == nil:
			err = k.stop(ctx, w, false, "its rule, jobspec or placement has changed")
		case one.Idle == 0:
			err = k.stop(ctx, w, false, "its rule keeps none at this time")
		case w.State == router.WarmStarting && !w.PlacedAt.IsZero() && k.Now().Sub(w.PlacedAt) > patience:
			why := fmt.Sprintf("it has had a node for %s without coming to the claim", rules.Duration(patience))
			k.failed(kd, failure{why: why, fix: "have its jobspec wait at the claim as docker-linux does, and check that its nodes reach --public-url"})
			err = k.stop(ctx, w, false, why+": does its jobspec wait there?")
		default:
			one.have = append(one.have, w)
			of[w.Rule]++
		}
		if err != nil {
			return err
		}
	}
	if err := k.askEnds(ctx, wants, of); err != nil {
		return err
	}
	if err := k.lookAtNodes(ctx, wants, of); err != nil {
		return err
	}
	for _, kd := range order {
		if err := k.level(ctx, kd, wants[kd], of); err != nil {
			return err
		}
	}
	k.settle(wants)
	return nil
}

// settle forgets the failures of kinds that are not wanted, or of which all that are wanted wait.
func (k *Keeper) settle(wants map[kind]*want) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for kd, p := range k.pause {
		one := wants[kd]
		if one == nil || one.Idle == 0 || p.failures > 0 && len(one.have) >= one.Idle && !slices.ContainsFunc(one.have, func(w router.WarmRunner) bool {
			return w.ReadyAt.IsZero() || k.Now().Sub(w.ReadyAt) < steady
		}) {
			delete(k.pause, kd)
		}
	}
}

// Troubles returns the rules whose warm runners keep failing, or cannot be started, by name. There
// are none while this process does not lead.
func (k *Keeper) Troubles() []router.WarmTrouble {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := slices.Clone(k.unusable)
	for kd, p := range k.pause {
		if p.failures >= tellAfter {
			list = append(list, router.WarmTrouble{Rule: kd.rule, Since: p.since, Why: router.Shorten(p.last.why, router.MaxText), Fix: p.last.fix, NoRoom: p.last.noRoom})
		}
	}
	slices.SortFunc(list, func(a, b router.WarmTrouble) int {
		return cmp.Or(strings.Compare(a.Rule, b.Rule), a.Since.Compare(b.Since), strings.Compare(a.Why, b.Why))
	})
	return list
}

// Took notes that a job took a runner.
func (k *Keeper) Took(w router.WarmRunner) {
	if !w.ReadyAt.IsZero() {
		k.succeeded(kind{w.Rule, w.Fit}, k.Now())
	}
}

// wants returns what there is to be, by kind, and in the order of the rules.
func (k *Keeper) wants() (map[kind]*want, []kind) {
	set := k.Decider.Rules()
	if k.planOf != set {
		k.plan, k.planOf = set.WarmPlan(), set
	}
	wants, order, unusable := map[kind]*want{}, []kind(nil), []router.WarmTrouble(nil)
	for _, w := range k.plan.At(k.Now()) {
		k.Metrics.Warm(w.Rule)
		if w.Why != "" {
			unusable = append(unusable, router.WarmTrouble{Rule: w.Rule, Why: w.Why, Fix: "correct the labels of warm, or leave warm out of the rule"})
			continue
		}
		jobspec, ok := k.Nomad.Waits(w.Placement)
		if !ok {
			const fix = "have it wait as docker-linux does, or leave warm out of the rule"
			k.Log.Throttled(slog.LevelError, w.Rule, "a rule keeps warm runners, and its jobspec does not wait at the claim", "rule", w.Rule, "jobspec", w.Placement.Jobspec, "fix", fix)
			unusable = append(unusable, router.WarmTrouble{Rule: w.Rule, Why: "its jobspec " + w.Placement.Jobspec + " does not wait at the claim for a job", Fix: fix})
			continue
		}
		kd := kind{w.Rule, router.WarmFit(w.Placement, jobspec)}
		if wants[kd] == nil {
			wants[kd] = &want{Warm: w}
			order = append(order, kd)
		} else if w.Idle > wants[kd].Idle {
			wants[kd].Warm = w
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range unusable {
		unusable[i].Since = k.Now()
		for _, before := range k.unusable {
			if before.Rule == unusable[i].Rule {
				unusable[i].Since = before.Since
			}
		}
	}
	k.unusable = unusable
	return wants, order
}

// level starts runners of a kind that are missing, and stops those that are too many.
func (k *Keeper) level(ctx context.Context, kd kind, w *want, of map[string]int) error {
	slices.SortStableFunc(w.have, func(a, b router.WarmRunner) int { // those that have come furthest stay
		return strings.Compare(string(a.State), string(b.State))
	})
	for _, extra := range w.have[:max(0, len(w.have)-w.Idle)] {
		if err := k.stop(ctx, extra, false, "its rule keeps fewer now"); err != nil {
			return err
		}
		of[kd.rule]--
	}
	missing := min(w.Idle-len(w.have), startsAtOnce)
	if missing <= 0 || k.paused(kd) || k.Away(k.Nomad.Region(w.Placement)) != nil {
		return nil
	}
	if w.Max > 0 {
		busy, err := k.Store.RunnersOf(ctx, kd.rule)
		if err != nil {
			return err
		}
		missing = min(missing, w.Max-busy-of[kd.rule])
	}
	for range missing {
		if err := k.start(ctx, kd, w); err != nil {
			return err
		}
		of[kd.rule]++
	}
	return nil
}

// start starts a runner. Its errors are the store's.
func (k *Keeper) start(ctx context.Context, kd kind, w *want) error {
	log := k.Log.With("rule", kd.rule)
	within, cancel := context.WithTimeout(ctx, router.NomadTimeout)
	defer cancel()
	at, err := k.Nomad.Home(within, w.Placement)
	if err != nil {
		k.failed(kd, refused(err))
		log.Throttled(slog.LevelWarn, kd.rule, "a warm runner could not be started; it will be retried", "err", err)
		return nil
	}
	one := router.WarmRunner{
		ID: router.WarmPrefix + strings.ToLower(rand.Text()[:13]), Rule: kd.rule, Fit: kd.fit, NomadAt: at, Asked: router.AskedOf(w.Placement, w.Labels),
	}
	token := router.NewClaimToken()
	if err := k.Store.AddWarm(ctx, one, token.Hash(), k.Now()); err != nil {
		return err
	}
	started, err := k.Nomad.Start(within, router.StartRequest{
		Runner: router.Runner{ID: one.ID, Name: one.ID}, Rule: kd.rule, Placement: w.Placement, ClaimURL: k.PublicURL + router.ClaimPath, ClaimToken: token, Warm: true,
	})
	if ctx.Err() != nil {
		return nil // whoever leads next stops it
	}
	if err != nil {
		f := refused(err)
		k.failed(kd, f)
		log.Throttled(slog.LevelWarn, kd.rule, "a warm runner could not be started; it will be retried", "err", err, "fix", f.fix)
		return k.stop(ctx, one, true, fmt.Sprintf("Nomad could not take it: %v", err))
	}
	log.Info("warm runner started", "nomad_job", one.ID)
	return k.Store.WarmRegistered(ctx, one.ID, started.At, started.ClaimToken.Hash())
}

// stop stops a runner, unless a job has taken it. Its errors are the store's.
func (k *Keeper) stop(ctx context.Context, w router.WarmRunner, gone bool, reason string) error {
	writing, cancel := context.WithTimeout(ctx, router.StoreTimeout)
	defer cancel()
	w.EndedAt = k.Now()
	stopped, err := k.Store.StopWarm(writing, w.ID, gone, reason, w.EndedAt)
	if err != nil || !stopped {
		return err
	}
	k.Log.Info("warm runner stopped", "rule", w.Rule, "nomad_job", w.ID, "reason", reason)
	k.Stopped()
	k.mu.Lock()
	k.meant[w.ID] = true
	k.mu.Unlock()
	k.end(ctx, w)
	return nil
}

// end stops the Nomad job of a runner that is WarmStopped, and reports whether it did. If that
// fails the next pass tries again; what the runner held is counted once.
func (k *Keeper) end(ctx context.Context, w router.WarmRunner) bool {
	if k.Away(w.NomadAt.Region) != nil {
		return false
	}
	within, cancel := context.WithTimeout(ctx, router.NomadTimeout)
	defer cancel()
	err := k.Nomad.Stop(within, w.Runner())
	if err == nil {
		err = k.Store.EndWarm(within, w.ID)
	}
	if err == nil {
		k.Metrics.WarmHeld(w.Rule, w.PlacedAt, w.EndedAt)
		k.mu.Lock()
		delete(k.meant, w.ID)
		k.mu.Unlock()
		return true
	}
	if ctx.Err() == nil {
		k.Log.Throttled(slog.LevelWarn, "", "cannot stop a warm runner; it will be retried", "nomad_job", w.ID, "err", err)
	}
	return false
}

// due reports whether something that is done at intervals is due, and notes that it is done.
func (k *Keeper) due(last *time.Time, every time.Duration) bool {
	now := k.Now()
	if since := now.Sub(*last); 0 <= since && since < every {
		return false
	}
	*last = now
	return true
}

// askEnds asks Nomad about the runners, now and then, as an event may be lost: whether they have
// ended, and whether those without a node have one.
func (k *Keeper) askEnds(ctx context.Context, wants map[kind]*want, of map[string]int) error {
	if !k.due(&k.asked, endsEvery) {
		return nil
	}
	return k.sift(wants, of, func(w router.WarmRunner) (stopped bool, err error) {
		young := k.Now().Sub(w.CreatedAt) < endsEvery
		if young && !w.Doubted || k.Away(w.NomadAt.Region) != nil { // one in doubt may have ended while nobody followed
			return false, nil
		}
		within, cancel := context.WithTimeout(ctx, router.NomadTimeout)
		defer cancel()
		kd, reason := kind{w.Rule, w.Fit}, ""
		if ended, err := k.Nomad.Ended(within, w.Runner()); err == nil && ended {
			reason = "its Nomad job ended before a job took it"
		} else if w.PlacedAt.IsZero() && !young {
			if _, err := k.Nomad.Allocation(within, w.Runner()); errors.Is(err, router.ErrNotFound) {
				reason = router.WarmNoNode
			}
		}
		if reason == "" {
			return false, nil
		}
		w.Reason, w.EndedAt = reason, k.Now()
		if f, failed := k.failureOf(ctx, w, wants[kd]); failed {
			k.failed(kd, f)
		}
		return true, k.stop(ctx, w, true, reason)
	})
}

// sift takes those from what there is that stop stops.
func (k *Keeper) sift(wants map[kind]*want, of map[string]int, stop func(router.WarmRunner) (stopped bool, err error)) error {
	for _, one := range wants {
		stay := one.have[:0:0]
		for _, w := range one.have {
			stopped, err := stop(w)
			if err != nil {
				return err
			}
			if stopped {
				of[w.Rule]--
			} else {
				stay = append(stay, w)
			}
		}
		one.have = stay
	}
	return nil
}

// Listed stops what a listing of Nomad has of warm runners that wait for a node, and that nobody
// will take: a process may have ended before Nomad had its request.
func (k *Keeper) Listed(ctx context.Context, jobs []router.NomadJob) {
	waiting := map[string]router.NomadJob{}
	ids := []string{}
	for _, j := range jobs {
		if router.IsWarm(j.ID) && j.Waiting && !j.Stopped {
			waiting[j.ID] = j
			ids = append(ids, j.ID)
		}
	}
	if len(ids) == 0 {
		return
	}
	within, cancel := context.WithTimeout(ctx, router.NomadTimeout)
	defer cancel()
	gone, err := k.Store.NoWarm(within, ids)
	for _, id := range gone {
		j := waiting[id]
		url, _, _, claimErr := k.Nomad.ClaimOf(within, j)
		if claimErr != nil || url != k.PublicURL+router.ClaimPath { // it may be another router's
			continue
		}
		err = errors.Join(err, k.Nomad.Stop(within, router.WarmRunner{ID: id, NomadAt: j.At}.Runner()))
	}
	if err != nil && ctx.Err() == nil {
		k.Log.Throttled(slog.LevelWarn, "", "cannot stop warm runners that nobody will take; the next sweep tries again", "err", err)
	}
}

// A node is one of Nomad's: regions may use the same names.
type node struct{ region, name string }

func nodeOf(w router.WarmRunner) node { return node{w.NomadAt.Region, w.Node} }

// lookAtNodes stops the runners whose nodes take no more allocations, now and then.
func (k *Keeper) lookAtNodes(ctx context.Context, wants map[kind]*want, of map[string]int) error {
	if !k.due(&k.looked, nodesEvery) {
		return nil
	}
	out := map[node]string{} // why
	for _, one := range wants {
		for _, w := range one.have {
			if _, known := out[nodeOf(w)]; known || w.Node == "" || k.Away(w.NomadAt.Region) != nil {
				continue
			}
			within, cancel := context.WithTimeout(ctx, router.NomadTimeout)
			a, err := k.Nomad.Allocation(within, w.Runner())
			cancel()
			if err != nil {
				continue // Nomad's events say when it is gone
			}
			out[nodeOf(w)] = a.NodeOut
		}
	}
	return k.sift(wants, of, func(w router.WarmRunner) (bool, error) {
		why := out[nodeOf(w)]
		if why == "" {
			return false, nil
		}
		return true, k.stop(ctx, w, false, fmt.Sprintf("its node %s is %s", w.Node, why))
	})
}

// MakeRoom stops the warm runners on nodes that could run the runner of a job, which waits for one:
// whatever it lacks there, they hold some of it.
func (k *Keeper) MakeRoom(ctx context.Context, j router.Job) {
	if j.Decision == nil {
		return
	}
	within, cancel := context.WithTimeout(ctx, router.NomadTimeout)
	defer cancel()
	p := j.Placement(j.Decision)
	region := k.Nomad.Region(p)
	all, err := k.Store.WarmRunners(within)
	if err != nil {
		k.Log.Throttled(slog.LevelWarn, "", "cannot make room for a job that waits for a node", "job_id", j.ID, "err", err)
		return
	}
	all = slices.DeleteFunc(all, func(w router.WarmRunner) bool {
		return w.State == router.WarmStopped || w.Node == "" || w.NomadAt.Region != region
	})
	nodes := []string{}
	for _, w := range all {
		if !slices.Contains(nodes, w.Node) {
			nodes = append(nodes, w.Node)
		}
	}
	if len(nodes) == 0 {
		return
	}
	suiting, err := k.Nomad.Suits(within, j.Decision.Rule, p, nodes)
	if err != nil { // the job comes first, whichever node it is
		k.Log.Throttled(slog.LevelWarn, "", "cannot tell which warm runners are in a job's way; all of its region are stopped", "job_id", j.ID, "err", err)
		suiting = nodes
	}
	for _, w := range all {
		if !slices.Contains(suiting, w.Node) {
			continue
		}
		k.wait(kind{w.Rule, w.Fit}, roomPause)
		if err := k.stop(ctx, w, false, fmt.Sprintf("job %d waits for what it holds on node %s", j.ID, w.Node)); err != nil {
			k.Log.Throttled(slog.LevelWarn, "", "cannot make room for a job that waits for a node", "job_id", j.ID, "err", err)
		}
	}
}

// wait has no runner of a kind started for a while.
func (k *Keeper) wait(kd kind, d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.pause[kd]
	if until := k.Now().Add(d); until.After(p.until) {
		p.until = until
	}
	k.pause[kd] = p
}

func (k *Keeper) paused(kd kind) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	left := k.pause[kd].until.Sub(k.Now())
	return 0 < left && left <= longestPause // more: the clock was set back
}

// failureOf returns how a runner failed that has ended, or has no node, and whose Nomad job is still
// there; ok is false if it did not: it was not wanted any more, or had waited for a while.
func (k *Keeper) failureOf(ctx context.Context, w router.WarmRunner, one *want) (f failure, ok bool) {
	k.mu.Lock()
	meant := k.meant[w.ID]
	k.mu.Unlock()
	switch {
	case meant || one == nil || !w.ReadyAt.IsZero() && w.EndedAt.Sub(w.ReadyAt) >= steady:
		return f, false
	case w.Reason != router.WarmNoNode:
		return failure{why: w.Reason, fix: "correct the jobspec, its image or the node: nomad job status " + w.ID + " has more"}, true
	}
	f = failure{why: w.Reason, fix: "wait, add a node, or keep fewer: until then jobs get runners of their own", noRoom: true}
	within, cancel := context.WithTimeout(ctx, router.NomadTimeout)
	defer cancel()
	u, err := k.Nomad.Unplaced(within, router.Job{Decision: &router.Decision{Outcome: rules.Routed, Rule: w.Rule, Placement: one.Placement}}, w.Runner())
	switch {
	case err != nil || u == nil || u.Pending: // it may be so, and no more is known
	case u.Away:
		f = failure{why: u.Text, fix: "bring the nodes back: nomad node status; nomad node eligibility -enable NODE"}
	case u.Never:
		f = failure{why: u.Text, fix: "ask for less, add a node that fits, or correct the rule or label"}
	default:
		f.why = "Nomad has no node for it: " + u.Text
	}
	return f, true
}

// refused returns the failure of a runner that Nomad did not take.
func refused(err error) failure {
	f := failure{why: fmt.Sprintf("Nomad could not take it: %v", err), fix: "do what Nomad says; it is tried again by itself"}
	if known, ok := errors.AsType[*router.FixError](err); ok {
		f.why, f.fix = fmt.Sprintf("Nomad could not take it: %v", known.Err), known.Fix
	}
	return f
}

// failed notes that a runner of a kind failed. Those that were started together fail once.
func (k *Keeper) failed(kd kind, f failure) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p, now := k.pause[kd], k.Now()
	p.at, p.last = now, f
	if p.failures == 0 || !now.Before(p.until) {
		if p.failures == 0 {
			p.since = now
		}
		if until := now.Add(min(firstPause<<min(p.failures, 10), longestPause)); until.After(p.until) {
			p.until = until
		}
		p.failures++
	}
	k.pause[kd] = p
	if p.failures >= tellAfter {
		k.Log.Throttled(slog.LevelWarn, kd.rule, "warm runners of a rule keep failing; they are started less and less often", "rule", kd.rule, "reason", f.why, "fix", f.fix)
	}
}

// succeeded notes that a runner of a kind came to the claim at a time, and has waited there for a
// while or got a job.
func (k *Keeper) succeeded(kd kind, at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p, ok := k.pause[kd]; ok && p.failures > 0 && at.After(p.at) {
		delete(k.pause, kd)
	}
}
