// Package overflow owns the Actions variables by which new jobs run elsewhere while a rule cannot
// serve its own: when each is set, and when it is set back. Server runs one Overflow while it leads.
package overflow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	every       = 15 * time.Second // looks at how long jobs wait
	lookEvery   = 5 * time.Minute  // at a variable that is set, which somebody may have changed
	awayFor     = time.Minute      // in which no node could serve a job, or Nomad takes no runners
	calmFor     = 5 * time.Minute  // with room, until a variable is set back
	mostCalm    = 2 * time.Hour    // as that grows while it is set again and again
	againWithin = time.Hour        // of being set back: then there was no room
	calmShare   = 2                // there is room while no job has waited for half of what is too long
	foundFor    = 10 * time.Minute // it is remembered which variable a repository's workflows read
	mostFound   = 10_000           // repositories of which it is
	mostFinds   = 20               // of them looked up in a pass
	lateCall    = 30 * time.Second // after which GitHub has carried out a call of a process that ended, or never will
	firstRetry  = 30 * time.Second // after a failed call,
	lastRetry   = 5 * time.Minute  // and after several
	callTimeout = 15 * time.Second // of one variable's call
	stopTimeout = 10 * time.Second // for all calls of a stop
	maxValue    = 100              // characters of a variable's value that are shown
)

// A Store is what an Overflow uses of the database.
type Store interface {
	// Overflows returns the variables that are set, or about to be, and those that were lately:
	// the oldest first.
	Overflows(ctx context.Context) ([]router.Overflow, error)

	// RecordOverflow records how far Switchyard is with a variable, in place of what was recorded
	// of that; State "" removes it. a is recorded with it, unless it did nothing.
	RecordOverflow(ctx context.Context, o router.Overflow, a router.Audit) error

	// Waits returns how long jobs wait for runners, by rule and repository. Jobs that GitHub keeps
	// back do not wait.
	Waits(ctx context.Context) ([]router.RuleWait, error)
}

// An Overflow sets variables, and sets them back. Its exported fields are set before it is used,
// and required.
type Overflow struct {
	Store   Store
	GitHub  router.Variables
	Decider *decide.Decider
	Log     *telemetry.Log
	Metrics *telemetry.Metrics
	Now     func() time.Time

	// Last reports whether nobody else looks after the variables once this process has stopped.
	Last func(ctx context.Context) bool

	term // used by Run only

	mu     sync.Mutex
	status []router.OverflowStatus // nil: this process does not lead
}

// A term is what is remembered from one pass to the next, while the process leads. Whatever is
// forgotten costs time.
type term struct {
	calm   map[router.Variable]time.Time // since when there has been room
	looked map[router.Variable]time.Time // when a variable was read last
	fails  map[router.Variable]failure   // of calls about variables that are recorded
	found  map[reader]found
	lost   map[reader]failure // of calls that were to find one; without a repository
}

// A reader is the workflows that read a variable.
type reader struct {
	host, owner, repo, name, scope string // of lower case
}

// found is which variable that is.
type found struct {
	v         router.Variable // zero: there is none
	theirs    string          // why it is not for Switchyard to change; "": it is
	fix       string          // what to do about that, or about there being none
	since, at time.Time       // when that was found out first, and last
}

// A failure is why a call was not made, or not answered as it should have been.
type failure struct {
	err   error
	since time.Time
	again time.Time // not before then
	tries int
}

// A need is that the jobs of a rule in a repository wait.
type need struct {
	rules.Overflow
	repo  router.Repo
	since time.Time
	due   string // why the variable is to be set; "": it is not
	hot   bool   // it is not set back yet
}

// Run sets variables, and sets them back, until ctx ends. If stops has ended then, and nobody else
// goes on, it sets back all that are set.
func (o *Overflow) Run(ctx, stops context.Context) error {
	o.term = term{
		calm: map[router.Variable]time.Time{}, looked: map[router.Variable]time.Time{}, fails: map[router.Variable]failure{},
		found: map[reader]found{}, lost: map[reader]failure{},
	}
	defer o.show(nil)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := o.pass(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, router.ErrNotLeader) {
			o.Log.Throttled(slog.LevelWarn, "", "cannot look after the variables by which jobs overflow; they are looked after again soon", "err", err, "fix", router.StoreFix(err))
		}
		select {
		case <-ctx.Done():
			if stops.Err() != nil {
				o.stop(context.WithoutCancel(ctx))
			}
			return nil
		case <-tick.C:
		}
	}
}

