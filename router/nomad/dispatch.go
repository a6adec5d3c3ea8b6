package nomad

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
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
	started := router.Started{NomadJob: resp.DispatchedJobID, At: router.NomadAt(at), ClaimToken: r.ClaimToken}
	if resp.EvalID != "" {
		return started, nil
	}
	// Only an earlier child comes without an evaluation.
	started.Existed = true
	if _, declared := meta[metaClaimToken]; !declared {
		return started, nil // it claims nothing
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

// parent reads the job that a rule dispatches.
func (c *Client) parent(ctx context.Context, id string, at scope) (*api.Job, error) {
	read := readJob(id, at)
	job, _, err := c.api.Jobs().Info(id, at.read(ctx))
	switch {
	case status(err) == http.StatusNotFound:
		return nil, &router.FixError{
			Fix: "register the parameterized job, or correct the rule's dispatch or namespace",
			Err: &JobspecError{Err: fmt.Errorf("%s: there is none", read)},
		}
	case err != nil:
		return nil, read.sorted(err)
	}
	return job, nil
}

func readJob(id string, at scope) call {
	return call{what: "read job " + id, at: at, capability: "read-job"}
}

// dispatchMeta is our meta as far as a parameterized job declares it.
func dispatchMeta(r router.StartRequest, parent *api.Job) (map[string]string, error) {
	switch p := parent.ParameterizedJob; {
	case p == nil || parent.Dispatched:
		return nil, &router.FixError{Fix: "name a parameterized job, or use jobspec instead of dispatch", Err: errors.New("it is not parameterized")}
	case parent.Stop != nil && *parent.Stop:
		return nil, &router.FixError{Fix: "start it again", Err: errors.New("it is stopped")}
	case p.Payload == "required":
		return nil, &router.FixError{Fix: `set payload = "optional" or "forbidden" in it`, Err: errors.New("it requires a payload, and Switchyard sends none")}
	}
	ours, meta := jobMeta(r), map[string]string{}
	var missing []string
	for _, key := range parent.ParameterizedJob.MetaRequired {
		if value, ok := ours[key]; ok {
			meta[key] = value
		} else {
			missing = append(missing, key)
		}
	}
	if missing != nil {
		return nil, &router.FixError{
			Fix: "make them optional, or use the keys that Switchyard has: " + strings.Join(metaKeys(), ", "),
			Err: fmt.Errorf("it requires meta that Switchyard does not have: %s", printable(strings.Join(missing, ", "), maxWords)),
		}
	}
	for _, key := range parent.ParameterizedJob.MetaOptional {
		if value, ok := ours[key]; ok {
			meta[key] = value
		}
	}
	return meta, nil
}
