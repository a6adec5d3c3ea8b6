package githubsim

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router/testnet"
)

func TestAFailedDeliveryIsNotRepeatedUntilItIsAskedFor(t *testing.T) {
	s := newSim(t, Config{Secret: "s"})
	s.hook.answer(http.StatusServiceUnavailable)
	s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", Labels: []string{"x"}})
	s.flush()
	d := s.Deliveries()
	if len(d) != 1 || d[0].StatusCode != 503 || d[0].Status == "OK" || d[0].Redelivery || len(s.hook.received()) != 1 {
		t.Fatalf("Deliveries = %+v, want one that failed with 503", d)
	}

	s.hook.answer(0)
	id, err := s.Redeliver(d[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	s.flush()
	d = s.Deliveries()
	if len(d) != 2 || d[1].ID != id || d[1].GUID != d[0].GUID || d[1].Status != "OK" || !d[1].Redelivery {
		t.Errorf("Deliveries = %+v, want a second one that is OK with the GUID of the first", d)
	}
	got := s.hook.received()
	if !bytes.Equal(got[0].body, got[1].body) || got[0].header.Get("X-GitHub-Delivery") != got[1].header.Get("X-GitHub-Delivery") {
		t.Error("the redelivery differs from the delivery in body or GUID, want the same")
	}
	if _, err := s.Redeliver(99); err == nil {
		t.Error("Redeliver(99) = nil, want an error")
	}
}

func TestDeliveriesCanBeListedAndRepeatedOverREST(t *testing.T) {
	s := newSim(t, Config{})
	s.hook.answer(http.StatusInternalServerError)
	for range 3 {
		s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", Labels: []string{"x"}})
	}
	s.flush()
	_, answer := s.call("GET", "/app/hook/deliveries?per_page=2", "")
	if got := names(t, answer, "id"); !slices.Equal(got, []string{"3", "2"}) {
		t.Errorf("the first page = %v, want [3 2]", got)
	}
	_, answer = s.call("GET", "/app/hook/deliveries?per_page=2&cursor=1", "")
	if got := names(t, answer, "id"); !slices.Equal(got, []string{"1"}) {
		t.Errorf("the second page = %v, want [1]", got)
	}
	if status, answer := s.call("GET", "/app/hook/deliveries/2", ""); status != http.StatusOK || !strings.Contains(fmt.Sprint(answer), "payload:map[action:queued") {
		t.Errorf("a delivery = %d %v, want its payload", status, answer)
	}
	if status, _ := s.call("GET", "/app/hook/deliveries/9", ""); status != http.StatusNotFound {
		t.Errorf("an unknown delivery = %d, want 404", status)
	}
	if status, _ := s.call("POST", "/app/hook/deliveries/2/attempts", ""); status != http.StatusAccepted {
		t.Errorf("redeliver = %d, want 202", status)
	}
	if status, _ := s.call("POST", "/app/hook/deliveries/9/attempts", ""); status != http.StatusNotFound {
		t.Errorf("redeliver an unknown one = %d, want 404", status)
	}
	s.flush()
	if d := s.Deliveries(); len(d) != 4 || d[3].GUID != d[1].GUID {
		t.Errorf("Deliveries = %+v, want a fourth with the GUID of the second", d)
	}
}

func TestADeliveryThatCannotArriveSaysWhy(t *testing.T) {
	slow := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see the client go
		<-r.Context().Done()
	})
	for _, tt := range []struct {
		name, status string
		code         int
		hook         http.Handler // nil: nobody listens
	}{
		{"nobody listens", "failed to connect to host", 0, nil},
		{"no URL", "failed to connect to host", 0, nil},
		{"no answer in time", "timed out", 0, slow},
		{"a redirection", "Invalid HTTP Response: 307", 307, http.RedirectHandler("/elsewhere", http.StatusTemporaryRedirect)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var on testnet.Net
				url := "http://" + on.Free()
				if tt.hook != nil {
					url = on.Serve(t, tt.hook)
				} else if tt.name == "no URL" {
					url = ""
				}
				s := newServer(t, Config{WebhookURL: url, Client: on.Client(), Timeout: 10 * time.Second})
				s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web"})
				if err := s.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				if d := s.Deliveries()[0]; d.Status != tt.status || d.StatusCode != tt.code {
					t.Errorf("the delivery is %q %d, want %q %d", d.Status, d.StatusCode, tt.status, tt.code)
				}
			})
		})
	}
}

func TestCloseCutsOffWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var on testnet.Net
		reached := make(chan struct{}, 10)
		slow := on.Serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then does the server see the client go
			reached <- struct{}{}
			<-r.Context().Done()
		}))
		s := New(Config{WebhookURL: slow, Client: on.Client(), Timeout: time.Minute, Senders: 1})
		for range 3 {
			s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", Hosted: true, Duration: time.Hour})
		}
		<-reached
		began := time.Now()
		s.Close()
		if took := time.Since(began); took != 0 {
			t.Errorf("Close took %s, want it at once", took)
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Errorf("Flush after Close = %v, want nothing under way", err)
		}
		if id := s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web"}); id != 0 {
			t.Errorf("Queue after Close = %d, want 0", id)
		}
		for _, d := range s.Deliveries() {
			if d.Status == "OK" || d.Status == "" {
				t.Errorf("delivery %d is %q after Close, want a failure", d.ID, d.Status)
			}
		}
	})
}