// Status returns the overflows there are, and what keeps others from beginning.
func (o *Overflow) Status() []router.OverflowStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.status)
}

func (o *Overflow) show(status []router.OverflowStatus) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.status = status
}

// pass does what is due.
func (o *Overflow) pass(ctx context.Context) error {
	rows, err := o.Store.Overflows(ctx)
	if err != nil {
		return err
	}
	named := o.Decider.Rules().Overflows()
	needs, err := o.needs(ctx, named)
	if err != nil {
		return err
	}
	shown := make([]router.OverflowStatus, 0, len(rows))
	for _, row := range rows {
		if row, err = o.follow(ctx, row, named, needs); err != nil {
			return err
		}
		if row.State != "" {
			shown = append(shown, o.statusOf(row))
		}
	}
	recorded, finds := shown, mostFinds
	lacking := map[string]router.OverflowStatus{} // by variable
	for _, n := range needs {
		if n.due == "" || finds == 0 || slices.ContainsFunc(recorded, func(s router.OverflowStatus) bool {
			return n.reads(s.Variable) && s.Repo != "" && s.State != router.OverflowOver
		}) {
			continue
		}
		s, asked, err := o.begin(ctx, n, shown)
		if err != nil {
			return err
		}
		if asked {
			finds--
		}
		switch i := indexOf(shown, s.Variable); {
		case s.Name == "":
		case s.Failing == missing:
			if name := strings.ToUpper(s.Name); lacking[name].Name == "" {
				lacking[name] = s
			}
		case i >= 0:
			shown[i] = s
		default:
			shown = append(shown, s)
		}
	}
	// Not all whose jobs wait have workflows that read it.
	for name, s := range lacking {
		if !slices.ContainsFunc(shown, func(s router.OverflowStatus) bool { return strings.EqualFold(s.Name, name) }) {
			shown = append(shown, s)
		}
	}
	o.forget(shown)
	o.show(shown)
	return nil
}

// missing is the failure of a variable that does not exist.
const missing = "there is no such variable"

func indexOf(shown []router.OverflowStatus, v router.Variable) int {
	return slices.IndexFunc(shown, func(s router.OverflowStatus) bool { return s.Same(v) })
}

// taken reports whether a variable is set, or is as somebody else has set it.
func taken(shown []router.OverflowStatus, v router.Variable) bool {
	i := indexOf(shown, v)
	return i >= 0 && shown[i].State != router.OverflowOver && shown[i].State != ""
}

// forget forgets what is remembered of variables that are no longer of interest.
func (o *Overflow) forget(shown []router.OverflowStatus) {
	gone := func(v router.Variable) bool {
		return !slices.ContainsFunc(shown, func(s router.OverflowStatus) bool { return s.Variable == v })
	}
	maps.DeleteFunc(o.calm, func(v router.Variable, _ time.Time) bool { return gone(v) })
	maps.DeleteFunc(o.looked, func(v router.Variable, _ time.Time) bool { return gone(v) })
	maps.DeleteFunc(o.fails, func(v router.Variable, _ failure) bool { return gone(v) })
	if len(o.found) > mostFound {
		clear(o.found)
	}
	if len(o.lost) > mostFound {
		clear(o.lost)
	}
}

// needs returns for which repositories a variable is to be set, or to stay so: those whose jobs
// have waited longest come first.
func (o *Overflow) needs(ctx context.Context, named []rules.Overflow) (needs []need, err error) {
	if len(named) == 0 {
		return nil, nil
	}
	waits, err := o.Store.Waits(ctx)
	if err != nil {
		return nil, err
	}
	served := map[string]int{}
	for _, w := range waits {
		served[w.Rule] += w.Served
	}
	now := o.Now()
	for _, of := range named {
		o.Metrics.Overflows(of.Rule)
		for _, w := range waits {
			if w.Rule != of.Rule {
				continue
			}
			n := need{Overflow: of, repo: w.Repo}
			// The variable is set once it has been so for a while, and not set back as soon as it is so.
			waits := func(since time.Time, most, enough time.Duration, says string) {
				waited := now.Sub(since)
				if since.IsZero() || waited < enough {
					return
				}
				n.hot = true
				if waited >= most && n.due == "" {
					n.due, n.since = fmt.Sprintf(says, router.Coarse(waited)), since
				}
			}
			waits(w.Nomad, awayFor, 0, "Nomad has taken no runner for %s")
			if served[w.Rule] == 0 { // else it is that job alone which no node fits
				waits(w.NoNode, awayFor, 0, "no node could serve a job for %s")
			}
			waits(w.Oldest, of.After, of.After/calmShare, "a job has waited for %s")
			if n.hot {
				needs = append(needs, n)
			}
		}
	}
	slices.SortStableFunc(needs, func(a, b need) int { return a.since.Compare(b.since) })
	return needs, nil
}

