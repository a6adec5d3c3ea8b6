package nomad

import (
	"context"
	"net/http"
	"slices"

	"switchyard/router"
)

const (
	keysPath = "/.well-known/jwks.json"
	maxKeys  = 32 // that are compared; a cluster has two or three
	maxKeyID = 64 // characters; they are UUIDs
)

// Cluster asks Nomad which cluster it is. The answer is not known, and no error, when
// there are no keys yet, as in the first moments of a new cluster, or when they are not
// served: Nomad always does, but a proxy in front of it may not. Any other failure, such as
// Nomad having no leader, is classified as for Start. ctx needs a deadline: a client agent
// that has not registered with a server yet does not answer (2.0.5, tried 2026-11-30).
//
// Nomad serves the public keys of workload identities on every agent and asks for no token,
// whether or not an OIDC issuer is configured; the answer comes from a server of the
// region. Each region makes its own keys, whose IDs are random UUIDs, so the region's name
// would say no more. Since 1.8.3 a key stays for root_key_rotation_threshold and
// root_key_gc_threshold after it was made, 721 hours by default, and its successor is listed
// long before. Earlier releases drop a key that was replaced, and is not in use, at the next
// garbage collection, which runs every 10 minutes; so does `nomad operator root keyring
// remove`, at once. A cluster that was restored from a snapshot of another may have the
// other's keys. Nomad's own ID of a cluster is only in its servers' log and state.
//
// Read in the sources of 1.8.0 to 2.0.5, 2026-11-30: command/agent/http.go,
// command/agent/keyring_endpoint.go (JWKSRequest), nomad/keyring_endpoint.go (ListPublic),
// nomad/leader.go (initializeKeyring), nomad/core_sched.go (rootKeyGC), client/rpc.go (RPC).
func (c *Client) Cluster(ctx context.Context) (router.NomadCluster, error) {
	var found struct {
		Keys []struct {
			ID string `json:"kid"`
		} `json:"keys"`
	}
	_, err := c.api.Raw().Query(keysPath, &found, Scope{}.Read(ctx))
	switch Status(err) {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return router.NomadCluster{}, nil
	default:
		return router.NomadCluster{}, Call{What: "list the keys of Nomad's cluster"}.Classify(err)
	}
	var ids []string
	for _, key := range found.Keys {
		if key.ID != "" && Printable(key.ID, maxKeyID) == key.ID {
			ids = append(ids, key.ID)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	return router.NomadCluster{Keys: ids[:min(len(ids), maxKeys)]}, nil
}
