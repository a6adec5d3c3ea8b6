package githubsim

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
)

const (
	unreachable    = "failed to connect to host"
	deliveriesKept = 72 * time.Hour // by GitHub
)

// A Delivery is a snapshot of one webhook request.
type Delivery struct {
	ID          int64  // from 1, in the order they were made
	GUID        string // X-GitHub-Delivery, the same in a redelivery
	Event       string
	Action      string
	JobID       int64
	Redelivery  bool
	DeliveredAt time.Time
	Duration    time.Duration
	StatusCode  int    // 0 while it is under way, and when nothing answered
	Status      string // "OK" for a 2xx; "" while it is under way
}

type delivery struct {
	Delivery
	job  Job // as it was when the delivery was made
	lost bool
	late time.Duration
}

// The kinds of webhooks: Config.Hook.
const (
	AppHook          = "integration"
	OrganizationHook = "organization"
	RepositoryHook   = "repository"
)

// DeliveryFaults are what may happen to a delivery; each is a share of all, from
// 0 to 1. A redelivery is sent as it should be.
type DeliveryFaults struct {
	Lost    float64       // it is not sent, and recorded as failed
	Doubled float64       // it arrives twice
	Late    float64       // it arrives after up to LateBy, and so after others of its job
	LateBy  time.Duration // 0: 1 s
	Seed    uint64        // of which ones; the same for the same jobs and actions
}

// SetDeliveryFaults says what happens to deliveries from now on.
func (s *hooks) SetDeliveryFaults(f DeliveryFaults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliveryFaults = f
}

// strike applies the faults to a new delivery, and reports whether it is sent twice. The
// seed, the job and the action decide, in whatever order they come. s.mu is held.
func (s *hooks) strike(d *delivery) (twice bool) {
	f := s.deliveryFaults
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %d %s", f.Seed, d.JobID, d.Action)
	r := rand.New(rand.NewPCG(f.Seed, h.Sum64()))
	d.lost = r.Float64() < f.Lost
	twice = r.Float64() < f.Doubled
	if r.Float64() < f.Late {
		d.late = time.Duration(r.Float64() * float64(cmp.Or(f.LateBy, time.Second)))
	}
	return twice
}

// Deliveries returns a snapshot of every delivery, oldest first.
func (s *hooks) Deliveries() []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Delivery, len(s.deliveries))
	for i, d := range s.deliveries {
		all[i] = d.Delivery
	}
	return all
}

// Redeliver sends a delivery again, with the same GUID and body, and returns
// the ID of the new one.
func (s *hooks) Redeliver(id int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.redeliverOne(id)
}

func (s *hooks) redeliverOne(id int64) (int64, error) {
	if id < 1 || id > int64(len(s.deliveries)) {
		return 0, fmt.Errorf("there is no delivery %d", id)
	}
	if s.closed {
		return 0, ErrClosed
	}
	old := s.deliveries[id-1]
	return s.record(s.jobs[old.JobID], &delivery{job: old.job, Delivery: Delivery{
		GUID: old.GUID, Event: old.Event, Action: old.Action, JobID: old.JobID, Redelivery: true,
	}}), nil
}

// ForgetDeliveries stops listing and redelivering the deliveries so far, as GitHub does
// after three days.
func (s *hooks) ForgetDeliveries() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgotten = int64(len(s.deliveries))
}

// Flush waits until no delivery is in progress or pending.
func (s *hooks) Flush(ctx context.Context) error {
	s.mu.Lock()
	if s.pending == 0 {
		s.mu.Unlock()
		return nil
	}
	if s.flushed == nil {
		s.flushed = make(chan struct{})
	}
	flushed := s.flushed
	s.mu.Unlock()
	select {
	case <-flushed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the deliveries: %w", context.Cause(ctx))
	}
}

// send delivers what just happened to the job. It does not wait. s.mu is held.
func (s *hooks) send(j *job, action string) {
	d := delivery{job: j.Job, Delivery: Delivery{
		GUID: s.guid(), Event: "workflow_job", Action: action, JobID: j.ID,
	}}
	twice := s.strike(&d)
	s.record(j, &d)
	if again := d; twice {
		s.record(j, &again)
	}
}