// reads reports whether workflows of the need's repository may read a variable.
func (n need) reads(v router.Variable) bool {
	return strings.EqualFold(n.Variable, v.Name) && ofScope(n.Scope, v) && n.repo.Host == v.Host &&
		strings.EqualFold(n.repo.Owner, v.Owner) && (v.Repo == "" || strings.EqualFold(n.repo.Name, v.Repo))
}

// ofScope reports whether a variable is of the scope that a rule names.
func ofScope(scope string, v router.Variable) bool {
	return scope == "" || (scope == "organization") == (v.Repo == "")
}

// names returns the index of the first overflow of the rules that names a variable; -1: none does.
func names(named []rules.Overflow, v router.Variable) int {
	return slices.IndexFunc(named, func(of rules.Overflow) bool { return strings.EqualFold(of.Variable, v.Name) && ofScope(of.Scope, v) })
}

// follow does what is due about a variable that is recorded, and returns what it has become.
func (o *Overflow) follow(ctx context.Context, row router.Overflow, named []rules.Overflow, needs []need) (router.Overflow, error) {
	now := o.Now()
	i := names(named, row.Variable)
	hot := slices.ContainsFunc(needs, func(n need) bool { return n.hot && n.reads(row.Variable) })
	switch {
	case i >= 0 && hot:
		delete(o.calm, row.Variable)
	case o.calm[row.Variable].IsZero():
		o.calm[row.Variable] = now
	}
	calm := i < 0 || !hot && now.Sub(o.calm[row.Variable]) >= row.Calm
	switch row.State {
	case router.OverflowOver:
		if i < 0 || now.Sub(row.At) >= againWithin {
			return o.end(ctx, row)
		}
		return row, nil
	case router.OverflowLeft:
		if calm {
			return o.end(ctx, row)
		}
		return row, nil
	case router.OverflowSet:
		if !calm && now.Sub(o.looked[row.Variable]) < lookEvery {
			return row, nil
		}
	}
	if now.Before(o.fails[row.Variable].again) {
		return row, nil
	}
	due := slices.IndexFunc(needs, func(n need) bool { return n.due != "" && n.reads(row.Variable) })
	switch {
	case row.State == router.OverflowUndoing && i >= 0 && due >= 0: // it may be set still
		row.State, row.At, row.Why = router.OverflowSetting, now, needs[due].due
		if err := o.Store.RecordOverflow(ctx, row, router.Audit{}); err != nil {
			return row, err
		}
	case row.State == router.OverflowUndoing:
		return o.undo(ctx, row, back(row, named, i), row.Why, true)
	case row.State == router.OverflowSetting && (i < 0 || !hot) && now.Sub(row.At) < lateCall:
		return row, nil
	case i < 0:
		return o.undo(ctx, row, row.Back, "no rule in force sets it", false)
	case calm || row.State == router.OverflowSetting && !hot:
		return o.undo(ctx, row, back(row, named, i), "there is room again", true)
	}
	return o.set(ctx, row)
}

// back returns the value to which a variable is set back: that of the rules in force.
func back(row router.Overflow, named []rules.Overflow, i int) string {
	if i < 0 {
		return row.Back
	}
	return named[i].Back
}

