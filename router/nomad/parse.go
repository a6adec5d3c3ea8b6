package nomad

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
)

// parse returns a jobspec as a JSON job. Nomad parses HCL, once per content; callers
// that ask meanwhile wait for its answer. A failure is not cached.
func (c *Client) parse(ctx context.Context, spec jobspecs.Jobspec, namespace string) ([]byte, error) {
	if spec.Parsed != nil {
		return spec.Parsed, nil
	}
	cached := func() ([]byte, bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		parsed, ok := c.parsed[spec.Hash]
		return parsed, ok
	}
	if parsed, ok := cached(); ok {
		return parsed, nil
	}
	release, err := c.hold.lock(ctx, spec.Hash)
	if err != nil {
		return nil, fmt.Errorf("wait for jobspec %s to be parsed: %w", spec.Path, err)
	}
	defer release()
	if parsed, ok := cached(); ok {
		return parsed, nil
	}
	at := Scope{Namespace: namespace}
	var parsed json.RawMessage
	_, err = c.api.Raw().Write("/v1/jobs/parse", &api.JobsParseRequest{JobHCL: string(spec.Source)}, &parsed, at.Write(ctx))
	if err != nil {
		return nil, Call{What: "parse jobspec " + spec.Path, At: at, Capability: "parse-job", BadRequest: "correct the file"}.Classify(err)
	}
	c.log.Debug("jobspec parsed", "jobspec", spec.Name)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parsed[spec.Hash] = parsed
	return parsed, nil
}

// A keyed is a lock for each key. The zero value is ready.
type keyed struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed on release
}

// lock waits for the key, or until ctx ends.
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
