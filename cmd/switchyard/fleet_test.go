package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The command waits until the server has read Nomad's nodes, whatever it knew before.
func TestFleetWaitsForWhatIsNew(t *testing.T) {
	t.Parallel()
	answers := []string{
		`{"at":null,"reading":{"read":0,"nodes":0}}`,
		`{"at":"2026-11-01T00:00:00Z","reading":{"read":1,"nodes":2},"groups":[{"os":"plan9","nodes":1}]}`,
		`{"at":"2026-11-30T00:00:00Z","reading":null,"groups":[{"os":"linux","nodes":2}]}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, answers[0])
		answers = answers[min(1, len(answers)-1):]
	}))
	defer server.Close()
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"fleet", "--server", server.URL}, nil, &out, &errs); code != exitYes || !strings.Contains(out.String(), "linux") || strings.Contains(out.String(), "plan9") {
		t.Errorf("switchyard fleet = %d:\n%s%s", code, out.String(), errs.String())
	}
}