func TestTheOrderOfAJobsDeliveriesIsKept(t *testing.T) {
	s := newSim(t, Config{Senders: 4})
	for i := range 20 {
		s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web", Hosted: true, Labels: []string{fmt.Sprint("l", i)}})
	}
	for len(s.Deliveries()) < 60 { // or until the tests' own deadline
		time.Sleep(time.Millisecond)
	}
	s.flush()
	last := map[string]int{}
	rank := map[string]int{"queued": 1, "in_progress": 2, "completed": 3}
	for _, r := range s.hook.received() {
		p := decode(t, r.body)
		id := fmt.Sprint(p["workflow_job"].(map[string]any)["id"])
		if now := rank[p["action"].(string)]; now != last[id]+1 {
			t.Errorf("job %s: %v came out of order", id, p["action"])
		} else {
			last[id] = now
		}
	}
	if len(last) != 20 {
		t.Errorf("%d jobs were reported, want 20", len(last))
	}
}

// BenchmarkNewDelivery is what a load test pays for one signed delivery.
func BenchmarkNewDelivery(b *testing.B) {
	job := Job{JobSpec: JobSpec{Owner: "acme", Repo: "web", Labels: []string{"self-hosted", "linux", "x64"}}}
	b.ReportAllocs()
	for b.Loop() {
		job.ID++
		if _, err := NewDelivery(b.Context(), "http://127.0.0.1/", "secret", "guid", "workflow_job", Payload(job, "queued")); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAHostedRunnerMayTakeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Config{})
		spec := JobSpec{Owner: "acme", Repo: "web", Hosted: true, HostedIn: time.Minute}
		served, cancelled := s.Queue(t.Context(), spec), s.Queue(t.Context(), spec)
		if err := s.Cancel(cancelled); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute - time.Nanosecond)
		if j, _ := s.Job(served); j.Status != "queued" {
			t.Errorf("the job is %s before its time, want queued", j.Status)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if j, _ := s.Job(served); j.Conclusion != "success" || j.RunnerName == "" {
			t.Errorf("the job ended %q on %q", j.Conclusion, j.RunnerName)
		}
		if j, _ := s.Job(cancelled); j.Conclusion != "cancelled" || j.RunnerName != "" {
			t.Errorf("the cancelled job ended %q on %q", j.Conclusion, j.RunnerName)
		}
	})
}

func TestTheDeliveriesOfAnOwnersOrARepositorysWebhook(t *testing.T) {
	for _, tt := range []struct{ kind, path string }{
		{OrganizationHook, fmt.Sprintf("/orgs/acme/hooks/%d", HookID("acme", ""))},
		{RepositoryHook, fmt.Sprintf("/repos/acme/web/hooks/%d", HookID("acme", "web"))},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			s := newSim(t, Config{Hook: tt.kind})
			s.hook.answer(http.StatusInternalServerError)
			s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web"})
			s.Queue(t.Context(), JobSpec{Owner: "beta", Repo: "web"})
			s.flush()
			_, answer := s.call("GET", tt.path+"/deliveries", "")
			if got := names(t, answer, "id"); !slices.Equal(got, []string{"1"}) {
				t.Errorf("the deliveries = %v, want [1]", got)
			}
			if got := s.hook.received()[0].header.Get("X-GitHub-Hook-Installation-Target-Type"); got != tt.kind {
				t.Errorf("the delivery came by a webhook of a %s", got)
			}
			for path, want := range map[string]int{
				tt.path + "/deliveries/1/attempts": 202, tt.path + "/deliveries/2/attempts": 404, tt.path + "9/deliveries/1/attempts": 404,
				"/app/hook/deliveries/1/attempts": 404,
			} {
				if status, _ := s.call("POST", path, ""); status != want {
					t.Errorf("POST %s = %d, want %d", path, status, want)
				}
			}
			s.flush()
		})
	}
}

func TestFaultsOfDeliveriesFollowFromTheSeed(t *testing.T) {
	story := func(seed uint64) (lost, twice int, all string) {
		s := newSim(t, Config{})
		s.SetDeliveryFaults(DeliveryFaults{Lost: 0.2, Doubled: 0.2, Late: 0.3, LateBy: 10 * time.Millisecond, Seed: seed})
		for range 200 {
			s.Queue(t.Context(), JobSpec{Owner: "acme", Repo: "web"})
		}
		s.flush()
		count := map[string]int{}
		for _, d := range s.Deliveries() {
			if d.Status != "OK" {
				lost++
			}
			count[d.GUID]++
			all += fmt.Sprint(d.JobID, d.Status, " ")
		}
		if arrived := len(s.hook.received()); arrived != len(s.Deliveries())-lost {
			t.Errorf("%d deliveries arrived of %d, of which %d are lost", arrived, len(s.Deliveries()), lost)
		}
		for _, n := range count {
			if n == 2 {
				twice++
			}
		}
		return lost, twice, all
	}
	lost, twice, first := story(1)
	if lost < 20 || lost > 80 || twice < 20 || twice > 60 {
		t.Errorf("of 200 deliveries %d are lost and %d doubled, want about 40 each", lost, twice)
	}
	if _, _, again := story(1); again != first {
		t.Error("the same seed gives other faults")
	}
	if _, _, other := story(2); other == first {
		t.Error("another seed gives the same faults")
	}
}
