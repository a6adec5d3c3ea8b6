package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"switchyard/router"
	"switchyard/router/claim"
	"switchyard/router/telemetry"
)

// Replicas are the processes that serve from one database, as the database has them know of
// each other.
type Replicas interface {
	// Join makes this process one of them until ctx ends, and returns when what Lead began has
	// ended. Its error is nil, or a *router.FixError: this process is not like the others.
	Join(ctx context.Context, m router.Member) error

	// Tell has the others Hear a hint.
	Tell(ctx context.Context, hint string) error
}

// A limited is a GitHub whose limits the replicas keep together; gh's clients implement it.
type limited interface {
	Share(replicas int)                // this process may use its part of each limit
	Blocked() map[string]time.Time     // until when GitHub asked for no requests, by login
	Block(logins map[string]time.Time) // the same, as another replica was told
}

// A cluster is a Nomad that says which it is; nomad's client implements it.
type cluster interface {
	Cluster(ctx context.Context) (router.NomadCluster, error)
}

// What replicas tell each other. A hint that is lost costs a tick.
const (
	hintDue      = "due"       // a job may be due
	hintLeftover = "leftover " // and the ID of a job: its runners may be left over
	hintCompare  = "compare"   // the database is to be compared with Nomad
	hintSweep    = "sweep"     // the database takes deliveries again
	hintRules    = "rules"     // an editor has applied rules; for all, not only for the leader
	hintTaken    = "taken"     // a warm runner was taken; likewise
	hintWarm     = "warm"      // a warm runner has come to the claim
)

const (
	tellTimeout   = time.Second
	recoverEvery  = 10 * time.Second
	identifyEvery = time.Minute     // between two questions which cluster Nomad is
	cutOffAfter   = 5 * time.Second // without a look at the others
	lastPause     = 100 * time.Millisecond
	noLeader      = 5 * time.Second // after which that is a trouble
	differAfter   = 2 * time.Minute // in which replicas load new rules
)

// A replica is this process among the replicas.
type replica struct {
	name  string
	began time.Time

	mu      sync.Mutex
	epoch   int64               // of the term that this process leads; 0: it does not lead
	all     []router.Replica    // as they were seen last, the oldest first
	seen    time.Time           // when that was
	leader  string              // who led when a leader was seen last; "": none was
	led     time.Time           // when that was; at first, when this process began
	changes int                 // of the leader, seen
	differ  time.Time           // since when the rules in force differ; zero: they do not
	nomad   router.NomadCluster // as Nomad said last; zero: it has not
	wrong   time.Time           // since when the clock is wrong; zero: it is not
	ahead   time.Duration       // by how much
}

// Replicas returns the processes that serve from the database, as this one saw them last, the
// oldest first; nil: only this one may.
func (a *App) Replicas() []router.Replica {
	a.replica.mu.Lock()
	defer a.replica.mu.Unlock()
	all := slices.Clone(a.replica.all)
	for i := range all {
		if all[i].Self { // which is known sooner
			all[i].Leads, all[i].RulesHash = a.replica.epoch != 0, a.decider.Status().Hash
		}
	}
	return all
}

// statusReplicas returns the same for people.
func (a *App) statusReplicas() (all []router.StatusReplica) {
	for _, r := range a.Replicas() {
		all = append(all, router.StatusReplica{Name: r.Name, Version: r.Version, StartedAt: r.StartedAt, RulesHash: r.RulesHash, Leads: r.Leads, Self: r.Self})
	}
	return all
}

// term returns the number of the term that this process leads; 0: it does not lead.
func (r *replica) term() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.epoch
}

// replicate takes part among the replicas until ctx ends.
func (a *App) replicate(ctx context.Context) error {
	stop := a.forward(ctx)
	defer func() { stop() }()
	return a.replicas.Join(ctx, router.Member{
		Now:   a.now,
		Facts: a.facts,
		Seen:  a.sees,
		Hear:  a.hears,
		Lost: func(err error) {
			a.log.Throttled(slog.LevelWarn, "", "this replica cannot take part at the moment; it tries again", "err", err, "fix", router.StoreFix(err))
		},
		Lead: func(term context.Context) error {
			stop()
			defer func() { stop = a.forward(ctx) }()
			return a.leadTerm(term, ctx)
		},
	})
}

