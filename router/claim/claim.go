// Package claim owns the claim: a starting runner sends the token of its Nomad job, and
// is given its GitHub configuration, once, if a job still needs it. Server puts its
// Handler on the public listener.
package claim

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
	"sync"
	"time"

	"switchyard/router"
	"switchyard/router/decide"
	"switchyard/router/intake"
	"switchyard/router/runners"
	"switchyard/router/telemetry"

	"golang.org/x/sync/singleflight"
)

// router.ClaimPath is where a starting runner fetches its configuration.
const (
	maxToken     = 256              // bytes of a bearer token
	nameTries    = 3                // names offered to GitHub for one claim
	claimTimeout = 25 * time.Second // for one claim's talk with GitHub; under the server's write timeout

	checkTimeout = 5 * time.Second // for all that is asked before the token is spent
	askTimeout   = 4 * time.Second // for GitHub's part of it, which a claim does without if it must
	recordWait   = time.Second     // for the record of a registration that its runner has overtaken
	patience     = 5 * time.Second // for a token to become known, after a new database
	patiencePoll = 50 * time.Millisecond
	maxPatient   = 100 // claims that wait so
	jobAsks      = 3   // jobs that GitHub is asked about for one claim
)

// A Store is what claims use of the database.
type Store interface {
	Settle(ctx context.Context, jobID int64, to router.JobState, cause router.Cause, reason string, d *router.Decision, now time.Time) error

	// Claimant says what Claim would find, and writes nothing.
	Claimant(ctx context.Context, tokenHash [32]byte) (router.Claimed, error)

	// Claim takes the one use of a token: the runner moves from Dispatched to
	// Claimed. It is meant for its own job if that waits, and from now on for
	// the job that needs it most if not: the oldest that waits and is of equal
	// fit, those that have no runner first, then those whose own has not
	// claimed, which is left over then. If there is none the runner moves to
	// Stopped instead and Needed is false. An unknown token is ErrNotFound, a
	// used one ErrClaimed, with the runner and its job.
	Claim(ctx context.Context, tokenHash [32]byte, now time.Time) (router.Claimed, error)

	// ClaimRefused records why the claim of a runner that is Dispatched was refused;
	// it is the reason of the job that waits for it, too.
	ClaimRefused(ctx context.Context, runnerID, why string, now time.Time) error

	// Configured records GitHub's answer to a claimed runner: its name there, its ID, and where it is registered.
	Configured(ctx context.Context, runnerID, name string, gitHubID int64, at router.Target, now time.Time) error

	// Online records that a configured runner was given its configuration: it
	// moves from Claimed to Online, and stays where it is if it went further.
	Online(ctx context.Context, runnerID string, now time.Time) error

	Lost(ctx context.Context, runnerID string, at time.Time, cause router.Cause, reason string, now time.Time) (lost bool, err error)

	Runner(ctx context.Context, id string) (router.Runner, error)
}

// A Handler answers claims. Its exported fields are set before it is used, and
// required. It is made by New and safe for concurrent use.
type Handler struct {
	Store   Store
	Nomad   router.Nomad
	GitHub  router.GitHub
	Intake  *intake.Intake
	Decider *decide.Decider
	InHand  *decide.InHand
	First   *intake.FirstSync
	Runners *runners.Runners
	Strays  *runners.Strays
	Log     *telemetry.Log
	Metrics *telemetry.Metrics
	Traces  *telemetry.Traces // nil: nobody follows
	Backoff *router.Backoff
	Now     func() time.Time

	Due      router.Hint     // given when a job may be due
	Leftover *router.JobHint // given jobs whose runners may be left over

	FromNode bool          // a claim must come from the address that Nomad knows of the runner's node
	Doubt    time.Duration // how long a runner that may have a job has to show itself

	refusals    refusals
	lostAnswers lostAnswers
	patient     chan struct{} // size maxPatient; claims that wait for their token to become known
}

