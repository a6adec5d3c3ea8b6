package intake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"switchyard/router"
	"switchyard/router/telemetry"
)

const (
	// PollEvery is how often a webhook's deliveries are listed while jobs wait or come, unless
	// a Poll says otherwise.
	PollEvery = 5 * time.Second

	pollSlowest  = 6                // times as long, while nothing happens
	pollQuiet    = 10               // a tenth of the time without a delivery passes until the next list
	pollOverlap  = 20 * time.Second // of two lists: GitHub lists a delivery after its answer, which may take 10 s
	pollFurther  = time.Minute      // between two lists with the overlap of a sweep
	pollFully    = 10 * time.Minute // between two lists with the whole overlap,
	pollLate     = 20 * time.Minute // which is for what GitHub lists later
	pollPages    = 50               // of a hundred deliveries each, at most, in one list
	pollPending  = 10_000           // deliveries to read; with so many, no more are listed
	pollReaders  = 8                // deliveries read at once
	pollBatch    = 64               // deliveries read between two lists, when they are due
	pollAgain    = 5 * time.Second  // until a delivery that could not be read is tried again; doubled each time
	pollLongest  = 10 * time.Minute // of those waits
	pollTries    = 10               // of one delivery
	pollRefused  = 30 * time.Second // after a refusal that only an operator can end
	pollPause    = time.Minute      // at most, for a rate limit, until it is looked at again
	pollSettle   = 30 * time.Second // how far the reading comes until that is recorded
	pollFullLook = time.Hour        // between two full syncs
	pollShortFor = 20 * time.Minute // of which the requests are projected to an hour, at least
)

// A Poll is a webhook whose deliveries are read.
type Poll struct {
	Hook  router.Hook
	Every time.Duration // between two lists while jobs wait or come; 0: PollEvery
}

// A PollStore is what a Poller uses of the database.
type PollStore interface {
	Hooks(ctx context.Context) ([]router.HookSweep, error)
	Swept(ctx context.Context, h router.HookSweep, missed []router.SentDelivery, now time.Time) error
	Counts(ctx context.Context) (map[router.JobState]int, error)

	// Unrecorded returns those of the GUIDs of which no delivery is recorded.
	Unrecorded(ctx context.Context, guids []string) ([]string, error)
}

// A Poller reads the deliveries of webhooks from GitHub, and gives them to the Intake as if
// they had been received. How far it came is in the database. Its fields are set before Run,
// and are required.
type Poller struct {
	Polls   []Poll
	Store   PollStore
	GitHub  router.GitHub
	Intake  *Intake
	Sweeper *Sweeper
	Log     *telemetry.Log
	Metrics *telemetry.Metrics
	Now     func() time.Time

	// Decode reads the body of a workflow_job delivery, and bounds what strangers wrote in it.
	Decode func(body []byte) (router.Delivery, error)

	// Full syncs the repositories of a webhook whose deliveries are too old, or too many, to be
	// read.
	Full func(ctx context.Context, h router.Hook)

	mu    sync.Mutex
	shown map[router.HookKey]router.Polling
}

// Has reports whether the deliveries of a hook are read.
func (p *Poller) Has(h router.Hook) bool {
	return slices.ContainsFunc(p.Polls, func(one Poll) bool { return one.Hook.Key() == h.Key() })
}

// Status returns how the deliveries of each webhook are read; nil: none is, in this process.
func (p *Poller) Status() (all []router.Polling) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.Polls {
		if s, ok := p.shown[one.Hook.Key()]; ok {
			all = append(all, s)
		}
	}
	return all
}

// Run reads deliveries until ctx ends. full says that a full sync of everything is under way.
func (p *Poller) Run(ctx context.Context, full bool) error {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.shown = nil
	}()
	g, ctx := errgroup.WithContext(ctx)
	for _, one := range p.Polls {
		one.Every = cmp.Or(one.Every, PollEvery)
		r := &reading{
			Poller: p, Poll: one, full: g, covered: full, began: time.Now(), busy: time.Now(),
			seen: map[string]time.Time{}, pending: map[string]*owed{},
		}
		g.Go(func() error {
			for router.Pause(ctx, r.round(ctx)) {
			}
			return nil
		})
	}
	return g.Wait()
}

