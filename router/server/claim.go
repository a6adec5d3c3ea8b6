package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"switchyard/router"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// ClaimPath is where a starting runner fetches its configuration.
const ClaimPath = "/runner/v1/claim"

const (
	maxToken      = 256             // bytes of a bearer token
	nameSuffix    = 6               // characters that make each name new
	nameTries     = 3               // names offered to GitHub for one claim
	githubFixWait = 2 * time.Minute // on top of the back-off, when a person must act on what GitHub said; doubled with each failure

	longestFixWait = 5 * time.Minute  // the same, in the end
	claimTimeout   = 25 * time.Second // for one claim's talk with GitHub; under the server's write timeout

	checkTimeout = 5 * time.Second // for all that is asked before the token is spent
	askTimeout   = 4 * time.Second // for GitHub's part of it, which a claim does without if it must
	recordWait   = time.Second     // for the record of a registration that its runner has overtaken
	jobAsks      = 3               // jobs that GitHub is asked about for one claim
)

// claim answers GET /runner/v1/claim. The bearer token of a Nomad job's meta
// is good for one answer: 200 with a just-in-time configuration, 200 with
// nothing when no job needs the runner (any number of times, as nothing is
// given away), 401 for an unknown token, 410 for a used one, and 5xx when
// GitHub or the store cannot be asked, which fails the allocation; the job is
// then tried again with a new runner.
//
// Before the token is spent Nomad must say that the runner is starting, 403 if
// it is not and 503 if Nomad cannot say; then GitHub is asked whether its job is
// still queued. A token that was refused so is not looked at again for a second.
func (w *worker) claim(rw http.ResponseWriter, req *http.Request) {
	began := w.Now()
	rw.Header().Set("Cache-Control", "no-store")
	token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" || len(token) > maxToken {
		http.Error(rw, "a claim needs the header Authorization: Bearer with the token of its Nomad job", http.StatusUnauthorized)
		return
	}
	w.awaitToken(req.Context(), hash(router.Secret(token)))
	meant, gone, err := w.checkOnce(req.Context(), hash(router.Secret(token)), req.RemoteAddr)
	defer func() { // after the claim: the runner is not left over before
		for _, id := range gone {
			w.look(id)
		}
	}()
	if err != nil {
		w.refuse(rw, meant, req.RemoteAddr, err)
		return
	}
	// From here on the work is finished even if the client goes away: the
	// token is spent either way.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), claimTimeout+storeTimeout)
	defer cancel()
	c, err := w.Store.Claim(ctx, hash(router.Secret(token)), w.Now())
	if err != nil {
		w.refuse(rw, c, req.RemoteAddr, err)
		return
	}
	log := w.Logger.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID)
	if c.Job.Decision != nil {
		log = log.With("rule", c.Job.Decision.Rule)
	}
	if !c.Needed {
		log.Info("runner not needed any more", "state", c.Job.State)
		rw.WriteHeader(http.StatusOK)
		return
	}
	if c.Runner.JobID != meant.Runner.JobID {
		log.Info("runner serves another job than it was started for", "instead_of", meant.Runner.JobID)
		w.look(meant.Runner.JobID) // the runner that was to serve it may be there now
	}

	w.claimed(ctx, c)
	ctx, claiming := w.span(ctx, c.Job, "claim", began)
	defer func() { claiming.with("nomad_job", c.Runner.ID).with("runner", c.Runner.Name).end(w.Now(), err) }()
	configuring, s := w.span(ctx, c.Job, "configure", w.Now())
	answer, err := w.configure(configuring, &c)
	s.end(w.Now(), err)
	if err != nil {
		text := w.unconfigured(ctx, c, err)
		rw.Header().Set("Retry-After", "1") // it has spent its token: its job gets another runner
		http.Error(rw, text, http.StatusServiceUnavailable)
		return
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err = io.WriteString(rw, string(answer))
	if err == nil {
		err = http.NewResponseController(rw).Flush()
	}
	if err != nil { // the node went away; it may have the configuration all the same
		w.unanswered(ctx, c, err)
		return
	}
	log.Info("runner configured", "runner", c.Runner.Name, "runner_id", c.Runner.GitHubID)
	if err := w.Store.Online(ctx, c.Runner.ID, w.Now()); err != nil {
		log.Error("cannot record a configured runner", "err", err, "fix", router.StoreFix(err))
	} else if r, err := w.Store.Runner(ctx, c.Runner.ID); err == nil && !r.EndedAt.IsZero() && r.State == router.RunnerOnline { // what Nomad said overtook this
		w.hasEnded(router.LiveRunner{Runner: r, Needed: r.JobID == c.Job.ID, Failures: c.Job.Failures})
	}
	w.look(c.Job.ID) // it may have gone elsewhere meanwhile
}

