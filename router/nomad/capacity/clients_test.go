package capacity

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"

	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
	"switchyard/rules"
)

// runnersOf are rules whose runners are those of two built-in jobspecs.
const runnersOf = `version: 1
labels: { linux: {}, macos: {} }
rules:
  - { name: linux, if: has("linux"), jobspec: docker-linux }
  - { name: macos, if: has("macos"), jobspec: raw-exec-macos }
`

func parseRules(t *testing.T, text string) *rules.Set {
	t.Helper()
	set, err := rules.Parse("rules.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// saidOf returns what is said about which nodes.
func saidOf(faults []ClientFault) (list []string) {
	for _, f := range faults {
		list = append(list, fmt.Sprintf("%s of %s: %s: %s", f.Setting, strings.Join(f.Nodes, ", "), f.Says, f.Fix))
	}
	slices.Sort(list)
	return list
}

func TestTheSettingsOfClientsSuitTheirRunners(t *testing.T) {
	whole := nomadsim.AgentConfig{MaxKillTimeout: "120s", Plugins: map[string]any{
		"raw_exec": map[string]any{"enabled": true, "denied_envvars": []string{"AWS_*", "nomad_*"}},
		"docker":   map[string]any{"gc": []any{map[string]any{"image_delay": "72h"}}},
	}}
	docker := func(gc map[string]any) nomadsim.AgentConfig {
		c := whole
		c.Plugins = map[string]any{"docker": map[string]any{"gc": gc}}
		return c
	}
	const images = `: set plugin "docker" { config { gc { image_delay = "72h" } } } and restart the agent`
	for name, tt := range map[string]struct {
		agents  map[string]nomadsim.AgentConfig // by node; the others': whole
		want    []string
		unasked int
	}{
		"all is well": {},
		"the runner is killed too early": {agents: map[string]nomadsim.AgentConfig{"mac-1": {MaxKillTimeout: "45s", Plugins: whole.Plugins}},
			want: []string{`max_kill_timeout of mac-1: a runner that is stopped is killed after 45s, and jobspec raw-exec-macos gives it 1m30s to cancel its job on GitHub: set client { max_kill_timeout = "1m30s" } and restart the agent`}},
		"several say the same": {agents: map[string]nomadsim.AgentConfig{"linux-1": {Plugins: whole.Plugins}, "linux-2": {Plugins: whole.Plugins}},
			want: []string{`max_kill_timeout of linux-1, linux-2: a runner that is stopped is killed after 30s, and jobspec docker-linux gives it 1m30s to cancel its job on GitHub: set client { max_kill_timeout = "1m30s" } and restart the agent`}},
		"the agent's token is in reach": {agents: map[string]nomadsim.AgentConfig{"mac-1": {MaxKillTimeout: "120s", Plugins: map[string]any{"raw_exec": map[string]any{"denied_envvars": nil}}}},
			want: []string{`denied_envvars of mac-1: workflows that run by jobspec raw-exec-macos get the agent's environment, a NOMAD_TOKEN in it included: set plugin "raw_exec" { config { denied_envvars = ["NOMAD_TOKEN"] } } and restart the agent`}},
		"images go at once": {agents: map[string]nomadsim.AgentConfig{"linux-1": {MaxKillTimeout: "120s"}, "linux-2": docker(map[string]any{"image_delay": "10m"})},
			want: []string{
				"image_delay of linux-1: the image of jobspec docker-linux is removed 3m0s after its last runner, and the next job waits until it is pulled" + images,
				"image_delay of linux-2: the image of jobspec docker-linux is removed 10m0s after its last runner, and the next job waits until it is pulled" + images,
			}},
		"images stay":                     {agents: map[string]nomadsim.AgentConfig{"linux-1": docker(map[string]any{"image": false})}},
		"no rule uses the node":           {agents: map[string]nomadsim.AgentConfig{"windows-1": {}}},
		"agents that cannot be asked are": {agents: map[string]nomadsim.AgentConfig{"linux-1": {MaxKillTimeout: "soon"}, "mac-1": {MaxKillTimeout: "later"}}, unasked: 2},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := nomadsim.MixedFleet()
			for _, n := range nodes {
				agent, own := tt.agents[n.Name]
				if !own {
					agent = whole
				}
				server := httptest.NewServer(nomadsim.Agent(agent))
				t.Cleanup(server.Close)
				n.HTTPAddr = strings.TrimPrefix(server.URL, "http://")
			}
			c := newCluster(t, nomadsim.Config{Nodes: nodes})
			faults, unasked, err := c.CheckClients(t.Context(), parseRules(t, runnersOf))
			if err != nil || len(unasked) != tt.unasked {
				t.Errorf("%v, %v", unasked, err)
			}
			if d := cmp.Diff(tt.want, saidOf(faults)); d != "" {
				t.Errorf("faults (-want +got):\n%s", d)
			}
		})
	}
}

