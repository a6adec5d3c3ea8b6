package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router/githubsim"
)

var pageTimes = flag.Bool("autoscaler.page", false, "has the autoscaler wait for as long as on the page")

// The autoscaler of router/observability/README.md, by its own files: the real Nomad Autoscaler asks a
// real Prometheus what the real program's metrics are, and adds and removes real Nomad clients, which
// a stand-in for AWS Auto Scaling starts and stops. Other than on the page, times are shorter unless
// -autoscaler.page is given, a job of gpu takes half a node, its jobspec is one of raw_exec whose runner
// is this program, and there is no GPU: nodes are told apart by their class alone.
//
//	go test ./cmd/switchyard -run TestTheAutoscalerAdds -v -timeout 1h
//
// It takes some minutes, as root, with nomad, nomad-autoscaler and prometheus on PATH.
func TestTheAutoscalerAddsAndRemovesNodes(t *testing.T) {
	for _, program := range []string{"nomad", "nomad-autoscaler", "prometheus"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not on PATH", program)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("a Nomad client needs root")
	}
	page, err := os.ReadFile("../../router/observability/README.md")
	must(t, err)
	block := func(kind, first string) string {
		m := regexp.MustCompile("(?s)```" + kind + "\n" + regexp.QuoteMeta(first) + "\n(.*?)```").FindSubmatch(page)
		if m == nil {
			t.Fatalf("the page has no %s", first)
		}
		return first + "\n" + string(m[1])
	}
	w := &autoscaled{t: t, dir: t.TempDir(), began: time.Now()}
	w.startServer()
	w.aws = newAutoScaling(w, "ci-linux", "ci-gpu")

	var github *githubsim.Server
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { github.ServeHTTP(w, r) }))
	t.Cleanup(hub.Close)
	p := newProcess(t, w.nomad.Address(), hub.URL)
	github = githubsim.New(githubsim.Config{Secret: testSecret, WebhookURL: p.url})
	t.Cleanup(github.Close)
	rules := strings.NewReplacer("    devices: [nvidia/gpu]\n", "", "cpu: 4000", "cpu: 24000").Replace(block("yaml", "version: 1"))
	must(t, os.WriteFile(p.args[2], []byte(rules), 0o600))
	self, err := exec.LookPath("switchyard")
	must(t, err)
	w.file("jobspecs/docker-linux.nomad.hcl", fmt.Sprintf(runnerOfAutoscaled, self, hub.URL))
	p.args = append(p.args, "--jobspecs", filepath.Join(w.dir, "jobspecs"))
	p.start()

	queue := func(after time.Duration, labels ...string) int64 {
		return github.Queue(t.Context(), githubsim.JobSpec{Owner: "acme", Repo: "web", Private: true, Labels: labels, Duration: after})
	}
	status := func(id int64) string {
		j, _ := github.Job(id)
		return j.Status
	}
	var short []int64
	long := queue(24*time.Hour, "self-hosted", "linux", "gpu")
	for range 3 {
		short = append(short, queue(time.Second, "self-hosted", "linux", "gpu"))
	}
	w.await("four jobs of gpu wait, of which two fit on a node, and there is no node", func() bool {
		resp, err := http.Get(p.admin + "/metrics")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return err == nil && strings.Contains(string(text), `switchyard_demand_runners{node_class="gpu",node_pool="ci",region="",state="no_node_fits"} 4`)
	})

	prometheus := freePort(t)
	faster := strings.NewReplacer("[5m:15s]", "[1m:5s]", "15s", "5s")
	if *pageTimes {
		faster = strings.NewReplacer()
	}
	w.file("prometheus.yml", strings.NewReplacer("rule_files: [switchyard.rules.yml]\n", "", "127.0.0.1:8081", strings.TrimPrefix(p.admin, "http://")).
		Replace(faster.Replace(block("yaml", "scrape_configs:"))))
	w.run("prometheus", nil, "--config.file", filepath.Join(w.dir, "prometheus.yml"), "--storage.tsdb.path", filepath.Join(w.dir, "tsdb"), "--web.listen-address", prometheus)
	_, port, _ := net.SplitHostPort(freePort(t))
	w.file("autoscaler.hcl", strings.NewReplacer("8082", port, "127.0.0.1:9090", prometheus).Replace(block("hcl", "# autoscaler.hcl")))
	w.file("policies/ci.hcl", faster.Replace(block("hcl", "# policies/ci.hcl")))
	w.run("nomad-autoscaler", []string{
		"NOMAD_ADDR=" + w.nomad.Address(), "AWS_ENDPOINT_URL=" + w.aws.url, "AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=key", "AWS_EC2_METADATA_DISABLED=true",
	}, "agent", "-config", "autoscaler.hcl", "-log-level", "DEBUG")

	w.await("ci-gpu has two nodes", func() bool { return w.aws.desired("ci-gpu") == 2 })
	w.await("the long job runs, and the others have ended", func() bool {
		return status(long) == "in_progress" && !slices.ContainsFunc(short, func(id int64) bool { return status(id) != "completed" })
	})
	if n := w.aws.desired("ci-linux"); n != 0 {
		t.Errorf("ci-linux has %d nodes, though no job asked for one", n)
	}
	plain := queue(time.Second, "self-hosted", "linux")
	w.await("ci-linux has a node", func() bool { return w.aws.desired("ci-linux") == 1 })
	w.await("its job has ended", func() bool { return status(plain) == "completed" })
	w.await("the idle node of ci-gpu is removed", func() bool { return w.aws.desired("ci-gpu") == 1 && w.nodes("gpu") == 1 })
	w.await("the node of ci-linux is removed", func() bool { return w.aws.desired("ci-linux") == 0 && w.nodes("linux") == 0 })
	if got := status(long); got != "in_progress" {
		t.Fatalf("the long job is %s while nodes are removed", got)
	}
	list, _, err := w.nomad.Nodes().List(nil)
	must(t, err)
	for _, n := range list {
		if n.SchedulingEligibility != api.NodeSchedulingEligible || n.Drain {
			t.Errorf("the busy node %s of %s is drained", n.Name, n.NodeClass)
		}
	}
	w.say("the long job runs on the node that is left")
	must(t, github.Finish(long, "success"))
	w.await("the last node of ci-gpu is removed", func() bool { return w.aws.desired("ci-gpu") == 0 && w.nodes("gpu") == 0 })
	again := queue(time.Second, "self-hosted", "linux", "gpu")
	w.await("another job of gpu, from no node, has ended", func() bool { return status(again) == "completed" })
	for _, id := range append(short, long, plain, again) {
		if j, _ := github.Job(id); j.Conclusion != "success" {
			t.Errorf("job %d has the conclusion %q", id, j.Conclusion)
		}
	}
	p.stop()
}