// claimed observes a claim. A runner that Nomad has not told of yet has got its
// node a moment ago.
func (w *worker) claimed(ctx context.Context, c router.Claimed) {
	now := w.Now()
	d, placed := c.Job.Decision, c.Runner.PlacedAt
	if d == nil {
		d = w.held(c.Job.ID)
	}
	if placed.IsZero() {
		placed = now
	}
	lasted(w.Metrics.placed, c.Job, d, placed)
	lasted(w.Metrics.claimed, c.Job, d, now)
	w.tracePlace(ctx, c, placed)
}

// A refusal is the answer to a claim that spends no token.
type refusal struct {
	status int
	text   string
	cause  error // nil: the claim is at fault
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.cause }

// refuse answers a claim that failed before its token was spent, or to spend it.
func (w *worker) refuse(rw http.ResponseWriter, c router.Claimed, from string, err error) {
	log := w.Logger.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID, "from", from)
	var r *refusal
	var fix *router.FixError
	switch {
	case errors.Is(err, router.ErrClaimed) && c.Runner.State == router.RunnerStopped:
		w.logThrottled(log, slog.LevelInfo, c.Runner.ID, "runner not needed any more", "state", c.Job.State)
		rw.WriteHeader(http.StatusOK)
		return
	case errors.Is(err, router.ErrClaimed):
		r = &refusal{status: http.StatusGone, text: "this claim token was used already"}
	case errors.As(err, &r) && r.cause == nil:
		w.logThrottled(log, slog.LevelWarn, c.Runner.ID, "a claim was refused", "reason", r.text)
	case errors.As(err, &r) && errors.As(err, &fix):
		w.logThrottled(log, slog.LevelError, c.Runner.ID, "a claim was refused", "reason", r.text, "err", r.cause, "fix", fix.Fix)
	case errors.As(err, &r):
		w.logThrottled(log, slog.LevelWarn, c.Runner.ID, "a claim was refused", "reason", r.text, "err", r.cause)
	case errors.Is(err, router.ErrNotFound): // anyone can have this logged
		r = &refusal{status: http.StatusUnauthorized, text: "unknown claim token"}
	case errors.Is(err, context.Canceled): // nobody waits for the answer
		r = &refusal{status: http.StatusServiceUnavailable, text: "the claim was called off"}
	default:
		w.logThrottled(log, slog.LevelError, "", "cannot record a claim", "err", err, "fix", router.StoreFix(err))
		r = &refusal{status: http.StatusServiceUnavailable, text: "the router cannot record the claim now"}
	}
	if r.status == http.StatusServiceUnavailable {
		rw.Header().Set("Retry-After", "1")
	}
	if c.Runner.State == router.RunnerDispatched && r.status != http.StatusUnauthorized {
		w.noteRefusal(c.Runner.ID, r)
	}
	http.Error(rw, r.text, r.status)
}

// noteRefusal has a runner and its job say why its claim was refused, so that the end
// of its allocation, which follows, is not put down to its node.
func (w *worker) noteRefusal(runnerID string, r *refusal) {
	why := router.ClaimRefused + ": " + r.text
	if r.cause != nil {
		why += ": " + r.cause.Error()
	}
	if _, ok := w.throttle.allow(runnerID+"\x00"+r.text, w.Now()); !ok {
		return // it says so already
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout) // whoever claims may have gone
	defer cancel()
	if err := w.Store.ClaimRefused(ctx, runnerID, why, w.Now()); err != nil {
		w.logThrottled(w.Logger, slog.LevelError, "", "cannot record that a claim was refused", "nomad_job", runnerID, "err", err, "fix", router.StoreFix(err))
	}
}

