package nomad

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/nomadsim"
	"switchyard/router/nomadsim/nomadtest"
)

// inRegions runs a test against two federated regions, osaka, whose agent the client asks, and
// tokyo, which stop stops: of a real Nomad, if there is one, and simulated ones.
func inRegions(t *testing.T, test func(t *testing.T, on nomadtest.Target, client *Client, stop func())) {
	t.Run("real", func(t *testing.T) {
		regions := nomadtest.Regions(t, "osaka", "tokyo")
		if regions == nil {
			t.Skip("no nomad on PATH")
		}
		on := nomadtest.At(t, regions[0].Addr)
		test(t, on, newClient(t, on.Config), regions[1].Stop)
	})
	t.Run("simulated", func(t *testing.T) {
		on := nomadtest.Simulated(t, nomadsim.Config{Region: "osaka"})
		tokyo := nomadtest.Simulated(t, nomadsim.Config{Region: "tokyo"})
		on.Sim.Join(tokyo.Sim)
		test(t, on, newClient(t, on.Config), func() { tokyo.Sim.SetFault(nomadsim.Refusing, 0) })
	})
}

func TestRegions(t *testing.T) {
	inRegions(t, func(t *testing.T, on nomadtest.Target, client *Client, stop func()) {
		// What Nomad says of a region that there is not.
		for _, c := range []string{
			"GET /v1/jobs", "GET /v1/nodes", "GET /v1/namespaces", "GET /v1/job/x", "DELETE /v1/job/x", "GET /v1/job/x/allocations", "GET /v1/job/x/evaluations",
			"GET /v1/operator/scheduler/configuration",
		} {
			method, path, _ := strings.Cut(c, " ")
			req, err := http.NewRequest(method, on.Config.Address+path+"?region=kyoto", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusInternalServerError || string(body) != "No path to region" {
				t.Errorf("%s = %d %s", c, resp.StatusCode, body)
			}
		}
		if names, err := on.Nomad.Regions().List(); err != nil || !slices.Equal(names, []string{"osaka", "tokyo"}) {
			t.Errorf("regions %v, %v", names, err)
		}
		members, err := on.Nomad.Agent().Members()
		if err != nil || members.ServerRegion != "osaka" || len(members.Members) != 2 {
			t.Fatalf("members %+v, %v", members, err)
		}

		// A runner of each region, by its name; that of the agent is the client's own.
		for name, want := range map[string]string{"osaka": "", "tokyo": "tokyo"} {
			p := router.Placement{Jobspec: "plain", Region: name, Constraints: nomadtest.Unplaceable}
			r := on.Start(t, client, on.Fresh(t, p))
			if r.NomadAt != (router.NomadAt{Namespace: "default", Region: want}) {
				t.Errorf("a runner of region %s is in %+v", name, r.NomadAt)
			}
			if home, err := client.Home(t.Context(), p); err != nil || home != r.NomadAt || client.Region(p) != want {
				t.Errorf("Home of region %s = %+v, %v; Region %q", name, home, err, client.Region(p))
			}
			j, _, err := on.Nomad.Jobs().Info(r.NomadJob, &api.QueryOptions{Region: name})
			if err != nil || *j.Region != name {
				t.Errorf("its job: %+v, %v", j, err)
			}
			jobs, index, err := client.Jobs(t.Context(), want)
			if err != nil || index == 0 || !slices.ContainsFunc(jobs, func(j router.NomadJob) bool { return j.ID == r.NomadJob && j.At == r.NomadAt }) {
				t.Errorf("Jobs of region %q = %+v, %v", want, jobs, err)
			}
			if ended, err := client.Ended(t.Context(), r); ended || err != nil {
				t.Errorf("Ended = %v, %v", ended, err)
			}
			stopped := errors.New("stopped")
			err = client.Follow(t.Context(), want, index, func(e router.NomadEvent) error {
				switch {
				case e.Kind == router.NomadFollowed:
					return client.Stop(t.Context(), r)
				case e.Kind == router.NomadStopped && e.Job == r.NomadJob && e.At == r.NomadAt:
					return stopped
				}
				return nil
			})
			if err != stopped {
				t.Errorf("Follow = %v, want its stop", err)
			}
		}

		_, _, err = client.Jobs(t.Context(), "kyoto")
		var none *NoRegionError
		if !errors.As(err, new(*router.FixError)) || !errors.As(err, &none) || !slices.Equal(none.Others, []string{"osaka", "tokyo"}) {
			t.Errorf("Jobs of a region that there is not: %v", err)
		}
		stop()
		nomadtest.Await(t, "Nomad has no path to the region", func() bool { // until then, its connections fail
			_, _, err := client.Jobs(t.Context(), "tokyo")
			if err == nil || errors.As(err, new(*router.FixError)) {
				t.Fatalf("Jobs of a region that is away: %v", err)
			}
			return errors.Is(err, errAway) && strings.Contains(err.Error(), "tokyo is ")
		})
		if _, err := client.Start(t.Context(), on.Fresh(t, router.Placement{Jobspec: "plain", Region: "tokyo"})); !errors.Is(err, errAway) || errors.As(err, new(*router.FixError)) {
			t.Errorf("Start in a region that is away: %v", err)
		}
	})
}

// A stream of a region to which there is no path is 200, and stays empty.
func TestAStreamOfNoRegion(t *testing.T) {
	sim := nomadtest.Simulated(t, nomadsim.Config{})
	server := httptest.NewServer(sim.Sim)
	defer server.Close()
	resp, err := http.Get(server.URL + "/v1/event/stream?region=kyoto")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%+v, %v", resp, err)
	}
	resp.Body.Close()
}
