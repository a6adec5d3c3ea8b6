package main

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router/nomad"
	"switchyard/router/nomadsim"
)

func TestTheReleaseOfNomadIsLogged(t *testing.T) {
	for release, want := range map[string]string{
		"1.7.7":  "level=WARN",
		"1.8.0":  "level=INFO",
		"2.0.5":  "level=INFO",
		"2.1.0":  "level=WARN",
		"nobody": "did not report its release",
	} {
		t.Run(release, func(t *testing.T) {
			server := httptest.NewServer(nil)
			defer server.Close()
			if release != "nobody" {
				sim := nomadsim.New(nomadsim.Config{Release: release})
				defer sim.Close()
				server.Config.Handler = sim
			}
			cluster, err := nomad.New(nomad.Config{Jobspecs: new(jobspecs.Set), API: &api.Config{Address: server.URL}})
			must(t, err)
			var log bytes.Buffer
			logRelease(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), cluster)
			if got := log.String(); !strings.Contains(got, want) || release != "nobody" && !strings.Contains(got, "nomad="+release) {
				t.Errorf("it logs %q, want %s with %s", got, want, release)
			}
		})
	}
}
