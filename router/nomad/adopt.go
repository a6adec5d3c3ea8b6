package nomad

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"switchyard/jobspecs"
	"switchyard/router"
)

// ClaimOf implements router.Nomad. It needs read-job.
func (c *Client) ClaimOf(ctx context.Context, j router.NomadJob) (url string, token router.Secret, own bool, err error) {
	at := Scope(j.At)
	job, _, err := c.api.Jobs().Info(j.ID, at.Read(ctx))
	if Status(err) == http.StatusNotFound {
		return "", "", false, router.ErrNotFound
	}
	if err != nil {
		return "", "", false, ReadJob(j.ID, at).Classify(err)
	}
	text, err := json.Marshal(job)
	if err != nil {
		return "", "", false, fmt.Errorf("encode job %s: %w", j.ID, err)
	}
	own = job.Dispatched || job.Meta[metaRegistration] == ownRegistration || !jobspecs.Claims(text)
	return job.Meta[MetaClaimURL], router.Secret(job.Meta[MetaClaimToken]), own, nil
}

const ownRegistration = "own" // as a rule's runner: { registration: own }

// Claims implements router.Nomad. It is false for a dispatched job, which runs as it
// is: if its jobspec claims all the same, the claim shows that.
func (c *Client) Claims(p router.Placement) bool {
	if p.Dispatch != "" || p.Runner.Registration == ownRegistration {
		return false
	}
	spec, known := c.jobspecs.Load().Get(p.Jobspec)
	return !known || spec.Claims
}