// New returns a Handler whose exported fields are those of h.
func New(h *Handler) *Handler {
	h.patient = make(chan struct{}, maxPatient)
	return h
}

// ServeHTTP answers GET /runner/v1/claim. The bearer token of a Nomad job's meta
// is good for one answer: 200 with a just-in-time configuration, 200 with
// nothing when no job needs the runner (any number of times, as nothing is
// given away), 401 for an unknown token, 410 for a used one, and 5xx when
// GitHub or the store cannot be asked, which fails the allocation; the job is
// then tried again with a new runner.
//
// Before the token is spent Nomad must say that the runner is starting, 403 if
// it is not and 503 if Nomad cannot say; then GitHub is asked whether its job is
// still queued. A token that was refused so is not looked at again for a second.
func (h *Handler) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	began := h.Now()
	rw.Header().Set("Cache-Control", "no-store")
	token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" || len(token) > maxToken {
		http.Error(rw, "a claim needs the header Authorization: Bearer with the token of its Nomad job", http.StatusUnauthorized)
		return
	}
	h.awaitToken(req.Context(), router.Secret(token).Hash())
	meant, gone, err := h.checkOnce(req.Context(), router.Secret(token).Hash(), req.RemoteAddr)
	defer func() { // after the claim: the runner is not left over before
		for _, id := range gone {
			h.Leftover.Of(id)
		}
	}()
	if err != nil {
		h.refuse(rw, meant, req.RemoteAddr, err)
		return
	}
	// From here on the work is finished even if the client goes away: the
	// token is spent either way.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), claimTimeout+router.StoreTimeout)
	defer cancel()
	c, err := h.Store.Claim(ctx, router.Secret(token).Hash(), h.Now())
	if err != nil {
		h.refuse(rw, c, req.RemoteAddr, err)
		return
	}
	log := h.Log.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID)
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
		h.Leftover.Of(meant.Runner.JobID) // the runner that was to serve it may be there now
	}

	h.claimed(ctx, c)
	ctx, claiming := h.Traces.Span(ctx, c.Job, "claim", began)
	defer func() { claiming.With("nomad_job", c.Runner.ID).With("runner", c.Runner.Name).Finish(h.Now(), err) }()
	configuring, s := h.Traces.Span(ctx, c.Job, "configure", h.Now())
	answer, err := h.configure(configuring, &c)
	s.Finish(h.Now(), err)
	if err != nil {
		text := h.unconfigured(ctx, c, err)
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
		h.unanswered(ctx, c, err)
		return
	}
	log.Info("runner configured", "runner", c.Runner.Name, "runner_id", c.Runner.GitHubID)
	if err := h.Store.Online(ctx, c.Runner.ID, h.Now()); err != nil {
		log.Error("cannot record a configured runner", "err", err, "fix", router.StoreFix(err))
	} else if r, err := h.Store.Runner(ctx, c.Runner.ID); err == nil && !r.EndedAt.IsZero() && r.State == router.RunnerOnline { // what Nomad said overtook this
		h.Runners.HasEnded(router.LiveRunner{Runner: r, Needed: r.JobID == c.Job.ID, Failures: c.Job.Failures})
	}
	h.Leftover.Of(c.Job.ID) // it may have gone elsewhere meanwhile
}

