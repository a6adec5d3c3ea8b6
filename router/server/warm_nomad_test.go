package server_test

import (
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/nomadsim/nomadtest"
	"switchyard/router/routertest"
	"switchyard/router/testnet"
)

var (
	warmPrepare = flag.String("warm.prepare", "1", "seconds that runners of TestWarmRunnersOnNomad take to prepare themselves")
	warmJobs    = flag.Int("warm.jobs", 2, "jobs of TestWarmRunnersOnNomad, one after the other")
)

const slowJobspec = `
job "slow" {
  type        = "batch"
  datacenters = ["*"]
  group "runner" {
    task "runner" {
      driver = "raw_exec"
      config {
        command = "/bin/bash"
        args    = ["${NOMAD_TASK_DIR}/start.sh"]
      }
      artifact {
        source      = "${NOMAD_META_SWITCHYARD_CLAIM_URL}"
        destination = "secrets/runner.jit"
        mode        = "file"
        headers {
          Authorization = "Bearer ${NOMAD_META_SWITCHYARD_CLAIM_TOKEN}"
        }
      }
      template {
        destination = "local/start.sh"
        data        = <<-EOT
          warm=$NOMAD_META_SWITCHYARD_WARM
          claim=$NOMAD_SECRETS_DIR/runner.jit
          percent=%
          sleep PREPARE
          while [ "$warm" = true ] && [ ! -s "$claim" ]; do
            code=$(curl -sS -o "$claim" -w "$percent{http_code}" -H "Authorization: Bearer $NOMAD_META_SWITCHYARD_CLAIM_TOKEN" "$NOMAD_META_SWITCHYARD_CLAIM_URL?wait")
            case $code in
            200) warm= ;;
            202) ;;
            *) sleep 1 ;;
            esac
          done
          if [ -s "$claim" ]; then exec curl -sS --data-binary @"$claim" RUNNER; fi
        EOT
      }
      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
`

// On a real Nomad, jobs run on warm runners, and come online as soon as they are there. To measure that:
//
//	go test ./router/server -run WarmRunnersOnNomad -v -warm.prepare 20 -warm.jobs 10
func TestWarmRunnersOnNomad(t *testing.T) {
	addr := nomadtest.Agent(t)
	if addr == "" {
		t.Skip("no nomad on PATH and no SWITCHYARD_NOMAD_ADDR")
	}
	network, dir := &testnet.Net{Loopback: true}, t.TempDir()
	var w *routertest.World
	runner := network.Serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { // does what the runner's program does
		jit, err := io.ReadAll(r.Body)
		if err == nil {
			err = w.GitHub.Connect(r.Context(), strings.TrimSpace(string(jit)))
		}
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
		}
	}))
	must(t, os.WriteFile(filepath.Join(dir, "slow.nomad.hcl"), []byte(strings.NewReplacer("PREPARE", *warmPrepare, "RUNNER", runner+"/").Replace(slowJobspec)), 0o600))
	const rule = "rules:\n  - { name: linux, jobspec: slow"
	w = routertest.New(t, routertest.Config{
		Agent: addr, Network: network, Jobspecs: dir, Rules: machine + rule + ", warm: { idle: 1 } }\n",
		Hub: githubsim.Config{FirstID: time.Now().UnixMilli() * 100}, // a real agent may live through many runs
	})
	w.Start()
	serve := func(warm bool) (took []time.Duration) {
		for range *warmJobs {
			if warm {
				awaitWarm(w, 1)
			}
			id := w.Queue("self-hosted", "linux")
			j := w.Await(id, in(router.Completed)) // whose runner GitHub gives the job as soon as it is online
			r := w.Runners(id)[0]
			if router.IsWarm(r.NomadJob) != warm {
				t.Errorf("job %d ran on %s", id, r.NomadJob)
			}
			took = append(took, j.RunningAt.Sub(j.ReceivedAt))
		}
		slices.Sort(took)
		return took
	}
	with := serve(true)
	w.App.Reload(routertest.Parse(t, machine+rule+" }\n"), router.RulesVersion{Hash: "no warm runners"})
	eventually(t, "no warm runner is left", func() bool {
		all, err := w.Store.WarmRunners(t.Context())
		return err == nil && len(all) == 0
	})
	without := serve(false)
	if len(with) != *warmJobs || len(without) != *warmJobs {
		t.Fatalf("%d and %d runners came online, want %d each", len(with), len(without), *warmJobs)
	}
	t.Logf("from the delivery to the runner online, of %d jobs whose runners take %s s to prepare themselves: p50 %s with warm runners, %s at most; p50 %s without, %s at most",
		*warmJobs, *warmPrepare, with[len(with)/2], with[len(with)-1], without[len(without)/2], without[len(without)-1])
}