// record gives the delivery its ID, and queues it after the job's others. s.mu is held.
func (s *hooks) record(j *job, d *delivery) int64 {
	d.ID = int64(len(s.deliveries)) + 1
	d.DeliveredAt = s.cfg.Now()
	s.deliveries = append(s.deliveries, d)
	if s.closed {
		d.Status = unreachable
		return d.ID
	}
	s.pending++
	if d.late > 0 {
		s.wg.Add(1)
		go s.sendLate(d)
		return d.ID
	}
	j.outbox = append(j.outbox, d)
	if !j.sending {
		j.sending = true
		s.wg.Add(1)
		go s.drain(j)
	}
	return d.ID
}

// drain sends the job's deliveries one after another until none is left.
func (s *hooks) drain(j *job) {
	defer s.wg.Done()
	for {
		s.mu.Lock()
		if len(j.outbox) == 0 {
			j.sending = false
			s.mu.Unlock()
			return
		}
		d := j.outbox[0]
		j.outbox = j.outbox[1:]
		s.mu.Unlock()
		s.sendNow(d)
	}
}

// sendLate sends a delivery out of its order.
func (s *hooks) sendLate(d *delivery) {
	defer s.wg.Done()
	select {
	case <-time.After(d.late):
	case <-s.closing:
	}
	s.sendNow(d)
}

// sendNow sends a delivery and records the result, also when the Server closes and cuts
// it off.
func (s *hooks) sendNow(d *delivery) {
	s.senders <- struct{}{}
	began := time.Now()
	code, status := 0, "timed out"
	if !d.lost {
		code, status = s.post(d)
	}
	took := time.Since(began)
	<-s.senders

	s.mu.Lock()
	defer s.mu.Unlock()
	d.StatusCode, d.Status, d.Duration = code, status, took
	s.pending--
	if s.pending == 0 && s.flushed != nil {
		close(s.flushed)
		s.flushed = nil
	}
}

// post makes one request. GitHub sends it once, whatever the answer:
// https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries (read 2026-11-24).
func (s *hooks) post(d *delivery) (code int, status string) {
	ctx, cancel := s.deliveryContext()
	defer cancel()
	to := s.hook()
	req, err := NewDelivery(ctx, to.HookURL, to.Secret, d.GUID, d.Event, Payload(d.job, d.Action))
	if err != nil {
		return 0, unreachable
	}
	kind, id, target := s.hookOf(d.job)
	req.Header.Set("X-GitHub-Hook-ID", strconv.FormatInt(id, 10))
	req.Header.Set("X-GitHub-Hook-Installation-Target-ID", strconv.FormatInt(target, 10))
	req.Header.Set("X-GitHub-Hook-Installation-Target-Type", kind)
	resp, err := s.cfg.Client.Do(req)
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return 0, "timed out"
	case err != nil:
		return 0, unreachable
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	if resp.StatusCode >= http.StatusMultipleChoices || resp.StatusCode < http.StatusOK {
		return resp.StatusCode, fmt.Sprintf("Invalid HTTP Response: %d", resp.StatusCode)
	}
	return resp.StatusCode, "OK"
}

// secret returns n random bytes. s.mu is held.
func (s *state) secret(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(s.rand.Uint32())
	}
	return b
}

// guid returns a new random UUID. s.mu is held.
func (s *state) guid() string {
	a, b := s.rand.Uint64(), s.rand.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0x3fff|0x8000, b&0xffffffffffff)
}

// HookID returns the ID of an organization's webhook or, unless repo is "", of a repository's.
func HookID(owner, repo string) int64 { return number("hook", owner+"/"+repo) }

// hookOf returns the webhook that reports a job: each owner or repository has one.
func (s *hooks) hookOf(j Job) (kind string, id, target int64) {
	switch s.cfg.Hook {
	case OrganizationHook:
		return s.cfg.Hook, HookID(j.Owner, ""), number("user", j.Owner)
	case RepositoryHook:
		return s.cfg.Hook, HookID(j.Owner, j.Repo), number("repo", j.Owner+"/"+j.Repo)
	}
	return AppHook, hookID, appID
}

