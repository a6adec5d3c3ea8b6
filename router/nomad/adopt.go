package nomad

import (
	"context"
	"net/http"

	"switchyard/router"
)

// ClaimOf implements router.Nomad. It needs read-job.
func (c *Client) ClaimOf(ctx context.Context, j router.NomadJob) (url string, token router.Secret, err error) {
	at := scope(j.At)
	job, _, err := c.api.Jobs().Info(j.ID, at.read(ctx))
	if status(err) == http.StatusNotFound {
		return "", "", router.ErrNotFound
	}
	if err != nil {
		return "", "", readJob(j.ID, at).sorted(err)
	}
	return job.Meta[metaClaimURL], router.Secret(job.Meta[metaClaimToken]), nil
}