// runnerOfAutoscaled is a jobspec whose runner is the program, given it and the simulated GitHub.
const runnerOfAutoscaled = `
job "runner" {
  type        = "batch"
  datacenters = ["*"]
  group "runner" {
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    task "runner" {
      driver = "raw_exec"
      config {
        command = %q
        args    = ["demo", "runner", %q, "${NOMAD_SECRETS_DIR}/runner.jit"]
      }
      artifact {
        source      = "${NOMAD_META_SWITCHYARD_CLAIM_URL}"
        destination = "secrets/runner.jit"
        mode        = "file"
        headers {
          Authorization = "Bearer ${NOMAD_META_SWITCHYARD_CLAIM_TOKEN}"
        }
      }
    }
  }
}
`

// An autoscaled is a Nomad whose clients come and go.
type autoscaled struct {
	t     *testing.T
	dir   string
	began time.Time
	rpc   string // address of the server, for clients
	nomad *api.Client
	aws   *autoScaling
}

func (w *autoscaled) say(what string, args ...any) {
	w.t.Logf("%4.0f s  %s", time.Since(w.began).Seconds(), fmt.Sprintf(what, args...))
}

// await waits for what must happen, however slow the machine is.
func (w *autoscaled) await(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(15 * time.Minute); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			for _, log := range []string{"nomad-autoscaler", "prometheus", "server"} {
				text, _ := os.ReadFile(filepath.Join(w.dir, log+".log"))
				w.t.Logf("the end of the log of %s:\n%s", log, text[max(0, len(text)-8000):])
			}
			w.t.Fatalf("after %v it is not so that %s", time.Since(w.began), what)
		}
	}
	w.say("%s", what)
}

