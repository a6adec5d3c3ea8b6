// Package nomadtest owns the Nomads that tests run against: a real agent when there is
// one, the simulator, and a stand-in with given answers.
package nomadtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// agent is the one of this test process.
var agent struct {
	once sync.Once
	addr string
	err  error
	end  func() // not called: the agent ends with this process, and not before
}

// Agent returns the address of a real Nomad agent, such as
// http://127.0.0.1:4646: the one that SWITCHYARD_NOMAD_ADDR names, or else one
// in dev mode that is started from the nomad on PATH, once for the whole test
// process, with raw_exec enabled. It returns "" when there is neither. The test
// fails when the agent does not start. Safe for concurrent use.
func Agent(t testing.TB) string {
	t.Helper()
	if addr := os.Getenv("SWITCHYARD_NOMAD_ADDR"); addr != "" {
		return addr
	}
	program, err := exec.LookPath("nomad")
	if err != nil {
		return ""
	}
	agent.once.Do(func() { agent.addr, agent.end, agent.err = start(program, config, nil) })
	if agent.err != nil {
		t.Fatalf("start the nomad on PATH: %v", agent.err)
	}
	return agent.addr
}

// WithACLs starts an agent of the test's own, whatever SWITCHYARD_NOMAD_ADDR
// says, with ACLs on, and returns its address and a management token; "" when
// there is no nomad on PATH. The agent ends with the test.
func WithACLs(t testing.TB) (addr, token string) {
	t.Helper()
	program, err := exec.LookPath("nomad")
	if err != nil {
		return "", ""
	}
	addr, end, err := start(program, config+"acl {\n  enabled = true\n}\n", &token)
	if err != nil {
		t.Fatalf("start the nomad on PATH: %v", err)
	}
	t.Cleanup(end)
	return addr, token
}

// The fingerprints that ask a cloud's metadata service, or other systems, are
// of no use here and cost seconds.
const config = `
data_dir = %q
ports {
  http = %d
  rpc  = %d
  serf = %d
}
client {
  options = {
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault,cni"
  }
}
plugin "raw_exec" {
  config {
    enabled = true
  }
}
`

// A server without clients: it takes jobs, and none is placed.
const serverConfig = `
data_dir  = %q
bind_addr = "127.0.0.1"
ports {
  http = %d
  rpc  = %d
  serf = %d
}
advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}
server {
  enabled          = true
  bootstrap_expect = 1
}
`

// regionConfig makes a region of such a server, with a client of its own.
const regionConfig = `
region = %q
client {
  enabled = true
  options = {
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault,cni"
  }
}
plugin "raw_exec" {
  config {
    enabled = true
  }
}
`

// A Server is a real Nomad server that keeps its state over restarts. It has no clients,
// unless it is a region.
type Server struct {
	Addr string

	program, dir string
	stop         func()
}

// Regions starts Servers from the nomad on PATH, which end with the test, each a region with
// a client, and federates them. It returns nil when there is none.
func Regions(t testing.TB, names ...string) (servers []*Server) {
	t.Helper()
	program, err := exec.LookPath("nomad")
	if err != nil {
		return nil
	}
	for _, name := range names {
		s := &Server{program: program, dir: t.TempDir()}
		config := fmt.Sprintf(regionConfig, name)
		if s.Addr, err = prepare(s.dir, strings.ReplaceAll(config, "%", "%%")+serverConfig); err != nil {
			t.Fatal(err)
		}
		s.Start(t)
		t.Cleanup(func() {
			s.stop()
			_ = exec.Command("sh", "-c", unmount, s.dir).Run()
		})
		servers = append(servers, s)
	}
	for _, s := range servers[1:] {
		config, err := os.ReadFile(filepath.Join(s.dir, "agent.hcl"))
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := strings.Cut(string(config), "serf = ")
		port, _, _ = strings.Cut(port, "\n")
		if body, err := ask(http.MethodPut, servers[0].Addr+"/v1/agent/join?address=127.0.0.1:"+port, nil); err != nil || !bytes.Contains(body, []byte(`"num_joined":1`)) {
			t.Fatalf("join the regions: %s, %v", body, err)
		}
	}
	return servers
}

// Stop ends the server and its client; Start starts them with the same state, and returns
// when the server leads.
func (s *Server) Stop() { s.stop() }