// begin sets the variable that the workflows of a repository read, unless that is done, or is not
// for Switchyard to do. shown is what there is; it returns what is new, and whether it asked GitHub.
func (o *Overflow) begin(ctx context.Context, n need, shown []router.OverflowStatus) (s router.OverflowStatus, asked bool, err error) {
	now := o.Now()
	s.Overflow = router.Overflow{
		Variable: router.Variable{Host: n.repo.Host, Owner: n.repo.Owner, Repo: n.repo.Name, Name: n.Variable},
		Rule:     n.Rule, To: n.To, Back: n.Back, Why: n.due, Since: now, At: now,
	}
	if n.Scope == "organization" {
		s.Repo = ""
	}
	key := n.reader()
	all := key
	all.repo = ""
	at, known := o.found[key]
	switch {
	case now.Before(o.lost[all].again):
		return with(s, o.lost[all]), false, nil
	case !known, at.v.Name == "" && now.Sub(at.at) >= lookEvery, at.theirs != "" && now.Sub(at.at) >= lookEvery, now.Sub(at.at) >= foundFor:
	case at.v.Name == "" || at.theirs != "":
		return at.says(s), false, nil
	case taken(shown, at.v):
		return router.OverflowStatus{}, false, nil
	}
	v, value, err := o.find(ctx, n, shown)
	is := found{v: v, since: now, at: now}
	switch {
	case errors.Is(err, router.ErrNotFound):
		is.v, is.fix = router.Variable{}, create(n)
	case err != nil:
		o.lost[all] = o.lost[all].next(err, now)
		o.Log.Throttled(slog.LevelWarn, s.Variable.String(), "cannot read a variable by which jobs overflow", "variable", s.Name, "of", s.Whose(), "rule", s.Rule, "err", err)
		return with(s, o.lost[all]), true, ctx.Err()
	case !taken(shown, v):
		is.theirs, is.fix = theirs(n, value)
	}
	delete(o.lost, all)
	if known && at.v == is.v && at.theirs == is.theirs {
		is.since = at.since
	}
	o.found[key] = is
	if is.v.Name == "" || is.theirs != "" {
		s = is.says(s)
		o.Log.Throttled(slog.LevelWarn, s.Variable.String(), "jobs cannot overflow", "variable", s.Name, "of", s.Whose(), "rule", s.Rule, "err", is.theirs, "fix", is.fix)
		return s, true, nil
	}
	if taken(shown, v) {
		return router.OverflowStatus{}, true, nil
	}
	s.Variable, s.State, s.Calm = v, router.OverflowSetting, calmFor
	if i := indexOf(shown, v); i >= 0 && shown[i].State == router.OverflowOver {
		s.Variable, s.Calm = shown[i].Variable, min(2*shown[i].Calm, mostCalm)
	}
	if err := o.Store.RecordOverflow(ctx, s.Overflow, router.Audit{}); err != nil {
		return s, true, err
	}
	row, err := o.put(ctx, s.Overflow)
	return o.statusOf(row), true, err
}

// says adds what was found out of a variable that cannot be set.
func (f found) says(s router.OverflowStatus) router.OverflowStatus {
	s.Fix = f.fix
	if f.v.Name == "" {
		s.Failing, s.FailingSince = missing, f.since
		return s
	}
	s.Variable, s.State, s.Why, s.Since, s.At = f.v, router.OverflowLeft, f.theirs, f.since, f.since
	return s
}

// find returns which variable the workflows of a repository read, and its value; it is not read if it
// is one of shown. The error is ErrNotFound if there is none.
func (o *Overflow) find(ctx context.Context, n need, shown []router.OverflowStatus) (v router.Variable, value string, err error) {
	var first error
	for _, repo := range []string{n.repo.Name, ""} {
		v = router.Variable{Host: n.repo.Host, Owner: n.repo.Owner, Repo: repo, Name: n.Variable}
		if !ofScope(n.Scope, v) {
			continue
		}
		if taken(shown, v) {
			return v, "", nil
		}
		if value, err = o.read(ctx, v); err == nil {
			return v, value, nil
		}
		if first == nil || errors.Is(first, router.ErrNotFound) {
			first = err
		}
		// A login that may not read the repository's may read the organization's.
		if !errors.Is(err, router.ErrNotFound) && !errors.As(err, new(*router.FixError)) {
			break
		}
	}
	return v, "", first
}

func (n need) reader() reader {
	low := strings.ToLower
	return reader{low(n.repo.Host), low(n.repo.Owner), low(n.repo.Name), low(n.Variable), n.Scope}
}

// read reads a variable.
func (o *Overflow) read(ctx context.Context, v router.Variable) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return o.GitHub.Variable(ctx, v)
}

