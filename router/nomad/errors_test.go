package nomad

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim/nomadtest"
)

// A Nomad that breaks connections off gives the same reason each time: the port
// of our end would make each a new line of a job's timeline.
func TestABrokenConnectionHasOneReason(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.(*net.TCPConn).SetLinger(0) // a reset
		conn.Close()
	}))
	defer server.Close()
	client := newClient(t, &api.Config{Address: server.URL})
	said := map[string]bool{}
	for range 5 {
		err := client.Stop(t.Context(), router.Runner{ID: "gha-1-1", NomadJob: "gha-1-1"})
		if err == nil {
			t.Fatal("a broken connection is no error")
		}
		said[err.Error()] = true
	}
	if len(said) != 1 || strings.Contains(join(said), "->") {
		t.Errorf("five broken connections gave %d reasons: %s", len(said), join(said))
	}
}

func join(said map[string]bool) (all string) {
	for s := range said {
		all += s + "\n"
	}
	return all
}

// The advice for a token that may list no namespace is about those that rules name, as it
// needs no others.
func TestWhatATokenForAllNamespacesNeeds(t *testing.T) {
	_, _, err := answered(t, nomadtest.Answers{"": "403 Permission denied"}).Jobs(t.Context(), "")
	const want = "set NOMAD_TOKEN to a token that has list-jobs on each namespace that rules name; it needs no other"
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("Jobs = %v, want %s", err, want)
	}
}

// A listing is a list, and nothing else is an empty one.
func TestAListingIsAList(t *testing.T) {
	for answer, want := range map[string]string{"[]": "", "{}": "begins with {", `{"a":1}`: "begins with {", "null": "begins with", `"x"`: "begins with x", "[": "unexpected EOF", "": "unexpected EOF"} {
		_, _, err := answered(t, nomadtest.Answers{"": "200 " + answer}).Jobs(t.Context(), "")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("for %s: %v, want %q", answer, err, want)
		}
	}
}