// refusals are the claims that were refused lately, by who sent them: a runner
// claims once, so a token that is sent again and again must not have Nomad and
// GitHub asked each time. Those that are sent at once share one check. The zero
// value is ready; it is safe for concurrent use.
type refusals struct {
	group singleflight.Group

	mu sync.Mutex
	by map[claimant]refused
}

const (
	refusedFor  = time.Second // Nomad may say otherwise then
	maxRefusals = 10_000      // remembered
)

// A claimant is who sends a token.
type claimant struct {
	tokenHash [32]byte
	from      string // the IP address, if a claim must come from a certain one; else ""
}

type refused struct {
	meant router.Claimed
	err   error // a *refusal
	until time.Time
}

// checked is what check returns.
type checked struct {
	meant router.Claimed
	gone  []int64
}

// checkOnce is check, at most once a second for a token that is refused.
func (w *worker) checkOnce(ctx context.Context, tokenHash [32]byte, from string) (router.Claimed, []int64, error) {
	who := claimant{tokenHash: tokenHash}
	if w.ClaimFromNode {
		who.from, _, _ = net.SplitHostPort(from)
	}
	w.refusals.mu.Lock()
	r, ok := w.refusals.by[who]
	w.refusals.mu.Unlock()
	if ok && w.Now().Before(r.until) {
		return r.meant, nil, r.err
	}
	shared, err, _ := w.refusals.group.Do(string(tokenHash[:])+who.from, func() (any, error) {
		// Others may wait for this one's answer, who have not gone away.
		meant, gone, err := w.check(context.WithoutCancel(ctx), tokenHash, from)
		var no *refusal
		if errors.As(err, &no) {
			w.refusals.add(who, refused{meant, err, w.Now().Add(refusedFor)}, w.Now())
		}
		return checked{meant, gone}, err
	})
	c := shared.(checked)
	return c.meant, c.gone, err
}

func (r *refusals) add(who claimant, no refused, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.by) >= maxRefusals {
		maps.DeleteFunc(r.by, func(_ claimant, r refused) bool { return !now.Before(r.until) })
	}
	switch {
	case r.by == nil:
		r.by = map[claimant]refused{}
	case len(r.by) >= maxRefusals:
		return
	}
	r.by[who] = no
}

// check asks Nomad whether the holder of a token is starting, and then, if it
// is, GitHub whether the job that it would serve is still queued; gone are the
// jobs that were not, as they ended, run or wait for an approval. It spends
// nothing. Its error is a *refusal, ErrClaimed, ErrNotFound or the store's.
func (w *worker) check(ctx context.Context, tokenHash [32]byte, from string) (c router.Claimed, gone []int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if c, err = w.Store.Claimant(ctx, tokenHash); err != nil {
		return c, nil, err
	}
	if err = w.starting(ctx, tokenHash, c.Runner, from); err == nil {
		gone, err = w.stillQueued(ctx, tokenHash, c)
	}
	if errors.Is(err, router.ErrClaimed) { // meanwhile: it may have been stopped, as its job is gone
		c, err = w.Store.Claimant(ctx, tokenHash)
	}
	return c, gone, err
}