func (w *autoscaled) file(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	must(w.t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(w.t, os.WriteFile(path, []byte(text), 0o600))
}

// run starts a program, which ends with the test.
func (w *autoscaled) run(program string, env []string, args ...string) {
	w.t.Helper()
	w.t.Cleanup(w.start(program, program, env, args...))
}

// start starts a program and returns what ends it, at once.
func (w *autoscaled) start(name, program string, env []string, args ...string) (end func()) {
	log, err := os.OpenFile(filepath.Join(w.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Errorf("start %s: %v", name, err)
		return func() {}
	}
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = w.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "NOMAD_") || strings.HasPrefix(v, "AWS_") }), env...)
	if err := cmd.Start(); err != nil {
		w.t.Errorf("start %s: %v", name, err)
	}
	return func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		_ = log.Close()
	}
}

const autoscaledAgent = `
name      = %q
data_dir  = %q
bind_addr = "127.0.0.1"
ports {
  http = %s
  rpc  = %s
  serf = %s
}
advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}
%s
`

// agent writes the configuration of a Nomad agent, and returns its ports.
func (w *autoscaled) agent(name, blocks string) (ports [3]string) {
	for i := range ports {
		_, ports[i], _ = net.SplitHostPort(freePort(w.t))
	}
	w.file(name+".hcl", fmt.Sprintf(autoscaledAgent, name, filepath.Join(w.dir, name), ports[0], ports[1], ports[2], blocks))
	return ports
}

func (w *autoscaled) startServer() {
	w.t.Helper()
	ports := w.agent("server", "server {\n  enabled = true\n  bootstrap_expect = 1\n}")
	w.rpc = "127.0.0.1:" + ports[1]
	var err error
	w.nomad, err = api.NewClient(&api.Config{Address: "http://127.0.0.1:" + ports[0]})
	must(w.t, err)
	w.t.Cleanup(w.start("server", "nomad", nil, "agent", "-config", filepath.Join(w.dir, "server.hcl")))
	w.await("Nomad leads", func() bool {
		_, err := w.nomad.NodePools().Register(&api.NodePool{Name: "ci"}, nil)
		return err == nil
	})
}