// A reading is how far one webhook's deliveries were read since Run began. Times without a
// comment are this process's; those of deliveries are by GitHub's clock.
type reading struct {
	*Poller
	Poll
	full  *errgroup.Group // runs full syncs
	began time.Time
	known bool // sweep is set

	sweep  router.HookSweep // as the database has it
	base   time.Time        // sweep.Swept when it was read, by GitHub's clock
	listed time.Time        // all earlier deliveries were listed, by GitHub's clock
	newest time.Time        // of the deliveries listed, by GitHub's clock
	fully  time.Time        // when the last list began that went back to listed; zero: none did
	far    time.Time        // when the last one began that went further back than usual

	seen    map[string]time.Time // deliveries that need no look any more, by GUID: when they were made
	pending map[string]*owed     // those to read, by GUID

	next   time.Time // a list is due
	held   time.Time // until then GitHub is not asked
	until  time.Time // as held, because of a rate limit; by GitHub's clock
	busy   time.Time // when a delivery was last listed that matters
	synced time.Time // when the last full sync began

	owes    bool     // a full sync
	covered bool     // one of everything began at the start, for what was too old or too many then
	demand  []demand // of the last hour
	status  router.Polling
}

// An owed delivery is listed, and to be read.
type owed struct {
	router.SentDelivery
	tries int
	due   time.Time
}

// A demand is what one list asked of GitHub.
type demand struct {
	at                     time.Time
	requests, reads, queue int
}

// round lists deliveries if that is due, reads some, and returns for how long to wait.
func (r *reading) round(ctx context.Context) (wait time.Duration) {
	now := time.Now()
	if now.Before(r.held) {
		return r.held.Sub(now)
	}
	r.until = time.Time{}
	switch {
	case now.Before(r.next):
	case len(r.pending) >= pollPending:
		r.next = now.Add(r.Every)
	default:
		err := r.list(ctx)
		if ctx.Err() != nil {
			return 0
		}
		r.failed(err)
		r.next = now.Add(r.interval(ctx))
	}
	r.read(ctx)
	if ctx.Err() != nil {
		return 0
	}
	r.sync(ctx)
	if err := r.settle(ctx); err != nil {
		r.Log.Throttled(slog.LevelWarn, "", "cannot record how far deliveries were read", "webhook", r.Hook.String(), "err", err)
	}
	r.show()
	at := r.next
	for _, d := range r.pending {
		if d.due.Before(at) {
			at = d.due
		}
	}
	if r.held.After(at) {
		at = r.held
	}
	return max(time.Until(at), time.Millisecond)
}