// hookRoutes serves the deliveries of the webhooks of the configured kind.
func (s rest) hookRoutes(api *http.ServeMux) {
	path, permission := "/app/hook/deliveries", ""
	switch s.cfg.Hook {
	case OrganizationHook:
		path, permission = "/orgs/{owner}/hooks/{hook}/deliveries", "organization_hooks"
	case RepositoryHook:
		path, permission = "/repos/{owner}/{repo}/hooks/{hook}/deliveries", "repository_hooks"
	}
	scoped := func(handle func(http.ResponseWriter, *http.Request, func(*delivery) bool)) http.HandlerFunc {
		if permission == "" {
			return func(w http.ResponseWriter, r *http.Request) {
				s.mu.Lock()
				defer s.mu.Unlock()
				handle(w, r, func(*delivery) bool { return true })
			}
		}
		return s.scoped(permission, func(w http.ResponseWriter, r *http.Request, sc scope) {
			if _, id, _ := s.hookOf(Job{JobSpec: JobSpec{Owner: sc.owner, Repo: sc.repo}}); strconv.FormatInt(id, 10) != r.PathValue("hook") {
				notFound(w)
				return
			}
			handle(w, r, func(d *delivery) bool {
				return repoKey(d.job.Owner, "") == repoKey(sc.owner, "") && (sc.repo == "" || repoKey("", d.job.Repo) == repoKey("", sc.repo))
			})
		})
	}
	api.HandleFunc("GET "+path, scoped(s.listDeliveries))
	api.HandleFunc("GET "+path+"/{id}", scoped(s.getDelivery))
	api.HandleFunc("POST "+path+"/{id}/attempts", scoped(s.redeliver))
}

// listDeliveries answers with those that are the hook's. s.mu is held, as in getDelivery and
// redeliver.
func (s rest) listDeliveries(w http.ResponseWriter, r *http.Request, of func(*delivery) bool) {
	q, size := r.URL.Query(), pageSize(r)
	// The cursor is the ID of the next delivery to list: IDs fall.
	from := int64(len(s.deliveries))
	if cursor, err := strconv.ParseInt(q.Get("cursor"), 10, 64); err == nil {
		from = min(max(cursor, 0), from)
	}
	items := make([]object, 0, size)
	for _, d := range slices.Backward(s.deliveries[:from]) {
		if !s.listed(d) || !of(d) {
			continue
		}
		if len(items) == size {
			q.Set("cursor", fmt.Sprint(d.ID))
			w.Header().Set("Link", fmt.Sprintf(`<%s%s?%s>; rel="next"`, apiURL, r.URL.Path, q.Encode()))
			break
		}
		items = append(items, deliveryObject(d))
	}
	answer(w, http.StatusOK, items)
}

// listed reports whether GitHub shows a delivery: when it has a result, and for three days.
// s.mu is held.
func (s *hooks) listed(d *delivery) bool {
	return d.Status != "" && d.ID > s.forgotten && s.cfg.Now().Sub(d.DeliveredAt) < deliveriesKept
}

func deliveryObject(d *delivery) object {
	return object{
		"id": d.ID, "guid": d.GUID, "delivered_at": stamp(d.DeliveredAt), "redelivery": d.Redelivery,
		"duration": d.Duration.Seconds(), "status": d.Status, "status_code": d.StatusCode,
		"event": d.Event, "action": d.Action, "installation_id": installation(d.job.Owner),
		"repository_id": number("repo", d.job.Owner+"/"+d.job.Repo), "throttled_at": nil,
	}
}

// getDelivery answers with what was sent. The payload is parsed JSON: its bytes, and so its
// signature, are not those of the delivery.
func (s rest) getDelivery(w http.ResponseWriter, r *http.Request, of func(*delivery) bool) {
	d := s.delivery(w, r, of)
	if d == nil {
		return
	}
	one := deliveryObject(d)
	one["url"] = s.settings.HookURL
	one["request"] = object{
		"headers": object{"X-GitHub-Delivery": d.GUID, "X-GitHub-Event": d.Event}, "payload": json.RawMessage(Payload(d.job, d.Action)),
	}
	one["response"] = object{"headers": object{}, "payload": ""}
	answer(w, http.StatusOK, one)
}

// delivery returns the delivery of a request; nil: it is not listed, and it has answered 404.
func (s rest) delivery(w http.ResponseWriter, r *http.Request, of func(*delivery) bool) *delivery {
	id := pathID(r)
	if id < 1 || id > int64(len(s.deliveries)) || !s.listed(s.deliveries[id-1]) || !of(s.deliveries[id-1]) {
		notFound(w)
		return nil
	}
	return s.deliveries[id-1]
}

func (s rest) redeliver(w http.ResponseWriter, r *http.Request, of func(*delivery) bool) {
	d := s.delivery(w, r, of)
	if d == nil {
		return
	}
	if _, err := s.redeliverOne(d.ID); err != nil {
		notFound(w)
		return
	}
	answer(w, http.StatusAccepted, object{})
}