// claimed observes a claim. A runner that Nomad has not told of yet has got its
// node a moment ago.
func (h *Handler) claimed(ctx context.Context, c router.Claimed) {
	now := h.Now()
	d, placed := c.Job.Decision, c.Runner.PlacedAt
	if d == nil {
		d = h.InHand.Decision(c.Job.ID)
	}
	if placed.IsZero() {
		placed = now
	}
	h.Metrics.Placed(c.Job, d, placed)
	h.Metrics.Claimed(c.Job, d, now)
	h.Traces.Place(ctx, c, placed)
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
func (h *Handler) refuse(rw http.ResponseWriter, c router.Claimed, from string, err error) {
	log := h.Log.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID, "from", from)
	var r *refusal
	var fix *router.FixError
	switch {
	case errors.Is(err, router.ErrClaimed) && c.Runner.State == router.RunnerStopped:
		log.Throttled(slog.LevelInfo, c.Runner.ID, "runner not needed any more", "state", c.Job.State)
		rw.WriteHeader(http.StatusOK)
		return
	case errors.Is(err, router.ErrClaimed):
		r = &refusal{status: http.StatusGone, text: "this claim token was used already"}
	case errors.As(err, &r) && r.cause == nil:
		log.Throttled(slog.LevelWarn, c.Runner.ID, "a claim was refused", "reason", r.text)
	case errors.As(err, &r) && errors.As(err, &fix):
		log.Throttled(slog.LevelError, c.Runner.ID, "a claim was refused", "reason", r.text, "err", r.cause, "fix", fix.Fix)
	case errors.As(err, &r):
		log.Throttled(slog.LevelWarn, c.Runner.ID, "a claim was refused", "reason", r.text, "err", r.cause)
	case errors.Is(err, router.ErrNotFound): // anyone can have this logged
		r = &refusal{status: http.StatusUnauthorized, text: "unknown claim token"}
	case errors.Is(err, context.Canceled): // nobody waits for the answer
		r = &refusal{status: http.StatusServiceUnavailable, text: "the claim was called off"}
	default:
		log.Throttled(slog.LevelError, "", "cannot record a claim", "err", err, "fix", router.StoreFix(err))
		r = &refusal{status: http.StatusServiceUnavailable, text: "the router cannot record the claim now"}
	}
	if r.status == http.StatusServiceUnavailable {
		rw.Header().Set("Retry-After", "1")
	}
	if c.Runner.State == router.RunnerDispatched && r.status != http.StatusUnauthorized {
		h.noteRefusal(c.Runner.ID, r)
	}
	http.Error(rw, r.text, r.status)
}

