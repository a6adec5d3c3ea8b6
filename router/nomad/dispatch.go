package nomad

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
)

// dispatch runs an existing parameterized job as it is, with the meta keys of ours that
// it declares.
func (c *Client) dispatch(ctx context.Context, r router.StartRequest) (router.Started, error) {
	id, at := r.Placement.Dispatch, c.parentAt(ctx, r.Placement)
	release, err := c.hold.lock(ctx, r.Runner.ID)
	if err != nil {
		return router.Started{}, fmt.Errorf("wait for an earlier dispatch of %s: %w", r.Runner.ID, err)
	}
	defer release()

	_, meta, err := c.Parent(ctx, r)
	if err != nil {
		return router.Started{}, err
	}
	write := at.Write(ctx)
	write.IdempotencyToken = r.Runner.ID
	resp, _, err := c.api.Jobs().DispatchOpts(&api.DispatchOptions{JobID: id, Meta: meta, IdPrefixTemplate: r.Runner.ID}, write)
	if err != nil {
		return router.Started{}, c.Classify(ctx, dispatchJob(id, at), err)
	}
	first, err := c.firstChild(ctx, id+"/dispatch-"+r.Runner.ID+"-", resp.DispatchedJobID, at)
	if err != nil {
		return router.Started{}, err
	}
	// Only an earlier child comes without an evaluation.
	started := router.Started{NomadJob: first, At: router.NomadAt(at), ClaimToken: r.ClaimToken, Existed: resp.EvalID == "" || first != resp.DispatchedJobID}
	if _, declared := meta[MetaClaimToken]; !declared || !started.Existed {
		return started, nil // it does not claim, or claims with the token that it was given
	}
	child, _, err := c.api.Jobs().Info(started.NomadJob, at.Read(ctx))
	if err != nil {
		return router.Started{}, c.Classify(ctx, ReadJob(started.NomadJob, at), err)
	}
	if token := child.Meta[MetaClaimToken]; token != "" {
		started.ClaimToken = router.Secret(token)
	}
	return started, nil
}

// firstChild returns the oldest child of a runner, of those whose IDs begin with prefix,
// and stops the others; made is the one of the last answer. Before 1.11.2 each of several
// overlapping dispatches creates a child; since then one does, and the others get IDs of
// children that do not exist (nomad/job_endpoint.go and fsm.go, 1.8.0 to 2.0.5, read
// 2026-11-29). Each dispatch lists the children after creating its own, so all agree.
func (c *Client) firstChild(ctx context.Context, prefix, made string, at Scope) (string, error) {
	read := at.Read(ctx)
	read.Prefix = prefix
	children, _, err := c.api.Jobs().List(read)
	if err != nil {
		return "", c.Classify(ctx, Call{What: "list the children " + prefix + "…", At: at, Capability: "list-jobs"}, err)
	}
	if len(children) == 0 { // already gone
		return made, nil
	}
	first := slices.MinFunc(children, func(a, b *api.JobListStub) int { return cmp.Compare(a.CreateIndex, b.CreateIndex) })
	for _, child := range children {
		if child == first || child.Stop || child.Status == "dead" {
			continue
		}
		c.log.Warn("nomad accepted several dispatches of one runner, as it can before 1.11.2; all but the first are stopped", "nomad_job", child.ID, "first", first.ID)
		if _, _, err := c.api.Jobs().DeregisterOpts(child.ID, &api.DeregisterOptions{}, at.Write(ctx)); err != nil {
			return "", c.Classify(ctx, Call{What: "stop job " + child.ID, At: at, Capability: "submit-job"}, err)
		}
	}
	return first.ID, nil
}

// parentAt returns where the job is that a placement dispatches.
func (c *Client) parentAt(ctx context.Context, p router.Placement) Scope {
	return Scope{Namespace: cmp.Or(p.Namespace, c.namespace), Region: c.regionOf(ctx, p, nil)}
}

