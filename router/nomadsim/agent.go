package nomadsim

import (
	"encoding/json"
	"net/http"

	"github.com/hashicorp/nomad/api"
)

// An AgentConfig is what a node's own agent says about its configuration.
type AgentConfig struct {
	MaxKillTimeout string         // "": 30s
	Plugins        map[string]any // the config of each plugin that has one, by name
}

// Agent returns the API of a node's own agent, which answers about its configuration alone. A
// node of a Server's has it where api.Node.HTTPAddr says.
func Agent(c AgentConfig) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/agent/self", func(w http.ResponseWriter, _ *http.Request) {
		plugins := []any{}
		for name, config := range c.Plugins {
			plugins = append(plugins, map[string]any{"Name": name, "Args": nil, "Config": config})
		}
		kill := c.MaxKillTimeout
		if kill == "" {
			kill = "30s"
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"config": map[string]any{"Region": api.GlobalRegion, "Datacenter": "dc1", "Client": map[string]any{"Enabled": true, "MaxKillTimeout": kill}, "Plugins": plugins},
			"member": map[string]any{"Name": "nomadsim." + api.GlobalRegion}, "stats": map[string]any{},
		})
	})
	return mux
}