// starting fails unless Nomad has an allocation of the runner that runs or is
// about to, and if that is asked for, unless the claim comes from its node.
func (w *worker) starting(ctx context.Context, tokenHash [32]byte, r router.Runner, from string) error {
	for began := time.Now(); r.NomadJob == "" && time.Since(began) < recordWait; {
		select {
		case <-ctx.Done():
		case <-time.After(recordWait / 20):
		}
		c, err := w.Store.Claimant(ctx, tokenHash)
		if err != nil {
			return err
		}
		r = c.Runner
	}
	unknown := &refusal{status: http.StatusServiceUnavailable, text: "the router cannot ask Nomad now whether this runner is starting"}
	if r.NomadJob == "" {
		if w.ClaimFromNode {
			unknown.cause = errors.New("the registration of the Nomad job is not recorded")
			return unknown
		}
		return nil // its token has left the router a moment ago
	}
	a, err := w.Nomad.Allocation(ctx, r)
	switch {
	case errors.Is(err, router.ErrNotFound):
		return &refusal{status: http.StatusForbidden, text: "Nomad has no allocation for this runner"}
	case err != nil:
		unknown.cause = err
		return unknown
	case a.Desired != "run" || a.Status != "pending" && a.Status != "running":
		return &refusal{status: http.StatusForbidden, text: fmt.Sprintf("the allocation of this runner is not starting: it is %s, and to %s", a.Status, a.Desired)}
	}
	if !w.ClaimFromNode {
		return nil
	}
	node, err := netip.ParseAddr(a.NodeAddr)
	if err != nil {
		unknown.text = "the router cannot learn the address of this runner's node"
		unknown.cause = &router.FixError{Fix: "give the Nomad token node read, or leave --claim-from-node out", Err: fmt.Errorf("node %s has the address %q on Nomad", a.Node, a.NodeAddr)}
		return unknown
	}
	peer, err := netip.ParseAddrPort(from)
	if err != nil || peer.Addr().Unmap().WithZone("") != node.Unmap().WithZone("") {
		return &refusal{status: http.StatusForbidden, text: "this claim does not come from the node of its runner"}
	}
	return nil
}

// stillQueued asks GitHub whether the job that a claim is for still waits, and
// if not, has the books know it and asks about the next one. What GitHub cannot
// say now is as the books have it. Its errors are the store's.
func (w *worker) stillQueued(ctx context.Context, tokenHash [32]byte, c router.Claimed) (gone []int64, err error) {
	within, cancel := context.WithTimeout(router.ForClaim(ctx), askTimeout)
	defer cancel()
	for c.Needed && len(gone) < jobAsks {
		d, err := w.said(within, c.Job)
		if err != nil && ctx.Err() == nil {
			w.logThrottled(w.Logger, slog.LevelWarn, "", "github did not say whether a job is still queued; its runner starts as the books have it",
				"job_id", c.Job.ID, "nomad_job", c.Runner.ID, "err", err)
		}
		if err != nil || d.Action == "queued" && !d.Waits() {
			return gone, nil
		}
		changed, err := w.record(ctx, d)
		if err != nil {
			return gone, fmt.Errorf("record what GitHub says of job %d: %w", c.Job.ID, err)
		}
		if !changed {
			return gone, nil
		}
		gone = append(gone, c.Job.ID)
		w.nudge()
		if c, err = w.Store.Claimant(ctx, tokenHash); err != nil {
			return gone, err
		}
	}
	return gone, nil
}