// Parent reads the job that a request dispatches, and returns the meta that a
// dispatch would give it. A job that is missing or does not fit is a JobspecError;
// errors are classified as for Start. It needs read-job.
func (c *Client) Parent(ctx context.Context, r router.StartRequest) (*api.Job, map[string]string, error) {
	id, at := r.Placement.Dispatch, c.parentAt(ctx, r.Placement)
	read := ReadJob(id, at)
	job, _, err := c.api.Jobs().Info(id, at.Read(ctx))
	switch {
	case Status(err) == http.StatusNotFound:
		return nil, nil, &router.FixError{
			Fix: "register the parameterized job, or correct the rule's dispatch or namespace",
			Err: &router.JobspecError{Err: fmt.Errorf("%s: there is none", read)},
		}
	case err != nil:
		return nil, nil, c.Classify(ctx, read, err)
	}
	meta, err := dispatchMeta(r, job)
	if err != nil {
		return nil, nil, &router.JobspecError{Err: fmt.Errorf("%s: %w", dispatchJob(id, at), err)}
	}
	return job, meta, nil
}

// JobOf returns the Nomad job that a runner is: the rendered one, or the parameterized job
// that is dispatched. Errors are classified as for Start.
func (c *Client) JobOf(ctx context.Context, r router.StartRequest) (*api.Job, error) {
	if r.Placement.Dispatch == "" {
		return c.Render(ctx, r)
	}
	job, _, err := c.Parent(ctx, r)
	return job, err
}

// ReadJob returns the Call that reads a job.
func ReadJob(id string, at Scope) Call {
	return Call{What: "read job " + id, At: at, Capability: "read-job"}
}

func dispatchJob(id string, at Scope) Call {
	return Call{What: "dispatch job " + id, At: at, Capability: "dispatch-job"}
}

// dispatchMeta returns what a dispatch gives a parameterized job: what its rule says,
// and those of our keys that the job declares.
func dispatchMeta(r router.StartRequest, parent *api.Job) (map[string]string, error) {
	switch p := parent.ParameterizedJob; {
	case p == nil || parent.Dispatched:
		return nil, &router.FixError{Fix: "name a parameterized job, or use jobspec instead of dispatch", Err: errors.New("it is not parameterized")}
	case parent.Stop != nil && *parent.Stop:
		return nil, &router.FixError{Fix: "start it again", Err: errors.New("it is stopped")}
	case p.Payload == "required":
		return nil, &router.FixError{Fix: `set payload = "optional" or "forbidden" in it`, Err: errors.New("it requires a payload, and Switchyard sends none")}
	}
	required, optional := parent.ParameterizedJob.MetaRequired, parent.ParameterizedJob.MetaOptional
	given, meta := jobMeta(r), map[string]string{}
	var unknown, missing []string
	for _, key := range slices.Sorted(maps.Keys(r.Placement.DispatchMeta)) {
		given[key] = r.Placement.DispatchMeta[key] // the rule's value wins over ours
		if !slices.Contains(required, key) && !slices.Contains(optional, key) {
			unknown = append(unknown, key)
		}
	}
	if unknown != nil {
		takes := "it takes none"
		if all := slices.Sorted(slices.Values(slices.Concat(required, optional))); len(all) > 0 {
			takes = "it takes " + Printable(strings.Join(all, ", "), maxWords)
		}
		return nil, &router.FixError{
			Fix: "add them to meta_optional of the job, or correct dispatch meta in the rule",
			Err: fmt.Errorf("it does not take the meta keys that the rule gives: %s; %s", strings.Join(unknown, ", "), takes),
		}
	}
	for _, key := range slices.Concat(required, optional) {
		if value, ok := given[key]; ok {
			meta[key] = value
		} else if slices.Contains(required, key) {
			missing = append(missing, key)
		}
	}
	if missing != nil {
		return nil, &router.FixError{
			Fix: "make them optional, give them by dispatch meta in the rule, or use the keys that Switchyard has: " + strings.Join(metaKeys(), ", "),
			Err: fmt.Errorf("it requires meta that Switchyard does not have: %s", Printable(strings.Join(missing, ", "), maxWords)),
		}
	}
	return meta, nil
}