// noteRefusal has a runner and its job say why its claim was refused, so that the end
// of its allocation, which follows, is not put down to its node.
func (h *Handler) noteRefusal(runnerID string, r *refusal) {
	why := "its claim was refused: " + r.text
	if r.cause != nil {
		why += ": " + r.cause.Error()
	}
	if !h.Log.Allows(runnerID + "\x00" + r.text) {
		return // it says so already
	}
	ctx, cancel := context.WithTimeout(context.Background(), router.StoreTimeout) // whoever claims may have gone
	defer cancel()
	if err := h.Store.ClaimRefused(ctx, runnerID, why, h.Now()); err != nil {
		h.Log.Throttled(slog.LevelError, "", "cannot record that a claim was refused", "nomad_job", runnerID, "err", err, "fix", router.StoreFix(err))
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
func (h *Handler) checkOnce(ctx context.Context, tokenHash [32]byte, from string) (router.Claimed, []int64, error) {
	who := claimant{tokenHash: tokenHash}
	if h.FromNode {
		who.from, _, _ = net.SplitHostPort(from)
	}
	h.refusals.mu.Lock()
	r, ok := h.refusals.by[who]
	h.refusals.mu.Unlock()
	if ok && h.Now().Before(r.until) {
		return r.meant, nil, r.err
	}
	shared, err, _ := h.refusals.group.Do(string(tokenHash[:])+who.from, func() (any, error) {
		// Others may wait for this one's answer, who have not gone away.
		meant, gone, err := h.check(context.WithoutCancel(ctx), tokenHash, from)
		if _, ok := errors.AsType[*refusal](err); ok {
			h.refusals.add(who, refused{meant, err, h.Now().Add(refusedFor)}, h.Now())
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
func (h *Handler) check(ctx context.Context, tokenHash [32]byte, from string) (c router.Claimed, gone []int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if c, err = h.Store.Claimant(ctx, tokenHash); err != nil {
		return c, nil, err
	}
	if err = h.starting(ctx, tokenHash, c.Runner, from); err == nil {
		gone, err = h.stillQueued(ctx, tokenHash, c)
	}
	if errors.Is(err, router.ErrClaimed) { // meanwhile: it may have been stopped, as its job is gone
		c, err = h.Store.Claimant(ctx, tokenHash)
	}
	return c, gone, err
}

// starting fails unless Nomad has an allocation of the runner that runs or is
// about to, and if that is asked for, unless the claim comes from its node.
func (h *Handler) starting(ctx context.Context, tokenHash [32]byte, r router.Runner, from string) error {
	for began := time.Now(); r.NomadJob == "" && time.Since(began) < recordWait; {
		select {
		case <-ctx.Done():
		case <-time.After(recordWait / 20):
		}
		c, err := h.Store.Claimant(ctx, tokenHash)
		if err != nil {
			return err
		}
		r = c.Runner
	}
	unknown := &refusal{status: http.StatusServiceUnavailable, text: "the router cannot ask Nomad now whether this runner is starting"}
	if r.NomadJob == "" {
		if h.FromNode {
			unknown.cause = errors.New("the registration of the Nomad job is not recorded")
			return unknown
		}
		return nil // its token has left the router a moment ago
	}
	a, err := h.Nomad.Allocation(ctx, r)
	switch {
	case errors.Is(err, router.ErrNotFound):
		return &refusal{status: http.StatusForbidden, text: "Nomad has no allocation for this runner"}
	case err != nil:
		unknown.cause = err
		return unknown
	case a.Desired != "run" || a.Status != "pending" && a.Status != "running":
		return &refusal{status: http.StatusForbidden, text: fmt.Sprintf("the allocation of this runner is not starting: it is %s, and to %s", a.Status, a.Desired)}
	}
	if !h.FromNode {
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
func (h *Handler) stillQueued(ctx context.Context, tokenHash [32]byte, c router.Claimed) (gone []int64, err error) {
	within, cancel := context.WithTimeout(router.ForClaim(ctx), askTimeout)
	defer cancel()
	for c.Needed && len(gone) < jobAsks {
		d, err := h.Intake.Says(within, c.Job)
		if err != nil && ctx.Err() == nil {
			h.Log.Throttled(slog.LevelWarn, "", "github did not say whether a job is still queued; its runner starts as the books have it",
				"job_id", c.Job.ID, "nomad_job", c.Runner.ID, "err", err)
		}
		if err != nil || d.Action == "queued" && !d.Waits() {
			return gone, nil
		}
		changed, err := h.Intake.Record(ctx, d)
		if err != nil {
			return gone, fmt.Errorf("record what GitHub says of job %d: %w", c.Job.ID, err)
		}
		if !changed {
			return gone, nil
		}
		gone = append(gone, c.Job.ID)
		h.Due.Give()
		if c, err = h.Store.Claimant(ctx, tokenHash); err != nil {
			return gone, err
		}
	}
	return gone, nil
}

// configure asks GitHub for what a claim is answered with, and records it. Each
// request for a configuration has a name of its own: GitHub may answer 5xx and
// yet keep the runner it made.
func (h *Handler) configure(ctx context.Context, c *router.Claimed) (answer router.Secret, err error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	if c.Job.Decision == nil {
		// The claim overtook the record of the registration.
		if c.Job.Decision = h.InHand.Decision(c.Job.ID); c.Job.Decision == nil {
			d, err := h.Decider.Decide(ctx, c.Job)
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
		reg, err := h.GitHub.RegistrationToken(ctx, ask)
		if err != nil {
			return "", fmt.Errorf("ask GitHub for a registration token: %w", err)
		}
		// The runner registers itself, by the name in its meta.
		r.Name, answer = ask.Name, router.Secret(string(reg.Token)+"\n"+reg.Group+"\n")
	} else {
		var cfg router.RunnerConfig
		for range nameTries {
			ask.Name = r.ID + "-" + strings.ToLower(rand.Text()[:router.NameSuffix])
			cfg, err = h.GitHub.RunnerConfig(ctx, ask)
			if errors.As(err, new(*router.UnansweredError)) {
				h.lostAnswers.add(lostAnswer{target: r.Target, name: ask.Name, jobID: c.Job.ID, due: h.Now().Add(LostEvery)})
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
	if err := h.Store.Configured(ctx, r.ID, r.Name, r.GitHubID, r.Target, h.Now()); err != nil {
		gone := h.Runners.Unregister(ctx, *r)
		if gone != nil && r.GitHubID != 0 {
			h.lostAnswers.add(lostAnswer{target: r.Target, name: r.Name, jobID: c.Job.ID, due: h.Now().Add(LostEvery)})
		}
		return "", errors.Join(fmt.Errorf("record the configuration of runner %s: %w", r.ID, err), gone)
	}
	return answer, nil
}

// unanswered gives up a runner that went away while it was answered.
func (h *Handler) unanswered(ctx context.Context, c router.Claimed, cause error) {
	log := h.Log.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID)
	at := h.Now().Add(h.Doubt)
	log.Warn("the runner went away while it was given its configuration; the job is tried again unless it shows itself", "err", cause, "again_at", at)
	reason := "its runner went away while it was given its configuration: it is given time to show itself"
	if _, err := h.Store.Lost(ctx, c.Runner.ID, at, router.CauseRunner, reason, h.Now()); err != nil {
		log.Error("cannot record a lost runner", "err", err) // Recover mends it at the next start
	}
	h.Metrics.Retried(router.CauseRunner)
	h.Due.Give()
}

// unconfigured gives up a claimed runner and returns what its allocation is told.
func (h *Handler) unconfigured(ctx context.Context, c router.Claimed, cause error) string {
	log := h.Log.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID, "err", cause)
	rule := ""
	if c.Job.Decision != nil {
		rule = c.Job.Decision.Rule
	}
	at, again := h.Backoff.RetryGitHub(cause, c.Job.Failures)
	if !again {
		at = h.Now()
	}
	var fix *router.FixError
	if errors.As(cause, &fix) || !again {
		at = at.Add(router.GitHubFixWait) // each attempt costs a Nomad job, and one that is given up must not be due before that is recorded
	}
	if _, err := h.Store.Lost(ctx, c.Runner.ID, at, router.CauseGitHub, cause.Error(), h.Now()); err != nil {
		// Recover mends it at the next start.
		log.Error("cannot record a lost runner", "store_err", err)
		return "the router cannot record the claim now"
	}
	if errors.Is(cause, router.ErrRunnerLimit) {
		h.Strays.Crowded(c.Runner.Target)
	}
	if !again {
		log.Error("GitHub refuses the runner: mend the rule's runner section, or the workflow's labels")
		if err := h.Store.Settle(ctx, c.Job.ID, router.Unroutable, "", "GitHub refuses the runner: "+cause.Error(), c.Job.Decision, h.Now()); err != nil {
			log.Error("cannot record a refused job", "store_err", err)
		}
		return "GitHub refuses the runner configuration; see the router's log"
	}
	h.Metrics.Retried(router.CauseGitHub)
	if fix != nil {
		log.Throttled(slog.LevelError, rule, "runner configuration waits for a change of configuration", "fix", fix.Fix, "again_at", at)
	} else {
		log.Throttled(slog.LevelWarn, rule, "no runner configuration; the job will be tried again", "again_at", at)
	}
	h.Due.Give()
	return "no runner configuration can be had from GitHub now; the job is tried again at " + at.UTC().Format(time.RFC3339)
}

// awaitToken returns when a claim token is known, or will not be so soon.
func (h *Handler) awaitToken(ctx context.Context, tokenHash [32]byte) {
	if !h.First.Settling() {
		return
	}
	select {
	case h.patient <- struct{}{}:
		defer func() { <-h.patient }()
	default:
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for h.First.Settling() {
		if _, err := h.Store.Claimant(ctx, tokenHash); !errors.Is(err, router.ErrNotFound) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(patiencePoll):
		}
	}
}
