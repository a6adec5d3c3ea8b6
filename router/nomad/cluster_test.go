package nomad

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
)

// known waits until a Nomad that has just started has its first key.
func known(t *testing.T, client *Client) router.NomadCluster {
	t.Helper()
	for {
		cluster, err := client.Cluster(t.Context())
		switch {
		case err != nil:
			t.Fatal(err)
		case len(cluster.Keys) > 0:
			return cluster
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestAClusterIsToldFromOthers(t *testing.T) {
	targets(t, func(t *testing.T, on target, client *Client) {
		before := known(t, client)
		text, err := json.Marshal(before)
		var read router.NomadCluster
		if err = errors.Join(err, json.Unmarshal(text, &read)); err != nil || !slices.Equal(read.Keys, before.Keys) {
			t.Errorf("%s was read as %+v, %v", text, read, err)
		}
		other := known(t, newClient(t, nomadtest.Simulated(t, nomadsim.Config{}).Config))
		if before.Same(other) || other.Same(before) {
			t.Errorf("%v and %v count as one cluster", before, other)
		}
		if _, _, err := on.Nomad.Keyring().Rotate(nil, nil); err != nil {
			t.Fatal(err)
		}
		after := known(t, newClient(t, on.Config))
		if len(after.Keys) != len(before.Keys)+1 || !before.Same(after) || !after.Same(before) || after.Same(other) {
			t.Errorf("once its keys were rotated, %v is %v", before, after)
		}
		config := *on.Config
		config.Region = "nowhere"
		if cluster, err := newClient(t, &config).Cluster(t.Context()); !errors.As(err, new(*router.FixError)) {
			t.Errorf("Cluster of an unknown region = %v, %v, want what to fix", cluster, err)
		}
	})
}

func TestAClusterIsKnownWithoutAToken(t *testing.T) {
	addr, _ := nomadtest.WithACLs(t)
	if addr == "" {
		t.Skip("no nomad on PATH")
	}
	for name, token := range map[string]string{"none": "", "an unknown one": "0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f", "no UUID": "x"} {
		if cluster := known(t, newClient(t, &api.Config{Address: addr, SecretID: token})); len(cluster.Keys) == 0 {
			t.Errorf("the cluster is not known with token %s", name)
		}
	}
}

func TestAClusterThatIsNotKnownIsAny(t *testing.T) {
	one, other := router.NomadCluster{Keys: []string{"a", "b"}}, router.NomadCluster{Keys: []string{"c"}}
	for _, c := range []struct {
		status int
		body   string
		want   []string
		fails  bool
	}{
		{status: 200, body: `{"keys":[{"kid":"b","kty":"RSA"},{"kid":"a"},{"kid":"b"}]}`, want: []string{"a", "b"}},
		{status: 200, body: `{"keys":[{"kid":""},{"kid":"a\nb"},{"kid":"` + strings.Repeat("a", 65) + `"},{}]}`},
		{status: 200, body: `{"keys":[]}`},
		{status: 200, body: `{}`},
		{status: 404}, {status: 403, body: "no"}, {status: 401}, {status: 405},
		{status: 200, body: `<html>`, fails: true},
		{status: 500, body: "No cluster leader", fails: true},
		{status: 429, fails: true},
		{status: 502, fails: true},
	} {
		client := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}))
		got, err := client.Cluster(t.Context())
		if (err != nil) != c.fails || !cmp.Equal(got.Keys, c.want) {
			t.Errorf("%d %s: Cluster = %v, %v; want %v", c.status, c.body, got, err, c.want)
		}
		if same := got.Same(one); !same || got.Same(other) != (c.want == nil) {
			t.Errorf("%d %s: %v is %v: %t, and %v: %t", c.status, c.body, got, one, same, other, got.Same(other))
		}
	}
	many := answered(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var keys []string
		for i := range 1000 {
			keys = append(keys, fmt.Sprintf(`{"kid":"%03d"}`, 999-i))
		}
		_, _ = fmt.Fprintf(w, `{"keys":[%s]}`, strings.Join(keys, ","))
	}))
	if got, err := many.Cluster(t.Context()); err != nil || len(got.Keys) != maxKeys || got.Keys[0] != "000" {
		t.Errorf("Cluster = %v, %v; want the first %d keys", got, err, maxKeys)
	}
}
