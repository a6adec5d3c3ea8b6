package nomad

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"switchyard/jobspecs"
	"switchyard/router"
)

// ClaimOf implements router.Nomad. It needs read-job.
func (c *Client) ClaimOf(ctx context.Context, j router.NomadJob) (claimURL string, token router.Secret, own bool, err error) {
	at := Scope(j.At)
	body, err := c.api.Raw().Response("/v1/job/"+url.PathEscape(j.ID), at.Read(ctx))
	if Status(err) == http.StatusNotFound {
		return "", "", false, router.ErrNotFound
	}
	if err != nil {
		return "", "", false, c.Classify(ctx, ReadJob(j.ID, at), err)
	}
	defer body.Close()
	text, err := io.ReadAll(&bounded{from: body, left: maxStub})
	var job struct { // of the whole job, only that
		Dispatched bool
		Meta       map[string]string
	}
	if err == nil {
		err = json.Unmarshal(text, &job)
	}
	if err != nil {
		return "", "", false, fmt.Errorf("%s: read Nomad's answer: %w", ReadJob(j.ID, at), err)
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

// Waits implements router.Nomad.
func (c *Client) Waits(p router.Placement) (jobspec string, ok bool) {
	spec, known := c.jobspecs.Load().Get(p.Jobspec)
	return spec.Hash, known && spec.Waits && p.Dispatch == "" && !p.Runner.Verify && p.Debug.Keep == ""
}
