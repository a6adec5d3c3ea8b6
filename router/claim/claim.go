// Package claim owns the claim: a starting runner sends the token of its Nomad job and gets
// its GitHub configuration, once, if a job still needs it. Server puts its Handler on the
// public listener.
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

const (
	maxToken     = 256              // bytes of a bearer token
	nameTries    = 3                // names offered to GitHub for one claim
	claimTimeout = 25 * time.Second // for all calls to GitHub of one claim; under the server's write timeout

	checkTimeout = 5 * time.Second // for all checks before the token is spent
	spendTimeout = 4 * time.Second // for the database to begin to spend it
	askTimeout   = 4 * time.Second // for GitHub's part of them, which a claim can do without
	recordWait   = time.Second     // for the registration to be recorded, when the claim comes first
	patience     = 5 * time.Second // for a token to become known, while a new database is filled
	patiencePoll = 50 * time.Millisecond
	maxPatient   = 100 // claims that wait for that
	jobAsks      = 3   // jobs that GitHub is asked about in one claim
)

// Longest is how long a claim takes at most, from when its token is spent.
const Longest = claimTimeout + router.StoreTimeout

// A Store is what claims use of the database.
type Store interface {
	Settle(ctx context.Context, jobID int64, to router.JobState, cause router.Cause, reason string, d *router.Decision, now time.Time) error

	// Claimant returns what Claim would return, and writes nothing.
	Claimant(ctx context.Context, tokenHash [32]byte) (router.Claimed, error)

	// Claim uses up a token: the runner moves from Dispatched to Claimed. It serves its own
	// job if that waits. If not it is given, from now on, to the job that needs it most:
	// the oldest one of equal fit that waits, first among jobs without a runner, then among
	// those whose own runner has not claimed and is left over then. If there is no such job
	// the runner moves to Stopped instead, and Needed is false. An unknown token is
	// ErrNotFound, a used one ErrClaimed with the runner and its job.
	Claim(ctx context.Context, tokenHash [32]byte, now time.Time) (router.Claimed, error)

	// ClaimRefused records why the claim of a Dispatched runner was refused. It becomes the
	// reason of the job that waits for the runner, too.
	ClaimRefused(ctx context.Context, runnerID, why string, now time.Time) error

	// Configured records what GitHub answered for a claimed runner: its name and ID there,
	// and where it is registered.
	Configured(ctx context.Context, runnerID, name string, gitHubID int64, at router.Target, now time.Time) error

	// Online records that a configured runner was sent its configuration: it moves from
	// Claimed to Online, and stays where it is if it has gone further.
	Online(ctx context.Context, runnerID string, now time.Time) error

	Lost(ctx context.Context, r router.Runner, at time.Time, cause router.Cause, reason string, now time.Time) (lost bool, err error)

	Runner(ctx context.Context, id string) (router.Runner, error)

	// WarmOf returns the warm runner whose claim token has this hash.
	WarmOf(ctx context.Context, tokenHash [32]byte) (router.WarmRunner, error)

	// WarmReady records that a warm runner waits at the claim. It does nothing to one that a job
	// has taken, or that was stopped.
	WarmReady(ctx context.Context, id string, now time.Time) error

	// NoLongerWarm returns those of the warm runners that are not WarmReady, or that are Doubted.
	NoLongerWarm(ctx context.Context, ids []string) ([]string, error)

	Job(ctx context.Context, id int64) (router.Job, error)

	// JobsOfRun returns the jobs of a run that GitHub may give to a runner, by ID.
	JobsOfRun(ctx context.Context, runID int64) ([]router.Job, error)

	// Verification returns what the holder of a token asked and was told; ErrNotFound for
	// an unknown one. Its runner has its ID, JobID, State, Name, Fit and Rule.
	Verification(ctx context.Context, tokenHash [32]byte) (router.Verification, error)

	// Verified records the answer to what a runner asked, a refusal in the audit trail, too,
	// and returns the first that was recorded.
	Verified(ctx context.Context, tokenHash [32]byte, asked, refusal string, now time.Time) (router.Verification, error)
}

