package nomadtest

import (
	"net/http"
	"testing"
)

func TestTheAgentAnswers(t *testing.T) {
	addr := Agent(t)
	if addr == "" {
		t.Skip("no nomad on PATH and no SWITCHYARD_NOMAD_ADDR")
	}
	resp, err := http.Get(addr + "/v1/status/leader")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("GET %s/v1/status/leader = %s", addr, resp.Status)
	}
}
