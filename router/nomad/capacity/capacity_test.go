package capacity

import (
	"io"
	"net/http"
	"testing"

	"github.com/hashicorp/nomad/api"

	"switchyard/jobspecs"
	"switchyard/router/nomad"
)

// newClient makes a client with the jobspecs of package nomad's tests.
func newClient(t testing.TB, config *api.Config) *Client {
	t.Helper()
	set, err := jobspecs.Load("../testdata/jobspecs")
	if err != nil {
		t.Fatal(err)
	}
	c, err := nomad.New(nomad.Config{Jobspecs: set, API: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.API().Close) // an agent takes no more than 100 connections from one address
	return New(c)
}

// An answer is what a stand-in for Nomad says.
type answer struct {
	status int
	body   string
}

// answers maps "METHOD /path" to an answer; anything else is answered by "", or with 404.
type answers map[string]answer

func (a answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	said, ok := a[r.Method+" "+r.URL.Path]
	if !ok {
		said = a[""]
	}
	if said.status == 0 {
		said.status = http.StatusNotFound
	}
	w.WriteHeader(said.status)
	_, _ = io.WriteString(w, said.body)
}