// A Handler answers claims. It is made by New and safe for concurrent use; its exported
// fields are set before, and are required.
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

	WarmChanged router.Hint     // given when a warm runner has come to the claim
	Stopping    <-chan struct{} // closed when the process is to end: no claim waits then
	MaxWaiting  int             // claims of warm runners that wait here at once

	FromNode bool          // a claim must come from the address that Nomad knows of the runner's node
	Doubt    time.Duration // how long a runner that may have a job has to show itself

	refusals    refusals
	lostAnswers lostAnswers
	waiters     waiters
	patient     chan struct{} // size maxPatient; claims that wait for their token to become known
}

// New returns a Handler whose exported fields are those of h.
func New(h *Handler) *Handler {
	h.patient = make(chan struct{}, maxPatient)
	h.waiters.look = router.NewHint()
	return h
}

// ServeHTTP answers GET /runner/v1/claim. The bearer token from a Nomad job's meta is good
// for one answer: 200 with the runner's configuration; 200 with an empty body when no job
// needs the runner, any number of times, as nothing is given away; 401 for an unknown
// token; 410 for a used one; and 5xx when GitHub or the database fails. A 5xx fails the
// allocation, and the job is then retried with a new runner. A warm runner waits here for its
// job if the request has the query wait: see warm.
//
// Before the token is spent Nomad must say that the runner is starting: 403 if it is not,
// 503 if Nomad cannot say. Then GitHub is asked whether the runner's job is still queued. A
// token that was refused is not checked again for a second.
func (h *Handler) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	began := h.Now()
	rw.Header().Set("Cache-Control", "no-store")
	token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" || len(token) > maxToken {
		http.Error(rw, "a claim needs the header Authorization: Bearer with the token of its Nomad job", http.StatusUnauthorized)
		return
	}
	h.awaitKnown(req.Context(), func(ctx context.Context) error {
		_, err := h.Store.Claimant(ctx, router.Secret(token).Hash())
		if errors.Is(err, router.ErrNotFound) {
			_, err = h.Store.WarmOf(ctx, router.Secret(token).Hash())
		}
		return err
	})
	meant, gone, err := h.checkOnce(req.Context(), router.Secret(token).Hash(), req.RemoteAddr)
	if errors.Is(err, router.ErrNotFound) {
		answered, warmErr := h.warm(rw, req, router.Secret(token).Hash())
		if answered {
			return
		}
		if err = warmErr; err == nil { // a job may have it now
			began = h.Now()
			meant, gone, err = h.checkOnce(req.Context(), router.Secret(token).Hash(), req.RemoteAddr)
		}
	}
	defer func() { // after the claim: the runner is not left over before
		for _, id := range gone {
			h.Leftover.Of(id)
		}
	}()
	if err != nil {
		h.refuse(rw, meant, req.RemoteAddr, err)
		return
	}
	// From here on the work is finished even if the client goes away, because the
	// token is spent.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), Longest)
	defer cancel()
	spending, done := context.WithTimeout(ctx, spendTimeout)
	c, err := h.Store.Claim(spending, router.Secret(token).Hash(), h.Now())
	done()
	if err != nil {
		h.refuse(rw, c, req.RemoteAddr, err)
		return
	}
	log := h.Log.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID)
	if c.Job.Decision != nil {
		log = log.With("rule", c.Job.Decision.Rule)
	}
	if !c.Needed {
		log.Info("a runner is no longer needed", "state", c.Job.State)
		rw.WriteHeader(http.StatusOK)
		return
	}
	if c.Runner.JobID != meant.Runner.JobID {
		log.Info("a runner serves another job than it was started for", "instead_of", meant.Runner.JobID)
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
		log.Throttled(slog.LevelError, "", "cannot record a configured runner", "err", err, "fix", router.StoreFix(err))
	} else if r, err := h.Store.Runner(ctx, c.Runner.ID); err == nil && !r.EndedAt.IsZero() && r.State == router.RunnerOnline { // what Nomad said overtook this
		h.Runners.HasEnded(router.LiveRunner{Runner: r, Needed: r.JobID == c.Job.ID, Failures: c.Job.Failures})
	}
	h.Leftover.Of(c.Job.ID) // another runner may have taken it in the meantime
}