// startClient starts the Nomad client of an instance, whose metadata service is one of its own, and
// returns what ends it, as if its machine were switched off.
func (w *autoscaled) startClient(instance, class string) (end func()) {
	metadata := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch what := map[string]string{"ami-id": "ami-1", "instance-id": instance, "instance-type": "g5.4xlarge"}[strings.TrimPrefix(r.URL.Path, "/latest/meta-data/")]; {
		case r.URL.Path == "/latest/api/token":
			rw.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
			fmt.Fprint(rw, "token")
		case what != "":
			fmt.Fprint(rw, what)
		default:
			http.NotFound(rw, r)
		}
	}))
	w.agent(instance, fmt.Sprintf(`client {
  enabled           = true
  servers           = [%q]
  node_pool         = "ci"
  node_class        = %q
  cpu_total_compute = 48000
  memory_total_mb   = 62000
  options = {
    "fingerprint.denylist" = "env_gce,env_azure,env_digitalocean,consul,vault,cni"
  }
}
plugin "raw_exec" {
  config {
    enabled = true
  }
}`, w.rpc, class))
	stop := w.start(instance, "nomad", []string{"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + metadata.URL}, "agent", "-config", filepath.Join(w.dir, instance+".hcl"))
	return sync.OnceFunc(func() {
		stop()
		metadata.Close()
		mounts, err := os.Open("/proc/mounts") // of the secrets of allocations
		if err != nil {
			return
		}
		defer mounts.Close()
		for lines := bufio.NewScanner(mounts); lines.Scan(); {
			if f := strings.Fields(lines.Text()); strings.HasPrefix(f[1], filepath.Join(w.dir, instance)+"/") {
				_ = syscall.Unmount(f[1], 0)
			}
		}
	})
}

// nodes returns how many nodes of a class Nomad has, up or down.
func (w *autoscaled) nodes(class string) (n int) {
	list, _, err := w.nomad.Nodes().List(nil)
	if err != nil {
		return -1
	}
	for _, node := range list {
		if node.NodeClass == class {
			n++
		}
	}
	return n
}

// busy returns the allocations that an instance's node has which have not ended.
func (w *autoscaled) busy(instance string) (allocs []string, err error) {
	list, _, err := w.nomad.Nodes().List(nil)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(list, func(n *api.NodeListStub) bool { return n.Name == instance })
	if at < 0 {
		return nil, errors.New("Nomad does not know it")
	}
	has, _, err := w.nomad.Nodes().Allocations(list[at].ID, nil)
	for _, a := range has {
		if a.ClientStatus == api.AllocClientStatusRunning || a.ClientStatus == api.AllocClientStatusPending {
			allocs = append(allocs, a.JobID)
		}
	}
	return allocs, err
}

// An autoScaling stands in for AWS Auto Scaling: it is as much of its API, version 2011-01-01, as the
// target aws-asg calls. The group ci-CLASS has instances that are clients of that node class.
type autoScaling struct {
	w   *autoscaled
	url string

	mu         sync.Mutex
	groups     map[string]*scalingGroup
	activities []scalingActivity // the newest first
	ids        int
}

type scalingGroup struct {
	desired   int
	instances map[string]func() // by ID, what ends each
}

type scalingActivity struct {
	id, group, what string
	at              time.Time
}

func newAutoScaling(w *autoscaled, groups ...string) *autoScaling {
	a := &autoScaling{w: w, groups: map[string]*scalingGroup{}}
	for _, name := range groups {
		a.groups[name] = &scalingGroup{instances: map[string]func(){}}
	}
	server := httptest.NewServer(a)
	a.url = server.URL
	w.t.Cleanup(func() {
		server.Close()
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, g := range a.groups {
			for _, end := range g.instances {
				end()
			}
		}
	})
	return a
}

func (a *autoScaling) desired(group string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.groups[group].desired
}

// ServeHTTP implements http.Handler.
func (a *autoScaling) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	action := r.PostForm.Get("Action")
	a.mu.Lock()
	defer a.mu.Unlock()
	result, err := a.do(action, r.PostForm)
	w.Header().Set("Content-Type", "text/xml")
	if err != nil {
		a.w.t.Errorf("AWS was asked for %s: %v", action, err)
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `<ErrorResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><Error><Type>Sender</Type><Code>ValidationError</Code><Message>%s</Message></Error><RequestId>1</RequestId></ErrorResponse>`, err)
		return
	}
	fmt.Fprintf(w, `<%[1]sResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></%[1]sResponse>`, action, result)
}