// StartServer starts a Server from the nomad on PATH, which ends with the test.
// It returns nil when there is none. The test fails when it does not start.
func StartServer(t testing.TB) *Server {
	t.Helper()
	program, err := exec.LookPath("nomad")
	if err != nil {
		return nil
	}
	s := &Server{program: program, dir: t.TempDir()}
	if s.Addr, err = prepare(s.dir, serverConfig); err != nil {
		t.Fatal(err)
	}
	s.Start(t)
	t.Cleanup(func() { s.stop() })
	return s
}

// Restart ends the server and starts it again with the same state. It returns
// when the server leads.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.stop()
	s.Start(t)
}

// Start does what Stop says.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	var err error
	s.stop, err = launch(s.program, s.dir, "", func() bool { // until it leads
		body, err := ask(http.MethodGet, s.Addr+"/v1/jobs", nil)
		return err == nil && bytes.HasPrefix(body, []byte("["))
	})
	if err != nil {
		t.Fatalf("start the Nomad server: %v", err)
	}
}

// watch runs the agent until its own standard input ends, which it does when
// the test process ends, however that comes about. One in dev mode leaves nothing
// behind: on Linux, an allocation that was not over leaves mounts in the directory.
const watch = `"$0" agent $2 -config "$1/agent.hcl" >>"$1/log" 2>&1 </dev/null &
agent=$!
cat >/dev/null
kill -INT $agent
wait $agent
[ -n "$2" ] || exit
awk -v dir="$1/" 'index($2, dir) == 1 { print $2 }' /proc/mounts 2>/dev/null | while read -r mount; do umount "$mount"; done 2>/dev/null
rm -rf "$1"`

// unmount removes the mounts that allocations leave in a directory.
const unmount = `awk -v dir="$0/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | while read -r mount; do umount "$mount"; done`

// start starts an agent in dev mode. With ACLs, token is where a management token goes.
func start(program, config string, token *string) (addr string, end func(), err error) {
	dir, err := os.MkdirTemp("", "nomadtest-")
	if err != nil {
		return "", nil, err
	}
	if addr, err = prepare(dir, config); err != nil {
		return "", nil, err
	}
	end, err = launch(program, dir, "-dev", func() bool {
		if token != nil && *token == "" {
			*token = bootstrap(addr)
		}
		return (token == nil || *token != "") && ready(addr, token)
	})
	return addr, end, err
}

// prepare writes an agent's configuration into a directory, and returns its address.
func prepare(dir, config string) (addr string, err error) {
	ports, err := freePorts(3)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf(config, filepath.Join(dir, "data"), ports[0], ports[1], ports[2])
	return fmt.Sprintf("http://127.0.0.1:%d", ports[0]), os.WriteFile(filepath.Join(dir, "agent.hcl"), []byte(text), 0o600)
}

// launch runs the agent of a directory and waits until ok, for 5 minutes at most. end
// ends the agent.
func launch(program, dir, mode string, ok func() bool) (end func(), err error) {
	cmd := exec.Command("sh", "-c", watch, program, dir, mode)
	cmd.Env = environment()
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	end = func() {
		_ = hold.Close()
		_ = cmd.Wait() // how it ended is in its log
	}
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if ok() {
			return end, nil
		}
	}
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	end()
	return nil, fmt.Errorf("it is not ready after 5 minutes; its log:\n%s", log)
}

// environment is ours without what would mislead an agent: it reads NOMAD_ADDR
// and the like, and dies of a broken AWS_CA_BUNDLE.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NOMAD_") || strings.HasPrefix(v, "AWS_")
	})
}

// ready reports whether the agent's own node takes jobs and has found its
// drivers.
func ready(addr string, token *string) bool {
	body, err := ask(http.MethodGet, addr+"/v1/nodes", token)
	return err == nil && bytes.Contains(body, []byte(`"Status":"ready"`)) && bytes.Contains(body, []byte(`"raw_exec":{`))
}

// bootstrap returns the first management token; "" when the agent does not give it yet.
func bootstrap(addr string) string {
	body, err := ask(http.MethodPost, addr+"/v1/acl/bootstrap", nil)
	var got struct{ SecretID string }
	if err != nil || json.Unmarshal(body, &got) != nil {
		return ""
	}
	return got.SecretID
}

func ask(method, url string, token *string) ([]byte, error) {
	client := http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return nil, err
	}
	if token != nil {
		req.Header.Set("X-Nomad-Token", *token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