// set reads a variable that is being set, or is, and sets it unless it is. One that somebody has
// changed meanwhile is theirs.
func (o *Overflow) set(ctx context.Context, row router.Overflow) (router.Overflow, error) {
	value, err := o.read(ctx, row.Variable)
	switch {
	case errors.Is(err, router.ErrNotFound):
		return o.vanished(ctx, row)
	case err != nil:
		o.failed(row, err)
		return row, ctx.Err()
	}
	delete(o.fails, row.Variable)
	o.looked[row.Variable] = o.Now()
	switch {
	case same(value, row.To) && row.State == router.OverflowSet:
		return row, nil
	case same(value, row.To):
		return o.isSet(ctx, row)
	case same(value, row.Back) && row.State == router.OverflowSetting:
		row.At = o.Now()
		if err := o.Store.RecordOverflow(ctx, row, router.Audit{}); err != nil {
			return row, err
		}
		return o.put(ctx, row)
	}
	row.State, row.At = router.OverflowLeft, o.Now()
	row.Why = "somebody has set it to " + plain(value) + ", so it is left alone until jobs of the rule no longer wait"
	o.Log.Warn("somebody has changed a variable by which jobs overflow; it is left alone until they no longer wait", o.attrs(row)...)
	o.Metrics.Overflowed(row.Rule, "left")
	return row, o.record(ctx, row, row.Why)
}

// put sets a variable whose intention is recorded. The end of ctx does not cut the call off, as GitHub
// may carry it out late then.
func (o *Overflow) put(ctx context.Context, row router.Overflow) (router.Overflow, error) {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	switch err := o.GitHub.SetVariable(call, row.Variable, row.To); {
	case errors.Is(err, router.ErrNotFound):
		return o.vanished(ctx, row)
	case err != nil:
		o.failed(row, err)
		return row, ctx.Err()
	}
	return o.isSet(ctx, row)
}

// isSet records that a variable is set.
func (o *Overflow) isSet(ctx context.Context, row router.Overflow) (router.Overflow, error) {
	row.State, row.At = router.OverflowSet, o.Now()
	o.looked[row.Variable] = row.At
	delete(o.fails, row.Variable)
	delete(o.calm, row.Variable)
	o.Log.Info("set a variable, so that new jobs run elsewhere", o.attrs(row)...)
	o.Metrics.Overflowed(row.Rule, "set")
	return row, o.record(ctx, row, "set to "+plain(row.To)+": "+row.Why)
}

// undo sets a variable back, if it is still as Switchyard has set it. With keep it is remembered
// for a while that it was.
func (o *Overflow) undo(ctx context.Context, row router.Overflow, back, why string, keep bool) (router.Overflow, error) {
	if row.State != router.OverflowUndoing {
		row.State, row.At, row.Why = router.OverflowUndoing, o.Now(), why
		if err := o.Store.RecordOverflow(ctx, row, router.Audit{}); err != nil {
			return row, err
		}
	}
	value, err := o.read(ctx, row.Variable)
	said := "set back to " + plain(back) + ": " + why
	switch {
	case errors.Is(err, router.ErrNotFound):
		return o.vanished(ctx, row)
	case err == nil && same(value, row.To):
		call, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		err = o.GitHub.SetVariable(call, row.Variable, back)
	case err == nil && !same(value, back) && !same(value, row.Back):
		said = "left as somebody has set it, to " + plain(value) + ": " + why
	}
	switch {
	case errors.Is(err, router.ErrNotFound):
		return o.vanished(ctx, row)
	case err != nil:
		o.failed(row, err)
		return row, ctx.Err()
	}
	delete(o.fails, row.Variable)
	o.Log.Info("set a variable back, so that new jobs come again", append(o.attrs(row), "result", said)...)
	o.Metrics.Overflowed(row.Rule, "back")
	row.State, row.At = router.OverflowOver, o.Now()
	if !keep {
		row.State = ""
	}
	return row, o.record(ctx, row, said)
}

// vanished forgets a variable that is no longer there.
func (o *Overflow) vanished(ctx context.Context, row router.Overflow) (router.Overflow, error) {
	o.Log.Warn("a variable by which jobs overflow is gone", o.attrs(row)...)
	for key, f := range o.found {
		if f.v.Same(row.Variable) {
			delete(o.found, key)
		}
	}
	row.State = ""
	return row, o.record(ctx, row, "gone: somebody has removed it")
}