// know reads from the database how far the deliveries were read.
func (r *reading) know(ctx context.Context) error {
	if r.known {
		return nil
	}
	if err := r.Sweeper.RecordHook(ctx, r.Hook); err != nil {
		return err
	}
	hooks, err := r.Store.Hooks(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(hooks, func(h router.HookSweep) bool { return h.Key() == r.Hook.Key() })
	if i < 0 {
		return fmt.Errorf("%s could not be recorded: there are too many webhooks of its owner, or deliveries named it for another one", r.Hook)
	}
	r.sweep, r.known = hooks[i], true
	r.sweep.Cursor, r.sweep.Newest, r.sweep.Proved = "", time.Time{}, true
	r.base, r.listed = r.sweep.Swept, r.sweep.Swept
	return nil
}

// list lists deliveries from the newest back to those that were listed before, and notes which
// are to be read.
func (r *reading) list(ctx context.Context) error {
	if err := r.know(ctx); err != nil {
		return err
	}
	began := time.Now()
	fully := r.fully.IsZero() || began.Sub(r.fully) >= pollFully
	further := fully || began.Sub(r.far) >= pollFurther
	back := r.newest.Add(-pollOverlap)
	if further {
		back = r.newest.Add(-sweepOverlap)
	}
	if fully || back.Before(r.listed) {
		back = r.listed
	}
	// The second, as this process's clock may be wrong.
	away := r.sweep.Swept.Before(r.Now().Add(-Listed)) && (r.fully.IsZero() || began.Sub(r.fully) >= 2*pollFully)
	var used demand
	defer func() {
		used.at = began
		r.demand = append(r.demand, used)
		r.demand = slices.DeleteFunc(r.demand, func(d demand) bool { return began.Sub(d.at) > time.Hour })
	}()
	newest, cursor, end := r.newest, "", false
	for n := 0; !end; n++ {
		if n == pollPages {
			away = true
			break
		}
		page, next, err := r.page(ctx, cursor)
		if !errors.As(err, new(*router.RetryAtError)) { // GitHub was asked
			used.requests++
		}
		if err != nil {
			return err // newest stays, so the next list goes as far back
		}
		if n == 0 && away && len(page) > 0 { // the full sync has what is older
			back = page[0].At.Add(-firstSweep)
		}
		var matter []router.SentDelivery
		for _, d := range page {
			if d.At.After(newest) {
				newest = d.At
			}
			if end = d.At.Before(back); end {
				break
			}
			at, seen := r.seen[d.GUID]
			if d.At.After(at) && seen {
				r.seen[d.GUID] = d.At
			}
			if !seen && d.Event == "workflow_job" && slices.Contains(knownActions, d.Action) {
				matter = append(matter, d)
			}
		}
		reads, queue, err := r.note(ctx, matter)
		if err != nil {
			return err
		}
		used.reads, used.queue = used.reads+reads, used.queue+queue
		cursor, end = next, end || next == ""
	}
	if r.newest = newest; further {
		r.far = began
	}
	r.owes = r.owes || away && !r.covered
	if !fully {
		return nil
	}
	r.fully, r.covered = began, false
	// Without deliveries, time passes all the same: GitHub's clock has run as long as this
	// process's since base was GitHub's time, or earlier.
	for _, at := range []time.Time{newest.Add(-pollLate), r.base.Add(began.Sub(r.began) - pollLate)} {
		if at.After(r.listed) {
			r.listed = at
		}
	}
	for guid, at := range r.seen {
		if at.Before(r.listed) {
			delete(r.seen, guid)
		}
	}
	return nil
}

// page requests one page of deliveries.
func (r *reading) page(ctx context.Context, cursor string) (page []router.SentDelivery, next string, err error) {
	ctx, cancel := context.WithTimeout(router.ForJobs(ctx), router.LoginTimeout)
	defer cancel()
	return r.GitHub.Deliveries(ctx, r.Hook, cursor)
}

// note makes deliveries pending that were not received, and returns how many, and how many of
// these queue a job. The first of several attempts is the newest.
func (r *reading) note(ctx context.Context, list []router.SentDelivery) (reads, queue int, err error) {
	if len(list) == 0 {
		return 0, 0, nil
	}
	guids := make([]string, len(list))
	for i, d := range list {
		guids[i] = d.GUID
	}
	missing, err := r.Store.Unrecorded(ctx, guids)
	if err != nil {
		return 0, 0, err
	}
	now := time.Now()
	r.busy = now
	for _, d := range list {
		if _, seen := r.seen[d.GUID]; seen {
			continue
		}
		r.seen[d.GUID] = d.At
		if !slices.Contains(missing, d.GUID) {
			continue
		}
		r.pending[d.GUID] = &owed{SentDelivery: d, due: now}
		reads++
		if d.Action == "queued" {
			queue++
		}
	}
	return reads, queue, nil
}

// sync has the repositories of the webhook synced if that is owed, at most once an hour.
func (r *reading) sync(ctx context.Context) {
	if !r.owes || !r.synced.IsZero() && time.Since(r.synced) < pollFullLook {
		return
	}
	r.owes, r.synced = false, time.Now()
	r.Log.Warn("deliveries are too old, or too many, to be read: the repositories are synced", "webhook", r.Hook.String(), "read_until", r.sweep.Swept)
	r.full.Go(func() error {
		r.Full(ctx, r.Hook)
		return nil
	})
}

// read reads deliveries that are due. Those that say that a job runs or has ended come before
// the others, so that what is queued is not started for nothing.
func (r *reading) read(ctx context.Context) {
	now := time.Now()
	var due []*owed
	for _, d := range r.pending {
		if !d.due.After(now) {
			due = append(due, d)
		}
	}
	rank := func(d *owed) int {
		return slices.Index([]string{"completed", "in_progress", "waiting", "queued"}, d.Action)
	}
	slices.SortFunc(due, func(a, b *owed) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.At.Compare(b.At), cmp.Compare(a.ID, b.ID))
	})
	due = due[:min(len(due), pollBatch)]
	errs := make([]error, len(due))
	done := make([]bool, len(due))
	var stop atomic.Bool // GitHub takes no more requests
	var g errgroup.Group
	g.SetLimit(pollReaders)
	for i, d := range due {
		g.Go(func() error {
			if done[i] = !stop.Load(); !done[i] {
				return nil
			}
			if errs[i] = r.take(ctx, d); errors.As(errs[i], new(*router.RetryAtError)) || errors.As(errs[i], new(*router.FixError)) {
				stop.Store(true)
			}
			return nil
		})
	}
	_ = g.Wait() // errs has them
	if ctx.Err() != nil {
		return
	}
	for i, d := range due {
		switch err := errs[i]; {
		case !done[i]:
		case err == nil:
			delete(r.pending, d.GUID)
		case errors.As(err, new(*router.RetryAtError)), errors.As(err, new(*router.FixError)):
			r.hold(err)
		default:
			r.again(d, err)
		}
	}
}

