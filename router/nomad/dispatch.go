package nomad

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
)

// dispatch runs an existing parameterized job as it is, giving it those of our
// meta keys that it declares.
func (c *Client) dispatch(ctx context.Context, r router.StartRequest) (router.Started, error) {
	id, at := r.Placement.Dispatch, scope{Namespace: cmp.Or(r.Placement.Namespace, c.namespace)}
	release, err := c.hold.lock(ctx, r.Runner.ID)
	if err != nil {
		return router.Started{}, fmt.Errorf("wait for an earlier dispatch of %s: %w", r.Runner.ID, err)
	}
	defer release()

	parent, err := c.parent(ctx, id, at)
	if err != nil {
		return router.Started{}, err
	}
	dispatch := call{what: "dispatch job " + id, at: at, capability: "dispatch-job"}
	meta, err := dispatchMeta(r, parent)
	if err != nil {
		return router.Started{}, fmt.Errorf("%s: %w", dispatch, err)
	}
	write := at.write(ctx)
	write.IdempotencyToken = r.Runner.ID
	resp, _, err := c.api.Jobs().DispatchOpts(&api.DispatchOptions{JobID: id, Meta: meta, IdPrefixTemplate: r.Runner.ID}, write)
	if err != nil {
		return router.Started{}, dispatch.sorted(err)
	}
	first, err := c.firstChild(ctx, id+"/dispatch-"+r.Runner.ID+"-", resp.DispatchedJobID, at)
	if err != nil {
		return router.Started{}, err
	}
	// Only an earlier child comes without an evaluation.
	started := router.Started{NomadJob: first, At: router.NomadAt(at), ClaimToken: r.ClaimToken, Existed: resp.EvalID == "" || first != resp.DispatchedJobID}
	if _, declared := meta[metaClaimToken]; !declared || !started.Existed {
		return started, nil // it claims nothing, or with what it was given
	}
	child, _, err := c.api.Jobs().Info(started.NomadJob, at.read(ctx))
	if err != nil {
		return router.Started{}, readJob(started.NomadJob, at).sorted(err)
	}
	if token := child.Meta[metaClaimToken]; token != "" {
		started.ClaimToken = router.Secret(token)
	}
	return started, nil
}

// firstChild returns which child of a runner was made first, of those whose IDs begin
// with prefix, and stops the others; made is that of the last answer. Before 1.11.2 each
// of several dispatches that overlap makes a child; since then one does, and the others are
// answered with IDs of children that are not there (nomad/job_endpoint.go and fsm.go,
// 1.8.0 to 2.0.5, read 2026-11-29). As each looks after its own is made, they agree.
func (c *Client) firstChild(ctx context.Context, prefix, made string, at scope) (string, error) {
	read := at.read(ctx)
	read.Prefix = prefix
	children, _, err := c.api.Jobs().List(read)
	if err != nil {
		return "", call{what: "list the children " + prefix + "…", at: at, capability: "list-jobs"}.sorted(err)
	}
	if len(children) == 0 { // it is gone already
		return made, nil
	}
	first := slices.MinFunc(children, func(a, b *api.JobListStub) int { return cmp.Compare(a.CreateIndex, b.CreateIndex) })
	for _, child := range children {
		if child == first || child.Stop || child.Status == "dead" {
			continue
		}
		c.log.Warn("nomad took several dispatches of a runner at once, as it may before 1.11.2; all but the first are stopped", "nomad_job", child.ID, "first", first.ID)
		if _, _, err := c.api.Jobs().DeregisterOpts(child.ID, &api.DeregisterOptions{}, at.write(ctx)); err != nil {
			return "", call{what: "stop job " + child.ID, at: at, capability: "submit-job"}.sorted(err)
		}
	}
	return first.ID, nil
}

// parent reads the job that a rule dispatches.
func (c *Client) parent(ctx context.Context, id string, at scope) (*api.Job, error) {
	read := readJob(id, at)
	job, _, err := c.api.Jobs().Info(id, at.read(ctx))
	switch {
	case status(err) == http.StatusNotFound:
		return nil, &router.FixError{
			Fix: "register the parameterized job, or correct the rule's dispatch or namespace",
			Err: &router.JobspecError{Err: fmt.Errorf("%s: there is none", read)},
		}
	case err != nil:
		return nil, read.sorted(err)
	}
	return job, nil
}

func readJob(id string, at scope) call {
	return call{what: "read job " + id, at: at, capability: "read-job"}
}

// dispatchMeta is what a parameterized job is given: what its rule says, and our
// meta as far as the job declares it.
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
	var unknown []string
	for key, value := range r.Placement.DispatchMeta {
		given[key] = value // the rule's own comes before ours
		if !slices.Contains(required, key) && !slices.Contains(optional, key) {
			unknown = append(unknown, key)
		}
	}
	if unknown != nil {
		slices.Sort(unknown)
		takes := "it takes none"
		if all := slices.Sorted(slices.Values(slices.Concat(required, optional))); len(all) > 0 {
			takes = "it takes " + printable(strings.Join(all, ", "), maxWords)
		}
		return nil, &router.FixError{
			Fix: "add them to meta_optional of the job, or correct dispatch meta in the rule",
			Err: fmt.Errorf("it does not take the meta keys that the rule gives: %s; %s", strings.Join(unknown, ", "), takes),
		}
	}
	var missing []string
	for _, key := range required {
		if value, ok := given[key]; ok {
			meta[key] = value
		} else {
			missing = append(missing, key)
		}
	}
	if missing != nil {
		return nil, &router.FixError{
			Fix: "make them optional, give them by dispatch meta in the rule, or use the keys that Switchyard has: " + strings.Join(metaKeys(), ", "),
			Err: fmt.Errorf("it requires meta that Switchyard does not have: %s", printable(strings.Join(missing, ", "), maxWords)),
		}
	}
	for _, key := range optional {
		if value, ok := given[key]; ok {
			meta[key] = value
		}
	}
	return meta, nil
}
