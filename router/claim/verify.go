package claim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"switchyard/router"
	"switchyard/rules"
)

const (
	maxQuestion = 4 << 10 // bytes of what a runner asks
	maxRepo     = 200     // bytes of the repository in it; GitHub's are shorter
	maxRefusal  = 500     // characters of a refusal
)

// A question is about the job that GitHub gave a runner, as its hook knows it.
type question struct {
	repo    string // owner/name
	runID   int64  // GitHub's own
	attempt int
}

func (q question) String() string {
	return fmt.Sprintf("%s %d %d", strings.ToLower(q.repo), q.runID, q.attempt)
}

// readQuestion reads a question from the form of a request.
func readQuestion(rw http.ResponseWriter, req *http.Request) (q question, ok bool) {
	req.Body = http.MaxBytesReader(rw, req.Body, maxQuestion)
	if err := req.ParseForm(); err != nil {
		return q, false
	}
	q.repo = req.PostForm.Get("repository")
	run, runErr := strconv.ParseInt(req.PostForm.Get("run_id"), 10, 64)
	attempt, attemptErr := strconv.Atoi(req.PostForm.Get("run_attempt"))
	q.runID, q.attempt = run, attempt
	return q, runErr == nil && attemptErr == nil && run > 0 && run <= router.MaxGitHubID && attempt > 0 && attempt < 1<<31 &&
		strings.Count(q.repo, "/") == 1 && len(q.repo) <= maxRepo && router.OneLine(q.repo) == q.repo
}

// Verify answers POST /runner/v1/verify, which a runner's hook sends before the first step of
// its job. The bearer token from its Nomad job's meta is good for one question, which may be
// repeated: 200 if the runner may serve that job; 403, and why, if not; 401 for an unknown
// token; 410 if it asked about another job before; 400 for what is no question; and 503 if
// that is not known yet.
func (h *Handler) Verify(rw http.ResponseWriter, req *http.Request) {
	rw.Header().Set("Cache-Control", "no-store")
	token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" || len(token) > maxToken {
		http.Error(rw, "a question needs the header Authorization: Bearer with the token of its Nomad job", http.StatusUnauthorized)
		return
	}
	hash := router.Secret(token).Hash()
	h.awaitKnown(req.Context(), func(ctx context.Context) error { _, err := h.Store.Verification(ctx, hash); return err })
	ctx, cancel := context.WithTimeout(req.Context(), claimTimeout)
	defer cancel()
	v, err := h.Store.Verification(ctx, hash)
	switch {
	case errors.Is(err, router.ErrNotFound): // not logged: anybody can send such a request
		http.Error(rw, "unknown token", http.StatusUnauthorized)
		return
	case err != nil:
		h.notNow(rw, v, err)
		return
	}
	q, ok := readQuestion(rw, req)
	if !ok {
		http.Error(rw, "want repository=OWNER/NAME, run_id and run_attempt", http.StatusBadRequest)
		return
	}
	if v.Asked == "" {
		refusal, err := h.mayServe(ctx, v.Runner, q)
		if err == nil {
			v, err = h.Store.Verified(ctx, hash, q.String(), refusal, h.Now())
		}
		if err != nil {
			h.notNow(rw, v, err)
			return
		}
		if v.Refusal != "" {
			h.Log.Warn("github gave a runner a job that its rule may not serve; the runner ends it", "nomad_job", v.Runner.ID, "rule", v.Runner.Rule, "repo", q.repo, "run_id", q.runID, "reason", v.Refusal)
		}
	}
	switch {
	case v.Asked != q.String():
		http.Error(rw, "this token was used for another job", http.StatusGone)
	case v.Refusal != "":
		http.Error(rw, v.Refusal, http.StatusForbidden)
	default:
		_, _ = rw.Write([]byte("this runner may serve the job\n"))
	}
}

// notNow answers that it is not known yet whether a runner may serve its job.
func (h *Handler) notNow(rw http.ResponseWriter, v router.Verification, err error) {
	text := "the router cannot say now whether this runner may serve the job"
	if unclear, ok := errors.AsType[*unclearError](err); ok {
		text = unclear.text
	} else if !errors.Is(err, context.Canceled) {
		h.Log.Throttled(slog.LevelWarn, "", "cannot say whether a runner may serve its job; it asks again", "nomad_job", v.Runner.ID, "err", err)
	}
	rw.Header().Set("Retry-After", "1")
	http.Error(rw, text, http.StatusServiceUnavailable)
}

// An unclearError says that a later delivery will tell.
type unclearError struct{ text string }

func (e *unclearError) Error() string { return e.text }

// mayServe returns why a runner must not serve the job that it asks about; "": it may. GitHub's
// deliveries say which jobs that can be: those of the run whose labels the runner has, or the
// one that GitHub calls the runner's. An error is the store's, GitHub's, or an *unclearError.
func (h *Handler) mayServe(ctx context.Context, r router.Runner, q question) (refusal string, err error) {
	own, err := h.Store.Job(ctx, r.JobID)
	if err != nil {
		return "", err
	}
	of, err := h.Store.JobsOfRun(ctx, router.FirstID(own.ID)|q.runID)
	if err != nil {
		return "", err
	}
	var could []router.Job
	for _, j := range of {
		if !strings.EqualFold(j.Repo.FullName, q.repo) || j.Attempt != q.attempt || !subset(j.Labels, own.Labels) {
			continue
		}
		if j.RunnerName != "" && j.RunnerName == r.Name {
			could = []router.Job{j}
			break
		}
		if j.RunnerName == "" {
			could = append(could, j)
		}
	}
	what := fmt.Sprintf("run %d of %s", q.runID, q.repo)
	if len(could) == 0 {
		return "", &unclearError{"Switchyard does not know a job of " + what + " for this runner"}
	}
	may := 0
	for _, j := range could {
		d := j.Decision
		if d == nil || d.Rule != r.Rule {
			decided, err := h.Decider.Decide(ctx, j)
			if err != nil {
				return "", err
			}
			d = &decided
		}
		if d.Outcome == rules.Routed && (d.Rule == r.Rule || j.Fit(d) == r.Fit) {
			may++
			continue
		}
		refusal = fmt.Sprintf("this runner of the rule %s may not serve the job %q of %s: ", r.Rule, j.Name, what)
		if d.Outcome != rules.Routed {
			refusal += fmt.Sprintf("it is %s: ", d.Outcome)
		}
		refusal = router.OneLine(router.Shorten(refusal+d.Reason, maxRefusal))
	}
	if may > 0 && may < len(could) {
		return "", &unclearError{"GitHub has not said yet which job of " + what + " this runner has"}
	}
	return refusal, nil
}

// subset reports whether all labels of a job are among a runner's.
func subset(job, runner []string) bool {
	for _, l := range job {
		if !slices.ContainsFunc(runner, func(has string) bool { return strings.EqualFold(has, l) }) {
			return false
		}
	}
	return true
}