// identify asks Nomad which cluster it is, until ctx ends.
func (a *App) identify(ctx context.Context) error {
	for {
		wait := recoverEvery
		asking, cancel := context.WithTimeout(ctx, router.NomadTimeout)
		cluster, err := a.cluster.Cluster(asking)
		cancel()
		if err == nil {
			wait = identifyEvery
			a.replica.mu.Lock()
			a.replica.nomad = cluster
			a.replica.mu.Unlock()
		}
		if !router.Pause(ctx, wait) {
			return nil
		}
	}
}

// leadTerm does what one replica must do alone, until its term ends; stops ends when this one stops.
func (a *App) leadTerm(ctx, stops context.Context) error {
	a.first.Restart()
	defer a.dispatcher.Restart() // for the next term
	a.replica.mu.Lock()
	a.replica.epoch = router.Term(ctx)
	a.replica.mu.Unlock()
	defer func() {
		a.replica.mu.Lock()
		defer a.replica.mu.Unlock()
		a.replica.epoch = 0
	}()
	a.log.Info("this replica leads now", "epoch", router.Term(ctx))
	defer a.log.Info("this replica no longer leads", "epoch", router.Term(ctx))
	taken, err := a.takeUp(ctx, a.now().Add(-claim.Longest)) // claims of other replicas may be under way
	if err != nil {
		return err
	}
	return a.lead(ctx, stops, taken)
}

