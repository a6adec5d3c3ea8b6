package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"switchyard/router/nomadsim"
	"switchyard/router/server"
)

// db is the path of a process's database.
func (p *process) db() string {
	for i, arg := range p.args {
		if arg == "--db" {
			return p.args[i+1]
		}
	}
	p.t.Fatal("the process has no --db")
	return ""
}

// readyz asks the process until it answers with a status.
func (p *process) readyz(status int) (r server.Readiness) {
	p.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(p.admin + "/readyz")
		if err != nil {
			p.t.Fatalf("%v; the log:\n%s", err, p.log.String())
		}
		err = json.NewDecoder(resp.Body).Decode(&r)
		resp.Body.Close()
		if err == nil && resp.StatusCode == status {
			return r
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("/readyz is %d: %+v, want %d", resp.StatusCode, r, status)
		}
	}
}

func TestADatabaseThatIsRemovedOrDamagedTakesNoDelivery(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows keeps an open file from it")
	}
	sim := nomadsim.New(nomadsim.Config{})
	t.Cleanup(sim.Close)
	cluster := httptest.NewServer(sim)
	t.Cleanup(cluster.Close)
	p := newProcess(t, cluster.URL, waitsOnGitHub(t))
	deliver := func(id int64) int {
		return send(t.Context(), http.DefaultClient, p.url, "guid", payload(id, "self-hosted", "linux"))
	}

	p.start()
	if status := deliver(1); status != http.StatusAccepted {
		t.Fatalf("a delivery is answered %d", status)
	}
	must(t, os.Remove(p.db()))
	if r := p.readyz(http.StatusServiceUnavailable); !strings.Contains(r.Reason, "was removed: restart Switchyard") || strings.Contains(r.Reason, "disk") {
		t.Errorf("the reason is %q", r.Reason)
	}
	var said bytes.Buffer
	if code := run(t.Context(), []string{"ready", "--server", p.admin}, nil, &said, &said); code != exitNo || !strings.HasPrefix(said.String(), "not ready: ") {
		t.Errorf("switchyard ready = %d, %s", code, said.String())
	}
	if status := deliver(2); status != http.StatusServiceUnavailable {
		t.Errorf("a delivery is answered %d, though the database is removed", status)
	}
	p.stop()

	p.start() // with a new one
	if status := deliver(3); status != http.StatusAccepted {
		t.Errorf("a delivery is answered %d after the restart", status)
	}
	p.stop()
	b, err := os.ReadFile(p.db())
	must(t, err)
	must(t, os.WriteFile(p.db(), b[:len(b)/2], 0o600))
	for _, v := range p.env {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "NOMAD_") {
			t.Setenv(name, value)
		}
	}
	var printed bytes.Buffer
	if code := run(t.Context(), p.args, strings.NewReader(""), &printed, &printed); code != exitUnknown || !strings.Contains(printed.String(), "it is damaged (") || !strings.Contains(printed.String(), "restore a copy") {
		t.Errorf("with a damaged database serve ends with %d:\n%s", code, printed.String())
	}
}