// claimed measures a claim. A runner without a recorded placement got its node a moment ago.
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

// A refusal is the answer to a claim that does not spend its token.
type refusal struct {
	status int
	text   string
	cause  error // nil: the claim is at fault
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.cause }

// refuse answers a claim that failed before its token was spent, or while it was.
func (h *Handler) refuse(rw http.ResponseWriter, c router.Claimed, from string, err error) {
	rule := ruleOf(c.Job)
	log := h.Log.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID, "repo", c.Job.Repo.FullName, "rule", rule, "from", from)
	var r *refusal
	var fix *router.FixError
	switch {
	case errors.Is(err, router.ErrClaimed) && c.Runner.State == router.RunnerStopped:
		log.Throttled(slog.LevelInfo, c.Runner.ID, "a runner is no longer needed", "state", c.Job.State)
		rw.WriteHeader(http.StatusOK)
		return
	case errors.Is(err, router.ErrClaimed):
		r = &refusal{status: http.StatusGone, text: "this claim token has been used already"}
	case errors.As(err, &r) && r.cause == nil:
		log.Throttled(slog.LevelWarn, rule+"\x00"+r.text, "a claim was refused", "reason", r.text)
	case errors.As(err, &r) && errors.As(err, &fix):
		log.Throttled(slog.LevelError, rule+"\x00"+r.text, "a claim was refused", "reason", r.text, "err", r.cause, "fix", fix.Fix)
	case errors.As(err, &r):
		log.Throttled(slog.LevelWarn, rule+"\x00"+r.text, "a claim was refused", "reason", r.text, "err", r.cause)
	case errors.Is(err, router.ErrNotFound): // not logged: anybody can send such a request
		r = &refusal{status: http.StatusUnauthorized, text: "unknown claim token"}
	case errors.Is(err, context.Canceled): // the client has gone
		r = &refusal{status: http.StatusServiceUnavailable, text: "the claim was cancelled"}
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

// noteRefusal records why a claim was refused as the reason of the runner and its job, so
// that the end of its allocation, which follows, is not blamed on its node.
func (h *Handler) noteRefusal(runnerID string, r *refusal) {
	why := "its claim was refused: " + r.text
	if r.cause != nil {
		why += ": " + r.cause.Error()
	}
	if !h.Log.Allows(runnerID + "\x00" + r.text) {
		return // that is the reason already
	}
	ctx, cancel := context.WithTimeout(context.Background(), router.StoreTimeout) // the client may have gone
	defer cancel()
	if err := h.Store.ClaimRefused(ctx, runnerID, why, h.Now()); err != nil {
		h.Log.Throttled(slog.LevelError, "", "cannot record that a claim was refused", "nomad_job", runnerID, "err", err, "fix", router.StoreFix(err))
	}
}

// refusals remembers the claims that were refused in the last second, by sender. A runner
// claims once, so a token that is sent again and again must not cause requests to Nomad and
// GitHub each time. Claims that are sent at the same time share one check. The zero value is
// ready; it is safe for concurrent use.
type refusals struct {
	group singleflight.Group

	mu sync.Mutex
	by map[claimant]refused
}

const (
	refusedFor  = time.Second // Nomad may say otherwise then
	maxRefusals = 10_000      // remembered
)

// A claimant identifies who sends a token.
type claimant struct {
	tokenHash [32]byte
	from      string // the IP address if FromNode is set, else ""
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

// checkOnce is check, but once a second for a token that is refused.
func (h *Handler) checkOnce(ctx context.Context, tokenHash [32]byte, from string) (router.Claimed, []int64, error) {
	who := claimant{tokenHash: tokenHash}
	if h.FromNode {
		who.from, _, _ = net.SplitHostPort(from)
	}
	shared, err, _ := h.refusals.group.Do(string(tokenHash[:])+who.from, func() (any, error) {
		h.refusals.mu.Lock()
		r, ok := h.refusals.by[who]
		h.refusals.mu.Unlock()
		if ok && h.Now().Before(r.until) {
			return checked{meant: r.meant}, r.err
		}
		// Other clients, who have not gone away, may wait for this answer.
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

// check asks Nomad whether the holder of a token is starting, and if so GitHub whether the
// job that it would serve is still queued. gone are the jobs that were not: they ended, run,
// or wait for an approval. check spends nothing. Its error is a *refusal, ErrClaimed,
// ErrNotFound or the store's.
func (h *Handler) check(ctx context.Context, tokenHash [32]byte, from string) (c router.Claimed, gone []int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if c, err = h.Store.Claimant(ctx, tokenHash); err != nil {
		return c, nil, err
	}
	if err = h.starting(ctx, tokenHash, c.Runner, from); err == nil {
		gone, err = h.stillQueued(ctx, tokenHash, c)
	}
	if errors.Is(err, router.ErrClaimed) { // in the meantime: it may have been stopped because its job is gone
		c, err = h.Store.Claimant(ctx, tokenHash)
	}
	return c, gone, err
}

// starting fails unless Nomad has an allocation of the runner that runs or is about to, and,
// with FromNode, unless the claim comes from its node.
func (h *Handler) starting(ctx context.Context, tokenHash [32]byte, r router.Runner, from string) error {
	for began := time.Now(); r.NomadJob == "" && time.Since(began) < recordWait; {
		router.Pause(ctx, recordWait/20)
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
		return nil // the router sent its token to Nomad a moment ago
	}
	a, err := h.Nomad.Allocation(ctx, r)
	switch {
	case errors.Is(err, router.ErrNotFound):
		return &refusal{status: http.StatusForbidden, text: "Nomad has no allocation for this runner"}
	case err != nil:
		unknown.cause = err
		return unknown
	case a.Desired != "run" || a.Status != "pending" && a.Status != "running":
		return &refusal{status: http.StatusForbidden, text: fmt.Sprintf("the allocation of this runner is not starting: its status is %s, and its desired status %s", a.Status, a.Desired)}
	}
	if !h.FromNode {
		return nil
	}
	node, err := netip.ParseAddr(a.NodeAddr)
	if err != nil {
		unknown.text = "the router cannot read the address of this runner's node"
		unknown.cause = &router.FixError{Fix: "give the Nomad token node read, or omit --claim-from-node", Err: fmt.Errorf("node %s has the address %q on Nomad", a.Node, a.NodeAddr)}
		return unknown
	}
	peer, err := netip.ParseAddrPort(from)
	if err != nil || peer.Addr().Unmap().WithZone("") != node.Unmap().WithZone("") {
		return &refusal{status: http.StatusForbidden, text: "this claim does not come from the node of its runner"}
	}
	return nil
}

// stillQueued asks GitHub whether the job that a claim is for still waits. If not, it
// records that and asks about the next job. If GitHub cannot say, the database counts. Its
// errors are the store's.
func (h *Handler) stillQueued(ctx context.Context, tokenHash [32]byte, c router.Claimed) (gone []int64, err error) {
	within, cancel := context.WithTimeout(router.ForClaim(ctx), askTimeout)
	defer cancel()
	for c.Needed && len(gone) < jobAsks {
		d, err := h.Intake.Says(within, c.Job)
		if err != nil && ctx.Err() == nil {
			h.Log.Throttled(slog.LevelWarn, "", "github did not say whether a job is still queued; its runner starts, as the database has it queued",
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

// configure asks GitHub for the runner's configuration and records it. Each request uses a
// new name, because GitHub may answer 5xx and yet keep the runner that it registered.
func (h *Handler) configure(ctx context.Context, c *router.Claimed) (answer router.Secret, err error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	if c.Job.Decision == nil {
		// The claim came before the registration was recorded.
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
		return "", &unrecordedError{fmt.Sprintf("record the configuration of runner %s: %v", r.ID, errors.Join(err, gone))}
	}
	return answer, nil
}

// An unrecordedError says that the database did not record what GitHub answered. It wraps
// nothing: it is neither GitHub's failure nor mended by what would mend the database.
type unrecordedError struct{ text string }

func (e *unrecordedError) Error() string { return e.text }

// ruleOf returns the rule of a job; "": none is known.
func ruleOf(j router.Job) string {
	if j.Decision == nil {
		return ""
	}
	return j.Decision.Rule
}

// unanswered gives up a runner whose connection broke while it was sent its configuration.
func (h *Handler) unanswered(ctx context.Context, c router.Claimed, cause error) {
	rule := ruleOf(c.Job)
	log := h.Log.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID, "repo", c.Job.Repo.FullName, "rule", rule)
	at := h.Now().Add(h.Doubt)
	log.Throttled(slog.LevelWarn, rule, "a runner's connection broke while it was sent its configuration; its job is retried unless the runner comes online", "err", cause, "again_at", at)
	reason := "the connection of its runner broke while it was sent its configuration: it has time to come online"
	if _, err := h.Store.Lost(ctx, router.Runner{ID: c.Runner.ID}, at, router.CauseRunner, reason, h.Now()); err != nil {
		log.Throttled(slog.LevelError, "", "cannot record a lost runner", "err", err) // Recover does at the next start
	}
	h.Metrics.Retried(router.CauseRunner)
	h.Due.Give()
}

// unconfigured gives up a claimed runner that has no configuration, and returns the answer
// for its allocation.
func (h *Handler) unconfigured(ctx context.Context, c router.Claimed, cause error) string {
	rule := ruleOf(c.Job)
	log := h.Log.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID, "repo", c.Job.Repo.FullName, "rule", rule, "err", cause)
	at, again := h.Backoff.RetryGitHub(cause, c.Job.Failures)
	if !again {
		at = h.Now()
	}
	if !again {
		at = at.Add(router.GitHubFixWait) // it must not be due before it is recorded that it is given up
	}
	why := router.CauseGitHub
	fix, ok := errors.AsType[*router.FixError](cause)
	switch {
	case ok:
		why = router.CauseGitHubRefused
	case errors.As(cause, new(*unrecordedError)):
		why = router.CauseRunner
	}
	if _, err := h.Store.Lost(ctx, router.Runner{ID: c.Runner.ID}, at, why, cause.Error(), h.Now()); err != nil {
		// Recover does at the next start.
		log.Throttled(slog.LevelError, "", "cannot record a lost runner", "store_err", err)
		return "the router cannot record the claim now"
	}
	if errors.Is(cause, router.ErrRunnerLimit) {
		h.Strays.Crowded(c.Runner.Target)
	}
	if !again {
		log.Throttled(slog.LevelError, rule, "github refuses a runner: fix the rule's runner section, or the workflow's labels")
		if err := h.Store.Settle(ctx, c.Job.ID, router.Unroutable, "", "GitHub refuses the runner: "+cause.Error(), c.Job.Decision, h.Now()); err != nil {
			log.Throttled(slog.LevelError, "", "cannot record a refused job", "store_err", err)
		}
		return "GitHub refuses the runner configuration; see the router's log"
	}
	h.Metrics.Retried(why)
	if ok {
		log.Throttled(slog.LevelError, rule, "a runner gets no configuration until somebody changes what GitHub refuses", "fix", fix.Fix, "again_at", at)
	} else {
		log.Throttled(slog.LevelWarn, rule, "a runner got no configuration; its job will be retried", "again_at", at)
	}
	h.Due.Give()
	return "GitHub gives no runner configuration at the moment; the job is retried at " + at.UTC().Format(time.RFC3339)
}

// awaitKnown waits until a token is known, which known looks up, or until it is clear that it
// will not be soon.
func (h *Handler) awaitKnown(ctx context.Context, known func(context.Context) error) {
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
		if err := known(ctx); !errors.Is(err, router.ErrNotFound) || !router.Pause(ctx, patiencePoll) {
			return
		}
	}
}