// forward tells the leader what this process has hints of, until stop is called.
func (a *App) forward(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			hints := []string{}
			select {
			case <-ctx.Done():
				return
			case <-a.due:
				hints = append(hints, hintDue)
			case <-a.leftover.C:
				for _, id := range a.leftover.Take() {
					hints = append(hints, hintLeftover+strconv.FormatInt(id, 10))
				}
			case <-a.compare:
				hints = append(hints, hintCompare)
			case <-a.runners.Unhandled():
				hints = append(hints, hintCompare)
			case <-a.sweeper.Sooner():
				hints = append(hints, hintSweep)
			case <-a.warm:
				hints = append(hints, hintWarm)
			}
			for _, h := range hints {
				if !a.tell(ctx, h) {
					break // nor would the others be told: they may be a thousand
				}
			}
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// tell tells the other replicas a hint, and reports whether the database took it.
func (a *App) tell(ctx context.Context, hint string) bool {
	within, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	err := a.replicas.Tell(within, hint)
	if err != nil && ctx.Err() == nil {
		a.log.Debug("the other replicas were not told; they find out at their next tick", "hint", hint, "err", err)
	}
	return err == nil
}

// TellRules tells the other replicas that an editor applied rules here.
func (a *App) TellRules(ctx context.Context) {
	if a.replicas != nil {
		a.tell(ctx, hintRules)
	}
}

// hears takes a hint of another replica.
func (a *App) hears(hint string) {
	if hint == hintRules && a.rulesApplied != nil {
		a.rulesApplied()
	}
	if hint == hintTaken {
		a.claims.Taken()
	}
	if a.replica.term() == 0 {
		return
	}
	id, leftover := strings.CutPrefix(hint, hintLeftover)
	switch {
	case leftover:
		jobID, _ := strconv.ParseInt(id, 10, 64) // 0: all jobs
		a.leftover.Of(jobID)
	case hint == hintDue:
		a.due.Give()
	case hint == hintCompare:
		a.compare.At(a.now())
	case hint == hintSweep:
		a.sweeper.Again()
	case hint == hintWarm:
		a.warm.Give()
	}
}

// facts returns what the other replicas are to know of this one.
func (a *App) facts() router.Replica {
	r := router.Replica{
		Name: a.replica.name, Version: telemetry.ThisBuild().Version, StartedAt: a.replica.began, PublicURL: a.publicURL,
		RulesHash: a.decider.Status().Hash, Worked: a.metrics.Worked.All(),
	}
	a.replica.mu.Lock()
	r.Nomad = a.replica.nomad
	a.replica.mu.Unlock()
	if a.limited != nil {
		r.Blocked = a.limited.Blocked()
	}
	if epoch := a.replica.term(); epoch != 0 {
		since := func(d time.Duration) time.Time {
			if d == 0 {
				return time.Time{}
			}
			return a.now().Add(-d).Truncate(time.Second)
		}
		silent, region := a.dispatcher.SilentFor()
		paused, where := a.runners.NotEvaluating()
		r.Leading = &router.Leading{
			Epoch: epoch, SilentSince: since(silent), SilentRegion: region, NotEvaluatedSince: since(paused), NotEvaluated: where,
			Syncing: a.first.UnderWay(), Settling: a.first.Settling(),
		}
		r.Leading.Lost, r.Leading.LostAt = a.sweeper.Lost()
		r.Leading.Polls = a.poller.Status()
		r.Leading.Overflows = a.overflow.Status()
		r.Leading.Warm = a.keeper.Troubles()
	}
	return r
}

// sees takes what the replicas are, and what they say.
func (a *App) sees(all []router.Replica) {
	leader, hashes, ahead := "", map[string]bool{}, time.Duration(0)
	if a.limited != nil {
		a.limited.Share(len(all))
	}
	for _, r := range all {
		hashes[r.RulesHash] = true
		if r.Leads {
			leader = r.Name
		}
		if r.Leads && !r.Self && r.Leading != nil {
			a.first.Show(r.Leading.Syncing, r.Leading.Settling)
		}
		if r.Self {
			ahead = r.Ahead
			continue
		}
		a.metrics.Worked.Heard(r.Worked)
		if a.limited != nil {
			a.limited.Block(r.Blocked)
		}
	}
	a.replica.mu.Lock()
	defer a.replica.mu.Unlock()
	now := a.now()
	a.replica.all, a.replica.seen = all, now
	if leader != "" {
		if a.replica.leader != "" && a.replica.leader != leader {
			a.replica.changes++
			a.log.Info("another replica leads now", "leader", leader, "before", a.replica.leader)
		}
		a.replica.leader, a.replica.led = leader, now
	}
	switch a.replica.ahead = ahead; {
	case ahead.Abs() <= router.MostAhead:
		a.replica.wrong = time.Time{}
	case a.replica.wrong.IsZero():
		a.replica.wrong = now
	}
	switch {
	case len(hashes) < 2:
		a.replica.differ = time.Time{}
	case a.replica.differ.IsZero():
		a.replica.differ = now
	}
}

// leading returns what the leader says; nil: this process leads, or there is no leader.
func (a *App) leading() *router.Leading {
	for _, r := range a.Replicas() {
		if r.Leads && !r.Self {
			return r.Leading
		}
	}
	return nil
}

// silent returns for how long a region of Nomad has been silent, to whoever leads, and which.
func (a *App) silent() (d time.Duration, region string) {
	if l := a.leading(); l != nil {
		return a.ago(l.SilentSince), l.SilentRegion
	}
	return a.dispatcher.SilentFor()
}

// notEvaluating returns for how long a region of Nomad has evaluated no jobs of whoever leads, and which.
func (a *App) notEvaluating() (d time.Duration, region string) {
	if l := a.leading(); l != nil {
		return a.ago(l.NotEvaluatedSince), l.NotEvaluated
	}
	return a.runners.NotEvaluating()
}

// lost returns what the last sweep of whoever leads found.
func (a *App) lost() (deliveries int, at time.Time) {
	if l := a.leading(); l != nil {
		return l.Lost, l.LostAt
	}
	return a.sweeper.Lost()
}

// polls returns how whoever leads reads deliveries.
func (a *App) polls() []router.Polling {
	if l := a.leading(); l != nil {
		return l.Polls
	}
	return a.poller.Status()
}

// overflows returns the variables by which jobs overflow, as whoever leads says.
func (a *App) overflows() []router.OverflowStatus {
	if l := a.leading(); l != nil {
		return l.Overflows
	}
	return a.overflow.Status()
}

// warmTroubles returns the rules whose warm runners keep failing, as whoever leads says.
func (a *App) warmTroubles() []router.WarmTrouble {
	if l := a.leading(); l != nil {
		return l.Warm
	}
	return a.keeper.Troubles()
}

// overflowing returns the rules in force whose jobs may overflow.
func (a *App) overflowing() (names []string) {
	for _, o := range a.Rules().Overflows() {
		names = append(names, o.Rule)
	}
	return names
}

// last reports whether this process, which leads and stops, leaves no other behind: it waits until
// it has seen who is there.
func (a *App) last(ctx context.Context) bool {
	for asked := a.now(); a.replicas != nil; {
		a.replica.mu.Lock()
		seen, others := a.replica.seen.After(asked), len(a.replica.all) > 1
		a.replica.mu.Unlock()
		if seen {
			return !others
		}
		if !router.Pause(ctx, lastPause) {
			return false
		}
	}
	return true
}

func (a *App) ago(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return max(a.now().Sub(t), 0)
}

// troubles returns what is wrong with the replicas.
func (r *replica) troubles(now time.Time) (all []router.Trouble) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if cut := now.Sub(cmp.Or(r.seen, r.began)); cut > cutOffAfter {
		all = append(all, router.Trouble{
			Cause: router.CauseNoLeader, Severity: router.Critical, Since: now.Add(-cut), What: "this replica has no connection to the database by which it knows the others, and may lead",
			Fix: "the log says why; it is made again by itself when PostgreSQL takes connections",
		})
	} else if gone := now.Sub(r.led); gone > noLeader {
		all = append(all, router.Trouble{
			Cause: router.CauseNoLeader, Severity: router.Critical, Since: r.led, What: "no replica leads, so no runner is started",
			Fix: "look into the logs of the replicas for why none can lead; if that is of no use, start them again",
		})
	}
	if !r.wrong.IsZero() {
		all = append(all, router.Trouble{
			Cause: router.CauseClock, Severity: router.Critical, Since: r.wrong,
			What: fmt.Sprintf("the clock of this replica is %s the database's, so that what it records would be due at the wrong time", saysAhead(r.ahead)),
			Fix:  "correct the clock of its machine, or of the database's: run NTP on both",
		})
	}
	if !r.differ.IsZero() && now.Sub(r.differ) > differAfter {
		said := ""
		for _, one := range r.all {
			said += fmt.Sprintf("; %s has %.12s", one.Name, one.RulesHash)
		}
		all = append(all, router.Trouble{
			Cause: router.CauseRulesDiffer, Severity: router.Warning, Since: r.differ, What: "the replicas have different rules in force; those of the leader decide",
			Said: strings.TrimPrefix(said, "; "), Fix: "give all replicas the same rules and jobspecs: switchyard rules status, asked of each by --server, says what that one refused",
		})
	}
	return all
}