// end forgets an overflow that is over.
func (o *Overflow) end(ctx context.Context, row router.Overflow) (router.Overflow, error) {
	row.State = ""
	return row, o.Store.RecordOverflow(ctx, row, router.Audit{})
}

// record records what has become of a variable, in the audit trail as well.
func (o *Overflow) record(ctx context.Context, row router.Overflow, said string) error {
	return o.Store.RecordOverflow(ctx, row, router.Audit{
		At: o.Now(), Who: "Switchyard", Did: "overflow", What: row.String(), Result: "rule " + row.Rule + ": " + said,
	})
}

// stop sets back what is set, as far as there is time, unless another process looks after it.
func (o *Overflow) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	rows, err := o.Store.Overflows(ctx)
	rows = slices.DeleteFunc(rows, func(row router.Overflow) bool { return !row.State.On() })
	if err != nil || len(rows) == 0 || !o.Last(ctx) {
		return
	}
	named := o.Decider.Rules().Overflows()
	for _, row := range rows {
		was, err := o.undo(ctx, row, back(row, named, names(named, row.Variable)), "Switchyard stops", false)
		if err = cmp.Or(err, o.fails[row.Variable].err); was.State != "" {
			o.Log.Error("a variable is not set back; the next start does it, or do it by hand", append(o.attrs(row), "back", row.Back, "err", err)...)
		}
	}
}

// failed remembers why a call failed, and when the next may be made.
func (o *Overflow) failed(row router.Overflow, err error) {
	f := o.fails[row.Variable].next(err, o.Now())
	o.fails[row.Variable] = f
	o.Log.Throttled(slog.LevelWarn, row.Variable.String(), "cannot set a variable by which jobs overflow", append(o.attrs(row), "err", err, "again_at", f.again)...)
}

// next returns the failure after one more.
func (f failure) next(err error, now time.Time) failure {
	if f.tries == 0 {
		f.since = now
	}
	f.err, f.again = err, now.Add(min(firstRetry<<min(f.tries, 10), lastRetry))
	f.tries++
	if later, ok := errors.AsType[*router.RetryAtError](err); ok && later.At.After(f.again) {
		f.again = later.At
	}
	return f
}

// statusOf adds what is known of a failure.
func (o *Overflow) statusOf(row router.Overflow) router.OverflowStatus {
	return with(router.OverflowStatus{Overflow: row}, o.fails[row.Variable])
}

func with(s router.OverflowStatus, f failure) router.OverflowStatus {
	if f.err == nil {
		return s
	}
	s.Failing, s.Fix, s.FailingSince = f.err.Error(), "see what GitHub says; it is asked again by itself", f.since
	if fix, ok := errors.AsType[*router.FixError](f.err); ok {
		s.Failing, s.Fix = fix.Err.Error(), fix.Fix
	}
	return s
}

func (o *Overflow) attrs(row router.Overflow) []any {
	return []any{"variable", row.Name, "of", row.Whose(), "rule", row.Rule, "why", row.Why}
}

// theirs says why a variable with a value is not for Switchyard to change, and what to do about that;
// "": it is.
func theirs(n need, value string) (why, fix string) {
	switch {
	case same(value, n.Back):
		return "", ""
	case same(value, n.To):
		return "somebody has set it to " + plain(value) + " already, so it is not set back either", "if nobody meant that, set it to " + n.Back
	}
	return "it is " + plain(value) + ", and not what the rule says it is while its jobs are served (" + plain(n.Back) + "), so it is left alone", "set it to " + n.Back + ", or correct back in the rule"
}

// create says how to make the variable that is missing.
func create(n need) string {
	where := "--repo " + n.repo.FullName
	if n.Scope != "repository" {
		where = "--org " + n.repo.Owner + " --visibility all"
	}
	return fmt.Sprintf("create it, as with gh variable set %s %s --body '%s'; if it is there, let Switchyard's login see it (Variables: read and write)", n.Variable, where, n.Back)
}

// same reports whether two values of a variable mean the same to runs-on.
func same(a, b string) bool {
	one, ok := rules.RunsOn(a)
	other, too := rules.RunsOn(b)
	if !ok || !too {
		return a == b
	}
	return slices.Equal(one, other)
}

// plain returns a value of a variable as one line for people.
func plain(value string) string {
	return cmp.Or(router.Shorten(router.OneLine(value), maxValue), "empty")
}