// errNotStored: a delivery was read, and the database failed.
var errNotStored = errors.New("the delivery was not stored")

// take reads one delivery, and gives it to the Intake.
func (r *reading) take(ctx context.Context, d *owed) error {
	within, cancel := context.WithTimeout(router.ForJobs(ctx), router.LoginTimeout)
	defer cancel()
	began := r.Now()
	body, err := r.GitHub.Delivery(within, r.Hook, d.ID)
	if err != nil {
		return err
	}
	log := []any{"delivery_id", d.GUID, "webhook", r.Hook.String(), "action", d.Action}
	got, err := r.Decode(body)
	if err != nil {
		r.Metrics.Delivered(router.DeliveryMalformed)
		r.Log.Throttled(slog.LevelWarn, "", "delivery refused", append(log, "reason", err.Error())...)
		return nil
	}
	in := router.Instance{Number: router.InstanceOf(r.Hook.ID), Host: router.HostOf(r.GitHub, r.Hook.ID)}
	got.ID, got.ReceivedAt, got.Hook = d.GUID, r.Now(), r.Hook
	got.Job.ID, got.Job.RunID, got.Job.Repo.Host = in.ID(got.Job.ID), in.ID(got.Job.RunID), in.Host
	// Not cut off at a stop, as if the database failed.
	storing, cancel := context.WithTimeout(context.WithoutCancel(ctx), router.StoreTimeout)
	defer cancel()
	if _, err := r.Intake.Receive(storing, got); err != nil {
		return fmt.Errorf("%w: %w", errNotStored, err)
	}
	r.Log.Info("delivery stored", append(log, "job_id", got.Job.ID, "host", in.Host, "repo", got.Job.Repo.FullName, "status", got.Status, "took", r.Now().Sub(began))...)
	return nil
}

// again makes a delivery due again that could not be read, or gives it up after some tries:
// then a sync finds what it would have said.
func (r *reading) again(d *owed, err error) {
	if errors.Is(err, errNotStored) {
		d.due = time.Now().Add(pollAgain)
		return
	}
	d.tries++
	if d.tries < pollTries {
		d.due = time.Now().Add(min(pollAgain<<(d.tries-1), pollLongest))
		return
	}
	r.Log.Throttled(slog.LevelWarn, "", "a delivery cannot be read", "webhook", r.Hook.String(), "delivery_id", d.GUID, "err", err)
	delete(r.pending, d.GUID)
	r.owes = true
}