// saysAhead says how one clock differs from another, before the name of that.
func saysAhead(d time.Duration) string {
	if d < 0 {
		return router.Coarse(-d) + " behind"
	}
	return router.Coarse(d) + " ahead of"
}

var (
	leaderDesc  = prometheus.NewDesc("switchyard_leader", "1 if this replica leads, else 0. A server whose database is a file always leads.", nil, nil)
	epochDesc   = prometheus.NewDesc("switchyard_leader_epoch", "The number of the term that this replica leads; 0: it does not lead, or its database is a file.", nil, nil)
	changesDesc = prometheus.NewDesc("switchyard_leader_changes_total", "How often this replica saw another replica become the leader than the one before.", nil, nil)
	countDesc   = prometheus.NewDesc("switchyard_replicas", "The replicas that serve from the database.", nil, nil)
)

// replicaMetrics show this process among the replicas.
type replicaMetrics struct {
	*replica
	alone bool
}

// Describe implements prometheus.Collector.
func (m replicaMetrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m replicaMetrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	leads, epoch, changes, count := m.epoch != 0 || m.alone, m.epoch, m.changes, len(m.all)
	m.mu.Unlock()
	one := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
		ch <- prometheus.MustNewConstMetric(d, kind, v)
	}
	is := map[bool]float64{true: 1}
	one(leaderDesc, prometheus.GaugeValue, is[leads])
	one(epochDesc, prometheus.GaugeValue, float64(epoch))
	one(changesDesc, prometheus.CounterValue, float64(changes))
	one(countDesc, prometheus.GaugeValue, float64(max(count, 1)))
}

// ofLeader shows metrics only while this process leads: those of the database are the same on
// all replicas, and would be added up.
type ofLeader struct {
	prometheus.Collector
	leads func() bool
}

// Collect implements prometheus.Collector.
func (m ofLeader) Collect(ch chan<- prometheus.Metric) {
	if m.leads() {
		m.Collector.Collect(ch)
	}
}
