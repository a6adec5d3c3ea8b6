package nomad

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
)

// parse returns a jobspec as a JSON job. Nomad reads HCL, once per content:
// callers that come meanwhile wait for it. A failure is not kept.
func (c *Client) parse(ctx context.Context, spec jobspecs.Jobspec, namespace string) ([]byte, error) {
	if spec.Parsed != nil {
		return spec.Parsed, nil
	}
	if parsed, ok := c.cached(spec.Hash); ok {
		return parsed, nil
	}
	release, err := c.hold.lock(ctx, spec.Hash)
	if err != nil {
		return nil, fmt.Errorf("wait for jobspec %s to be parsed: %w", spec.Path, err)
	}
	defer release()
	if parsed, ok := c.cached(spec.Hash); ok {
		return parsed, nil
	}
	at := scope{Namespace: namespace}
	var parsed json.RawMessage
	_, err = c.api.Raw().Write("/v1/jobs/parse", &api.JobsParseRequest{JobHCL: string(spec.Source)}, &parsed, at.write(ctx))
	if err != nil {
		return nil, call{what: "parse jobspec " + spec.Path, at: at, capability: "parse-job", badRequest: "mend the file"}.sorted(err)
	}
	c.log.Debug("jobspec parsed", "jobspec", spec.Name)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parsed[spec.Hash] = parsed
	return parsed, nil
}

func (c *Client) cached(hash string) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	parsed, ok := c.parsed[hash]
	return parsed, ok
}

// keyed is a lock for each key. The zero value is ready.
type keyed struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed on release
}

// lock waits for the key, or for ctx to end.
func (k *keyed) lock(ctx context.Context, key string) (release func(), err error) {
	for {
		k.mu.Lock()
		held, busy := k.held[key]
		if !busy {
			held = make(chan struct{})
			if k.held == nil {
				k.held = map[string]chan struct{}{}
			}
			k.held[key] = held
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				defer k.mu.Unlock()
				delete(k.held, key)
				close(held)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