// configure asks GitHub for what a claim is answered with, and records it. Each
// request for a configuration has a name of its own: GitHub may answer 5xx and
// yet keep the runner it made.
func (w *worker) configure(ctx context.Context, c *router.Claimed) (answer router.Secret, err error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	if c.Job.Decision == nil {
		// The claim overtook the record of the registration.
		if c.Job.Decision = w.held(c.Job.ID); c.Job.Decision == nil {
			d, err := w.decide(ctx, c.Job)
			if err != nil {
				return "", fmt.Errorf("ask GitHub what started the run: %w", err)
			}
			c.Job.Decision = &d
		}
	}
	r := &c.Runner
	ask := router.ConfigRequest{Repo: c.Job.Repo, Runner: c.Job.Placement(c.Job.Decision).Runner, Name: r.ID, Labels: c.Job.RunnerLabels()}
	r.Target = router.TargetOf(ask.Repo, ask.Runner)
	if ask.Runner.Registration == "token" {
		reg, err := w.GitHub.RegistrationToken(ctx, ask)
		if err != nil {
			return "", fmt.Errorf("ask GitHub for a registration token: %w", err)
		}
		// The runner registers itself, by the name in its meta.
		r.Name, answer = ask.Name, router.Secret(string(reg.Token)+"\n"+reg.Group+"\n")
	} else {
		var cfg router.RunnerConfig
		for range nameTries {
			ask.Name = r.ID + "-" + strings.ToLower(rand.Text()[:nameSuffix])
			cfg, err = w.GitHub.RunnerConfig(ctx, ask)
			if errors.As(err, new(*router.UnansweredError)) {
				w.lostAnswers.add(lostAnswer{target: r.Target, name: ask.Name, jobID: c.Job.ID, due: w.Now().Add(lostEvery)})
			}
			if !errors.Is(err, router.ErrNameTaken) {
				break
			}
		}
		if err != nil {
			return "", fmt.Errorf("ask GitHub for a runner configuration: %w", err)
		}
		r.Name, r.GitHubID, answer = ask.Name, cfg.GitHubID, cfg.JIT
	}
	if err := w.Store.Configured(ctx, r.ID, r.Name, r.GitHubID, r.Target, w.Now()); err != nil {
		gone := w.unregister(ctx, *r)
		if gone != nil && r.GitHubID != 0 {
			w.lostAnswers.add(lostAnswer{target: r.Target, name: r.Name, jobID: c.Job.ID, due: w.Now().Add(lostEvery)})
		}
		return "", errors.Join(fmt.Errorf("record the configuration of runner %s: %w", r.ID, err), gone)
	}
	return answer, nil
}

// unanswered gives up a runner that went away while it was answered.
func (w *worker) unanswered(ctx context.Context, c router.Claimed, cause error) {
	log := w.Logger.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID)
	at := w.Now().Add(w.Doubt)
	log.Warn("the runner went away while it was given its configuration; the job is tried again unless it shows itself", "err", cause, "again_at", at)
	reason := "its runner went away while it was given its configuration: it is given time to show itself"
	if _, err := w.Store.Lost(ctx, c.Runner.ID, at, reason, w.Now()); err != nil {
		log.Error("cannot record a lost runner", "err", err) // Recover mends it at the next start
	}
	w.Metrics.retried(causeRunner)
	w.nudge()
}

// unconfigured gives up a claimed runner and returns what its allocation is told.
func (w *worker) unconfigured(ctx context.Context, c router.Claimed, cause error) string {
	log := w.Logger.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID, "err", cause)
	rule := ""
	if c.Job.Decision != nil {
		rule = c.Job.Decision.Rule
	}
	at, again := w.retryAt(cause, c.Job.Failures)
	if !again {
		at = w.Now()
	}
	var fix *router.FixError
	if errors.As(cause, &fix) || !again {
		at = at.Add(githubFixWait) // each attempt costs a Nomad job, and one that is given up must not be due before that is recorded
	}
	if _, err := w.Store.Lost(ctx, c.Runner.ID, at, cause.Error(), w.Now()); err != nil {
		// Recover mends it at the next start.
		log.Error("cannot record a lost runner", "store_err", err)
		return "the router cannot record the claim now"
	}
	if errors.Is(cause, router.ErrRunnerLimit) {
		w.crowded(c.Runner.Target)
	}
	if !again {
		log.Error("GitHub refuses the runner: mend the rule's runner section, or the workflow's labels")
		if err := w.settle(ctx, c.Job.ID, router.Unroutable, "GitHub refuses the runner: "+cause.Error(), c.Job.Decision); err != nil {
			log.Error("cannot record a refused job", "store_err", err)
		}
		return "GitHub refuses the runner configuration; see the router's log"
	}
	w.Metrics.retried(causeGitHub)
	if fix != nil {
		w.logThrottled(log, slog.LevelError, rule, "runner configuration waits for a change of configuration", "fix", fix.Fix, "again_at", at)
	} else {
		w.logThrottled(log, slog.LevelWarn, rule, "no runner configuration; the job will be tried again", "again_at", at)
	}
	w.nudge()
	return "no runner configuration can be had from GitHub now; the job is tried again at " + at.UTC().Format(time.RFC3339)
}