// The clients of each region that the rules name are looked at; one that is away keeps nobody
// from being told of the others.
func TestTheClientsOfAnotherRegionAreLookedAt(t *testing.T) {
	node := func(name string) []*api.Node {
		n := nomadsim.NewNode(nomadsim.Machine{Name: name, Kernel: "darwin", Arch: "arm64", Cores: 8, MemoryMB: 16 << 10})
		agent := httptest.NewServer(nomadsim.Agent(nomadsim.AgentConfig{MaxKillTimeout: "120s"}))
		t.Cleanup(agent.Close)
		n.HTTPAddr = strings.TrimPrefix(agent.URL, "http://")
		return []*api.Node{n}
	}
	sim, tokyo := nomadsim.New(nomadsim.Config{Nodes: node("mac-1")}), nomadsim.New(nomadsim.Config{Region: "tokyo", Nodes: node("mac-2")})
	t.Cleanup(sim.Close)
	t.Cleanup(tokyo.Close)
	sim.Join(tokyo)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	c := newClient(t, &api.Config{Address: server.URL})
	rules := runnersOf + "  - { name: tokyo, if: 'has(\"tokyo\")', jobspec: raw-exec-macos, region: tokyo }\n"
	want := []string{"mac-1", "mac-2 in region tokyo"}
	faults, unasked, err := c.CheckClients(t.Context(), parseRules(t, rules))
	if err != nil || len(unasked) > 0 || len(faults) != 1 || faults[0].Setting != DeniedEnvvars || !slices.Equal(faults[0].Nodes, want) {
		t.Errorf("CheckClients = %+v, %v, %v; want those of %q", faults, unasked, err, want)
	}
	tokyo.SetFault(nomadsim.Refusing, 0)
	faults, unasked, err = c.CheckClients(t.Context(), parseRules(t, rules))
	if err != nil || len(unasked) > 0 || len(faults) != 1 || !slices.Equal(faults[0].Nodes, want[:1]) {
		t.Errorf("while tokyo is away, CheckClients = %+v, %v, %v", faults, unasked, err)
	}
}

// A job reaches Nomad by a socket, behind which is the agent of its own node alone.
func TestAnotherNodesAgentIsAskedByItsAddress(t *testing.T) {
	nodes := []*api.Node{nomadsim.NewNode(nomadsim.Machine{Name: "mac-1", Kernel: "darwin", Arch: "arm64", Cores: 8, MemoryMB: 16 << 10})}
	agent := httptest.NewServer(nomadsim.Agent(nomadsim.AgentConfig{MaxKillTimeout: "120s"}))
	t.Cleanup(agent.Close)
	nodes[0].HTTPAddr = strings.TrimPrefix(agent.URL, "http://")
	sim := nomadsim.New(nomadsim.Config{Nodes: nodes})
	t.Cleanup(sim.Close)
	dir, err := os.MkdirTemp("", "s") // the name of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "api.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Skip(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: sim}}
	server.Start()
	t.Cleanup(server.Close)
	c := newClient(t, &api.Config{Address: "unix://" + socket})
	faults, unasked, err := c.CheckClients(t.Context(), parseRules(t, runnersOf))
	if err != nil || len(unasked) > 0 || len(faults) != 1 || faults[0].Setting != DeniedEnvvars {
		t.Errorf("CheckClients = %q, %v, %v", saidOf(faults), unasked, err)
	}
}

// What a real agent says of itself is understood, and so is its refusal.
func TestTheSettingsOfARealClientAreRead(t *testing.T) {
	addr, management := nomadtest.WithACLs(t)
	if addr == "" {
		t.Skip("no nomad on PATH")
	}
	shell := strings.ReplaceAll(runnersOf, "raw-exec-macos", "shell")
	c := newClient(t, &api.Config{Address: addr, SecretID: management})
	faults, unasked, err := c.CheckClients(t.Context(), parseRules(t, shell))
	if err != nil || len(unasked) > 0 || len(faults) == 0 || !slices.ContainsFunc(faults, func(f ClientFault) bool { return f.Setting == DeniedEnvvars }) {
		t.Errorf("CheckClients = %q, %v, %v", saidOf(faults), unasked, err)
	}
	admin, err := api.NewClient(&api.Config{Address: addr, SecretID: management})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.ACLPolicies().Upsert(&api.ACLPolicy{Name: "nodes", Rules: `node { policy = "read" }`}, nil); err != nil {
		t.Fatal(err)
	}
	made, _, err := admin.ACLTokens().Create(&api.ACLToken{Name: "nodes", Type: "client", Policies: []string{"nodes"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	weak := newClient(t, &api.Config{Address: addr, SecretID: made.SecretID})
	if ahead, err := weak.Ahead(t.Context()); err != nil || ahead.Abs().Seconds() > 30 {
		t.Errorf("Ahead = %v, %v", ahead, err)
	}
	if _, err := weak.ClientConfig(t.Context(), "", nodeOf(t, admin)); err == nil || !strings.Contains(err.Error(), `agent { policy = "read" }`) {
		t.Errorf("ClientConfig without agent read: %v", err)
	}
}

func nodeOf(t *testing.T, admin *api.Client) string {
	t.Helper()
	nodes, _, err := admin.Nodes().List(nil)
	if err != nil || len(nodes) == 0 {
		t.Fatalf("%v, %v", nodes, err)
	}
	return nodes[0].ID
}

// Whoever is asked about first, each rule is told that a capability is missing.
func TestEachRuleIsToldOfAMissingCapability(t *testing.T) {
	sim := nomadsim.New(nomadsim.Config{Nodes: nomadsim.MixedFleet()})
	t.Cleanup(sim.Close)
	c := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/jobs" {
			http.Error(w, "Permission denied", http.StatusForbidden)
			return
		}
		sim.ServeHTTP(w, r)
	}))
	found, err := c.CheckRules(t.Context(), parseRules(t, runnersOf))
	if err != nil || len(found) != 2 || found[0].Code != CannotTell || found[1].Code != CannotTell {
		t.Errorf("CheckRules = %v, %v, want it for both rules", found, err)
	}
}
