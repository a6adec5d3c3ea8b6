package githubsim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const unreachable = "failed to connect to host"

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
	job Job // as it was when the delivery was made
}

// Deliveries returns a snapshot of every delivery, oldest first.
func (s *Server) Deliveries() []Delivery {
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
func (s *Server) Redeliver(id int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
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

// Flush waits until no delivery is under way or still to be sent.
func (s *Server) Flush(ctx context.Context) error {
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
func (s *Server) send(j *job, action string) {
	s.record(j, &delivery{job: j.Job, Delivery: Delivery{
		GUID: s.guid(), Event: "workflow_job", Action: action, JobID: j.ID,
	}})
}

// record gives the delivery its ID and its place behind the job's others. s.mu is held.
func (s *Server) record(j *job, d *delivery) int64 {
	d.ID = int64(len(s.deliveries)) + 1
	d.DeliveredAt = s.cfg.Now()
	s.deliveries = append(s.deliveries, d)
	if s.closed {
		d.Status = unreachable
		return d.ID
	}
	j.outbox = append(j.outbox, d)
	s.pending++
	if !j.sending {
		j.sending = true
		s.wg.Add(1)
		go s.drain(j)
	}
	return d.ID
}

// drain sends the job's deliveries one after another until none is left.
func (s *Server) drain(j *job) {
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

		// At closing, too, each is answered: with its being cut off.
		s.senders <- struct{}{}
		began := time.Now()
		code, status := s.post(d)
		took := time.Since(began)
		<-s.senders

		s.mu.Lock()
		d.StatusCode, d.Status, d.Duration = code, status, took
		s.pending--
		if s.pending == 0 && s.flushed != nil {
			close(s.flushed)
			s.flushed = nil
		}
		s.mu.Unlock()
	}
}

// post makes one request. GitHub sends it once, whatever the answer:
// https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries (read 2026-11-24).
func (s *Server) post(d *delivery) (code int, status string) {
	ctx, cancel := s.deliveryContext()
	defer cancel()
	req, err := NewDelivery(ctx, s.cfg.WebhookURL, s.cfg.Secret, d.GUID, d.Event, Payload(d.job, d.Action))
	if err != nil {
		return 0, unreachable
	}
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

// guid returns a new random UUID. s.mu is held.
func (s *Server) guid() string {
	a, b := s.rand.Uint64(), s.rand.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0x3fff|0x8000, b&0xffffffffffff)
}