func (a *autoScaling) do(action string, form url.Values) (result string, err error) {
	name := form.Get("AutoScalingGroupName")
	switch action {
	case "DescribeAutoScalingGroups":
		name = form.Get("AutoScalingGroupNames.member.1")
		g := a.groups[name]
		if g == nil {
			return "<AutoScalingGroups/>", nil
		}
		var instances strings.Builder
		for id := range g.instances {
			fmt.Fprintf(&instances, "<member><InstanceId>%s</InstanceId><AvailabilityZone>eu-central-1a</AvailabilityZone><HealthStatus>Healthy</HealthStatus><LifecycleState>InService</LifecycleState><ProtectedFromScaleIn>false</ProtectedFromScaleIn></member>", id)
		}
		return fmt.Sprintf("<AutoScalingGroups><member><AutoScalingGroupName>%s</AutoScalingGroupName><AvailabilityZones><member>eu-central-1a</member></AvailabilityZones><MinSize>0</MinSize><MaxSize>20</MaxSize><DesiredCapacity>%d</DesiredCapacity><DefaultCooldown>300</DefaultCooldown><HealthCheckType>EC2</HealthCheckType><CreatedTime>2026-01-01T00:00:00Z</CreatedTime><Instances>%s</Instances><SuspendedProcesses/></member></AutoScalingGroups>",
			name, g.desired, &instances), nil
	case "DescribeScalingActivities":
		var list strings.Builder
		asked := map[string]bool{}
		for key, of := range form {
			if strings.HasPrefix(key, "ActivityIds.member.") {
				asked[of[0]] = true
			}
		}
		for _, act := range a.activities {
			if act.group == name && (len(asked) == 0 || asked[act.id]) {
				list.WriteString("<member>" + act.xml() + "</member>")
			}
		}
		return "<Activities>" + list.String() + "</Activities>", nil
	case "DescribeInstanceRefreshes":
		return "<InstanceRefreshes/>", nil
	case "CreateOrUpdateTags":
		return "", nil
	case "UpdateAutoScalingGroup":
		g := a.groups[name]
		n, err := strconv.Atoi(form.Get("DesiredCapacity"))
		if g == nil || err != nil || n < len(g.instances) {
			return "", fmt.Errorf("%v for the group %s", form, name)
		}
		a.w.say("AWS is asked for %d instances of %s", n, name)
		for g.desired = n; len(g.instances) < n; {
			a.ids++
			id := fmt.Sprintf("i-%017x", a.ids)
			g.instances[id] = a.w.startClient(id, strings.TrimPrefix(name, "ci-"))
			a.act(name, "Launching a new EC2 instance: "+id)
		}
		return "", nil
	case "TerminateInstanceInAutoScalingGroup":
		id := form.Get("InstanceId")
		for name, g := range a.groups {
			end := g.instances[id]
			if end == nil {
				continue
			}
			if runs, err := a.w.busy(id); err != nil || len(runs) > 0 {
				a.w.t.Errorf("the node of %s is to go: it runs %v (%v)", id, runs, err)
			}
			a.w.say("AWS is asked to end the instance %s of %s, whose node runs nothing", id, name)
			end()
			delete(g.instances, id)
			g.desired--
			return "<Activity>" + a.act(name, "Terminating EC2 instance: "+id).xml() + "</Activity>", nil
		}
		return "", fmt.Errorf("there is no instance %s", id)
	}
	return "", errors.New("this stand-in does not know it")
}

// act records something that a group has done.
func (a *autoScaling) act(group, what string) scalingActivity {
	a.ids++
	act := scalingActivity{fmt.Sprintf("activity-%d", a.ids), group, what, time.Now().UTC()}
	a.activities = slices.Insert(a.activities, 0, act)
	return act
}

func (a scalingActivity) xml() string {
	at := a.at.Format(time.RFC3339)
	return fmt.Sprintf("<ActivityId>%s</ActivityId><AutoScalingGroupName>%s</AutoScalingGroupName><Description>%s</Description><Cause>asked</Cause><StartTime>%s</StartTime><EndTime>%s</EndTime><StatusCode>Successful</StatusCode><Progress>100</Progress>",
		a.id, a.group, a.what, at, at)
}