// failed notes whether GitHub listed the deliveries.
func (r *reading) failed(err error) {
	if err == nil {
		r.status.Listed, r.status.Failing, r.status.FailingSince = r.Now(), "", time.Time{}
		return
	}
	r.hold(err)
	if errors.As(err, new(*router.RetryAtError)) && !r.until.IsZero() {
		return // a limit is reached: that is said otherwise
	}
	if r.status.Failing == "" {
		r.status.FailingSince = r.Now()
	}
	if said := err.Error(); said != r.status.Failing {
		r.status.Failing = said
		r.Log.Throttled(slog.LevelWarn, r.Hook.String(), "cannot list the deliveries of a webhook", "webhook", r.Hook.String(), "err", err)
	}
}

// hold keeps requests back for as long as an error says.
func (r *reading) hold(err error) {
	wait := time.Duration(0)
	var later *router.RetryAtError
	switch {
	case errors.As(err, &later):
		wait = min(max(later.At.Sub(r.Now()), time.Second), pollPause)
		if limit, kept := r.GitHub.DeliveryLimit(r.Hook); limit.Limit > 0 && limit.Remaining <= limit.Limit*kept/100 {
			r.until = limit.Reset
		}
	case lasting(err):
		wait = pollRefused
	}
	if at := time.Now().Add(wait); at.After(r.held) {
		r.held = at
	}
}

// interval returns the time until the next list: short while jobs wait or come, longer while
// nothing happens, or when GitHub takes few requests until its limit starts over.
func (r *reading) interval(ctx context.Context) time.Duration {
	wait := r.Every
	counts, err := r.Store.Counts(ctx)
	if err == nil && counts[router.Queued]+counts[router.Retrying]+counts[router.Dispatched] == 0 {
		wait = min(max(time.Since(r.busy)/pollQuiet, r.Every), pollSlowest*r.Every)
	}
	if limit, kept := r.GitHub.DeliveryLimit(r.Hook); limit.Limit > 0 {
		left := min(max(limit.Reset.Sub(r.Now()), 0), time.Hour)
		if usable := limit.Remaining - limit.Limit*kept/100; usable <= 0 {
			wait = max(wait, min(left, pollPause))
		} else { // half of them for lists
			wait = max(wait, min(2*left/time.Duration(usable), pollPause))
		}
	}
	r.status.Interval = wait
	return wait
}

// settle records how far the deliveries were read.
func (r *reading) settle(ctx context.Context) error {
	swept := r.listed
	for _, d := range r.pending {
		if d.At.Before(swept) {
			swept = d.At
		}
	}
	if !r.known || r.fully.IsZero() || swept.Sub(r.sweep.Swept) < pollSettle {
		return nil
	}
	to := r.sweep
	to.Swept = swept
	if err := r.Store.Swept(ctx, to, nil, r.Now()); err != nil {
		return err
	}
	r.sweep = to
	return nil
}

// show makes the state of the reading that of Status.
func (r *reading) show() {
	s := &r.status
	s.Hook, s.Pending, s.Until = r.Hook.String(), len(r.pending), r.until
	sum, since := demand{}, time.Since(r.began)
	for _, d := range r.demand {
		sum.requests, sum.reads, sum.queue = sum.requests+d.requests, sum.reads+d.reads, sum.queue+d.queue
	}
	hourly := func(n int) int { return int(time.Duration(n) * time.Hour / min(max(since, pollShortFor), time.Hour)) }
	lists := hourly(sum.requests)
	s.Needed, s.Jobs, s.Allowed, s.MostJobs = lists+hourly(sum.reads), hourly(sum.queue), 0, 0
	if limit, kept := r.GitHub.DeliveryLimit(r.Hook); limit.Limit > 0 {
		s.Allowed = limit.Limit - limit.Limit*kept/100
		each := 3.0 // queued, in_progress, completed
		if sum.queue > 0 {
			each = max(float64(sum.reads)/float64(sum.queue), 1)
		}
		s.MostJobs = int(float64(max(s.Allowed-lists, 0)) / each)
	}
	switch {
	case (s.Allowed == 0 || s.Needed <= s.Allowed) && s.Until.IsZero():
		s.ShortSince = time.Time{}
	case s.ShortSince.IsZero():
		s.ShortSince = r.Now()
		r.Log.Warn("github takes too few requests: " + s.Short())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shown == nil {
		r.shown = map[router.HookKey]router.Polling{}
	}
	r.shown[r.Hook.Key()] = *s
}
