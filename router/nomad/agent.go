package nomad

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/nomad/api"
)

// AgentRead is the capability that reading an agent's configuration takes, as in an ACL policy.
const AgentRead = `agent { policy = "read" }`

// dateKey is the key of a *string in a context, which gets the date of Nomad's answer.
type dateKey struct{}

// Ahead returns how far this machine's clock is before that of the agent at NOMAD_ADDR, to about
// a second. Any token will do. Errors are classified as for Start.
func (c *Client) Ahead(ctx context.Context) (time.Duration, error) {
	var date, leader string
	_, err := c.api.Raw().Query("/v1/status/leader", &leader, Scope{}.Read(context.WithValue(ctx, dateKey{}, &date)))
	now, ask := time.Now(), Call{What: "ask Nomad for its leader"}
	if err != nil {
		return 0, ask.Classify(err)
	}
	at, err := http.ParseTime(date)
	if err != nil {
		return 0, fmt.Errorf("%s: the answer has no date", ask)
	}
	return now.Sub(at), nil
}

// A ClientConfig is the part of the configuration of a node's Nomad client that runners
// depend on.
type ClientConfig struct {
	MaxKillTimeout time.Duration  // which caps the kill_timeout of tasks
	Plugins        map[string]any // the config of each plugin that has one, by name: a map, as Nomad shows HCL
}

// ClientConfig asks the agent of a node in a region, "" for the client's own, about its
// configuration, at the address that the node advertises. It needs node read and agent read. Errors are classified as for Start.
func (c *Client) ClientConfig(ctx context.Context, region, node string) (found ClientConfig, err error) {
	ask := Call{What: "read the configuration of the node's agent", Capability: AgentRead}
	n, _, err := c.api.Nodes().Info(node, Scope{Region: region}.Read(ctx))
	if err != nil {
		return found, Call{What: "read node " + node, Capability: NodeRead}.Classify(err)
	}
	// GetNodeClient of package api would ask by the connection to NOMAD_ADDR if that is a socket,
	// and so the agent there.
	agent, err := api.NewClient(c.plain.ClientConfig(cmp.Or(region, c.plain.Region, api.GlobalRegion), n.HTTPAddr, n.TLSEnabled))
	if err != nil {
		return found, fmt.Errorf("%s: %w", ask, err)
	}
	defer agent.Close()
	var self struct {
		Config struct {
			Client *struct {
				MaxKillTimeout string
			}
			Plugins []struct {
				Name   string
				Config any
			}
		} `json:"config"`
	}
	if _, err := agent.Raw().Query("/v1/agent/self", &self, Scope{}.Read(ctx)); err != nil {
		return found, ask.Classify(err)
	}
	if self.Config.Client == nil {
		return found, fmt.Errorf("%s: %w", ask, errors.New("the answer says nothing of a client"))
	}
	found = ClientConfig{MaxKillTimeout: defaultMaxKillTimeout, Plugins: map[string]any{}}
	if text := self.Config.Client.MaxKillTimeout; text != "" {
		if found.MaxKillTimeout, err = time.ParseDuration(text); err != nil {
			return found, fmt.Errorf("%s: its max_kill_timeout: %w", ask, err)
		}
	}
	for _, p := range self.Config.Plugins {
		found.Plugins[p.Name] = p.Config
	}
	return found, nil
}

// defaultMaxKillTimeout is what a client has that names none:
// https://developer.hashicorp.com/nomad/docs/configuration/client (read 2026-11-30).
const defaultMaxKillTimeout = 30 * time.Second
