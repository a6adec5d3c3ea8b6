package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router/nomadsim/nomadtest"
	"switchyard/router/server"
	"switchyard/router/store/postgrestest"
)

// archived returns an archive such as a release has, of a program.
func archived(t *testing.T, program string) []byte {
	t.Helper()
	body, err := os.ReadFile(program)
	must(t, err)
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	must(t, err)
	w := tar.NewWriter(z)
	for name, body := range map[string][]byte{"switchyard": body, "LICENSES": []byte("MIT")} {
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(body))}))
		_, err = w.Write(body)
		must(t, err)
	}
	must(t, errors.Join(w.Close(), z.Close()))
	return b.Bytes()
}

// The jobspec for replicas on a real Nomad, but with raw_exec, as exec needs root: the leader
// is killed while deliveries come.
func TestTheJobOfReplicasSurvivesTheLossOfOne(t *testing.T) {
	t.Parallel()
	addr := nomadtest.Agent(t)
	if addr == "" {
		t.Skip("no nomad on PATH and no SWITCHYARD_NOMAD_ADDR")
	}
	nomad, err := api.NewClient(&api.Config{Address: addr})
	must(t, err)
	database := postgrestest.NewCluster(t)
	program, err := exec.LookPath("switchyard")
	must(t, err)
	archive := archived(t, program)
	binary := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(archive) }))
	t.Cleanup(binary.Close)
	front := newBalancer(t)
	token, err := exec.Command(program, "token", "ada", "--role", "editor").Output()
	must(t, err)

	const name = "switchyard-ha"
	items := map[string]string{
		"access": "tokens:\n" + string(token), "db_password": "unused", "webhook_secret": testSecret, "github_token": "ghp_test", "rules": string(demoRules),
	}
	_, _, err = nomad.Variables().Create(&api.Variable{Path: "nomad/jobs/" + name, Items: items}, nil)
	must(t, err)
	t.Cleanup(func() { _, _ = nomad.Variables().Delete("nomad/jobs/"+name, nil) })
	hcl, err := os.ReadFile("../../jobspecs/switchyard-ha.nomad.hcl")
	must(t, err)
	text := strings.NewReplacer(`? "exec"`, `? "raw_exec"`, `user   = "nobody"`, "").Replace(string(hcl))
	text = strings.Replace(text, "      env {\n", "      env {\n        SWITCHYARD_GITHUB_URL = \"http://127.0.0.1:1\"\n", 1)
	job, err := nomad.Jobs().ParseHCLOpts(&api.JobsParseRequest{JobHCL: text, Canonicalize: true, Variables: fmt.Sprintf(
		"binary = %q\npublic_url = %q\ndb = %q\nsslmode = \"disable\"\ndistinct_hosts = false\n", binary.URL+"/switchyard_1.2.0_linux_amd64.tar.gz", front.URL, database.URL)})
	must(t, err)
	_, _, err = nomad.Jobs().Register(job, nil)
	must(t, err)
	first := time.Now().UnixMilli() * 100 // a real agent may live through many runs
	const jobs = 200
	t.Cleanup(func() {
		_, _, _ = nomad.Jobs().Deregister(name, false, nil)
		nomadtest.Await(t, "the replicas have ended", func() bool { // the agent leaves what runs when it ends itself
			allocs, _, err := nomad.Jobs().Allocations(name, true, nil)
			return err == nil && !slices.ContainsFunc(allocs, func(a *api.AllocationListStub) bool { return a.ClientStatus == "running" })
		})
		_, _, _ = nomad.Jobs().Deregister(name, true, nil)
		for id := first; id < first+jobs; id++ {
			_, _, _ = nomad.Jobs().Deregister(fmt.Sprintf("gha-%d-1", id), true, nil)
		}
	})

	// The replicas, by their allocations, once there are two and one leads.
	type replica struct{ public, admin, alloc string }
	var leader replica
	ready := func() bool {
		found := map[string]*replica{}
		for _, service := range []string{name, name + "-admin"} {
			list, _, err := nomad.Services().Get(service, nil)
			if err != nil {
				return false
			}
			for _, s := range list {
				if found[s.AllocID] == nil {
					found[s.AllocID] = &replica{alloc: s.AllocID}
				}
				at := fmt.Sprintf("%s:%d", s.Address, s.Port)
				if service == name {
					found[s.AllocID].public = at
				} else {
					found[s.AllocID].admin = at
				}
			}
		}
		var hosts []string
		led := false
		for _, r := range found {
			resp, err := http.Get("http://" + r.admin + "/readyz")
			if err != nil {
				continue
			}
			var said server.Readiness
			err = json.NewDecoder(resp.Body).Decode(&said)
			resp.Body.Close()
			if err != nil || len(said.Replicas) != 2 {
				continue
			}
			hosts = append(hosts, r.public)
			for _, one := range said.Replicas {
				if one.Self && one.Leads {
					leader, led = *r, true
				}
			}
		}
		front.mu.Lock()
		front.hosts = hosts
		front.mu.Unlock()
		return len(hosts) == 2 && led
	}
	nomadtest.Await(t, "two replicas, of which one leads", ready)

	// A delivery that is not answered 202, as the replica that it went to was killed, is sent
	// again, as GitHub's are.
	var sending sync.WaitGroup
	killed := make(chan struct{})
	ids := make(chan int64)
	for range 4 {
		sending.Go(func() {
			for id := range ids {
				body := payload(id, "self-hosted", "linux", "x64")
				for send(t.Context(), http.DefaultClient, front.URL+"/webhooks/github", fmt.Sprint(id), body) != http.StatusAccepted {
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}
	for id := first; id < first+jobs; id++ {
		ids <- id
		if id == first+jobs/2 {
			go func() {
				defer close(killed)
				alloc, _, err := nomad.Allocations().Info(leader.alloc, nil)
				if err == nil {
					err = nomad.Allocations().Signal(alloc, nil, "switchyard", "SIGKILL")
				}
				if err != nil {
					t.Error(err)
				}
			}()
		}
	}
	close(ids)
	sending.Wait()
	<-killed
	nomadtest.Await(t, "each job has its runner", func() bool {
		list, _, err := nomad.Jobs().PrefixList("gha-")
		must(t, err)
		runners := map[string]int{}
		for _, j := range list {
			runners[j.ID]++
		}
		for id := first; id < first+jobs; id++ {
			if runners[fmt.Sprintf("gha-%d-1", id)] != 1 {
				return false
			}
		}
		return true
	})
	nomadtest.Await(t, "Nomad has started the replica again", ready)
}
