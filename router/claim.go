package router

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// ClaimPath is where a starting runner fetches its configuration.
const ClaimPath = "/runner/v1/claim"

const (
	maxToken      = 256              // bytes of a bearer token
	nameTries     = 3                // names offered to GitHub for one claim
	githubFixWait = 2 * time.Minute  // on top of the back-off, when a person must act on what GitHub said
	claimTimeout  = 25 * time.Second // for one claim's talk with GitHub; under the server's write timeout
)

// claim answers GET /runner/v1/claim. The bearer token of a Nomad job's meta
// is good for one answer: 200 with a just-in-time configuration, 200 with
// nothing when the job needs no runner any more, 401 for an unknown token, 410
// for a used one, and 5xx when GitHub or the store cannot be asked, which
// fails the allocation; the job is then tried again with a new runner.
func (w *worker) claim(rw http.ResponseWriter, req *http.Request) {
	rw.Header().Set("Cache-Control", "no-store")
	token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" || len(token) > maxToken {
		http.Error(rw, "a claim needs the header Authorization: Bearer with the token of its Nomad job", http.StatusUnauthorized)
		return
	}
	// From here on the work is finished even if the client goes away: the
	// token is spent either way.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(req.Context()), claimTimeout+storeTimeout)
	defer cancel()

	c, err := w.Store.Claim(ctx, hash(Secret(token)), w.Now())
	log := w.Logger.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		http.Error(rw, "unknown claim token", http.StatusUnauthorized)
		return
	case errors.Is(err, ErrClaimed):
		http.Error(rw, "this claim token was used already", http.StatusGone)
		return
	case err != nil:
		log.Error("cannot record a claim; is the store's disk healthy?", "err", err)
		http.Error(rw, "the router cannot record the claim now", http.StatusServiceUnavailable)
		return
	case !c.Needed:
		log.Info("runner not needed any more", "state", c.Job.State)
		rw.WriteHeader(http.StatusOK)
		return
	}

	name, cfg, err := w.configure(ctx, &c)
	if err == nil {
		err = w.Store.Configured(ctx, c.Runner.ID, name, cfg.GitHubID, TargetOf(c.Job.Repo, c.Job.Decision.Runner), w.Now())
	}
	if err != nil {
		http.Error(rw, w.unconfigured(ctx, c, err), http.StatusServiceUnavailable)
		return
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err = io.WriteString(rw, string(cfg.JIT))
	if err == nil {
		err = http.NewResponseController(rw).Flush()
	}
	if err != nil { // the node went away; it may have the configuration all the same
		w.unanswered(ctx, c, err)
		return
	}
	log.Info("runner configured", "runner", name, "runner_id", cfg.GitHubID)
	if err := w.Store.Online(ctx, c.Runner.ID, w.Now()); err != nil {
		log.Error("cannot record a configured runner; is the store's disk healthy?", "err", err)
	}
}

// unanswered gives up a runner that went away while it was answered.
func (w *worker) unanswered(ctx context.Context, c Claimed, cause error) {
	log := w.Logger.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID)
	at := w.Now().Add(w.Doubt)
	log.Warn("the runner went away while it was given its configuration; the job is tried again unless it shows itself", "err", cause, "again_at", at)
	reason := "its runner went away while it was given its configuration: it is given time to show itself"
	if _, err := w.Store.Lost(ctx, c.Runner.ID, at, reason, w.Now()); err != nil {
		log.Error("cannot record a lost runner", "err", err) // Recover mends it at the next start
	}
	w.nudge()
}

// configure asks GitHub for the runner's configuration. Each request has a
// name of its own: GitHub may answer 5xx and yet keep the runner it made.
func (w *worker) configure(ctx context.Context, c *Claimed) (name string, cfg RunnerConfig, err error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	if c.Job.Decision == nil {
		// The claim overtook the record of the registration.
		if c.Job.Decision = w.held(c.Job.ID); c.Job.Decision == nil {
			d, err := w.decide(ctx, c.Job)
			if err != nil {
				return "", RunnerConfig{}, fmt.Errorf("ask GitHub what started the run: %w", err)
			}
			c.Job.Decision = &d
		}
	}
	for range nameTries {
		name = c.Runner.ID + "-" + strings.ToLower(rand.Text()[:6])
		cfg, err = w.GitHub.RunnerConfig(ctx, ConfigRequest{
			Repo: c.Job.Repo, Runner: c.Job.Decision.Runner, Name: name, Labels: c.Job.Labels,
		})
		if !errors.Is(err, ErrNameTaken) {
			break
		}
	}
	if err != nil {
		return "", RunnerConfig{}, fmt.Errorf("ask GitHub for a runner configuration: %w", err)
	}
	return name, cfg, nil
}

// unconfigured gives up a claimed runner and returns what its allocation is told.
func (w *worker) unconfigured(ctx context.Context, c Claimed, cause error) string {
	log := w.Logger.With("job_id", c.Job.ID, "nomad_job", c.Runner.ID, "err", cause)
	at, again := w.backoff().Retry(cause, c.Job.Failures)
	if !again {
		at = w.Now()
	}
	var fix *FixError
	if errors.As(cause, &fix) {
		at = at.Add(githubFixWait) // each attempt costs a Nomad job
	}
	if _, err := w.Store.Lost(ctx, c.Runner.ID, at, cause.Error(), w.Now()); err != nil {
		// Recover mends it at the next start.
		log.Error("cannot record a lost runner", "store_err", err)
		return "the router cannot record the claim now"
	}
	if !again {
		log.Error("GitHub refuses the runner: mend the rule's runner section, or the workflow's labels")
		if err := w.settle(ctx, c.Job.ID, Unroutable, "GitHub refuses the runner: "+cause.Error(), c.Job.Decision); err != nil {
			log.Error("cannot record a refused job", "store_err", err)
		}
		return "GitHub refuses the runner configuration; see the router's log"
	}
	if fix != nil {
		log.Error("runner configuration waits for a change of configuration", "fix", fix.Fix, "again_at", at)
	} else {
		log.Warn("no runner configuration; the job will be tried again", "again_at", at)
	}
	w.nudge()
	return "no runner configuration can be had from GitHub now; the job is tried again at " + at.UTC().Format(time.RFC3339)
}
