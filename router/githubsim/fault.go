package githubsim

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Faults are what goes wrong with the REST API. The zero value: nothing.
type Faults struct {
	// ErrorRate is the part of the requests, from 0 to 1, that are answered 500,
	// 502 (with a page of HTML) or 503. Half of these are carried out all the
	// same: GitHub may register a runner and yet answer so.
	ErrorRate float64

	// Status, if it is not 0, is the answer instead, and none of these requests is
	// carried out: for example 401, when GitHub's authentication is down.
	Status int

	// Path, if it is not "", limits the errors to requests whose path contains it.
	Path string

	// LimitedUntil is until when every request is refused for a rate limit: a
	// secondary one with Secondary, as 403 and 429 by turns, else the primary one.
	LimitedUntil time.Time
	Secondary    bool

	// Seed chooses the requests that fail: the nth request of a method and path always
	// ends the same.
	Seed uint64
}

// SetFaults replaces the faults.
func (s *gate) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.asked = f, make(map[string]uint64)
}

// A Traffic counts requests to the REST API.
type Traffic struct {
	Requests int // in all
	Over     int // refused because of a limit of Config, which the caller did not keep
	Faults   int // failed by Faults
}

// Traffic returns the figures so far.
func (s *gate) Traffic() Traffic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.traffic
}

// A fate says how a request fails.
type fate struct {
	status int // 0: nothing is wrong
	late   bool
	until  time.Time // of LimitedUntil
}

func (s *gate) fate(r *http.Request) fate {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.traffic.Requests++
	key := r.Method + " " + r.URL.Path
	s.asked[key]++
	n := s.asked[key]
	if s.cfg.Now().Before(s.faults.LimitedUntil) {
		s.traffic.Faults++
		f := fate{status: http.StatusForbidden, until: s.faults.LimitedUntil}
		if s.faults.Secondary && n%2 == 0 {
			f.status = http.StatusTooManyRequests
		}
		return f
	}
	if s.faults.ErrorRate == 0 || !strings.Contains(r.URL.Path, s.faults.Path) {
		return fate{}
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	chance := rand.New(rand.NewPCG(s.faults.Seed, h.Sum64()+n))
	if chance.Float64() >= s.faults.ErrorRate {
		return fate{}
	}
	s.traffic.Faults++
	if s.faults.Status != 0 {
		return fate{status: s.faults.Status}
	}
	return fate{status: []int{500, 502, 503}[chance.IntN(3)], late: chance.IntN(2) == 0}
}

// faulty fails requests as Faults says.
func (s *gate) faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := s.fate(r)
		if f.status == 0 {
			next.ServeHTTP(w, r)
			return
		}
		if !f.until.IsZero() {
			s.limitedUntil(w, f)
			return
		}
		if f.late {
			next.ServeHTTP(discarded{http.Header{}}, r)
		}
		if f.status == http.StatusBadGateway {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.WriteHeader(f.status)
			_, _ = w.Write([]byte("<!DOCTYPE html><html><body><h1>Unicorn!</h1><p>This page is taking too long to load.</p></body></html>"))
			return
		}
		fault(w, f.status, http.StatusText(f.status))
	})
}

func (s *gate) limitedUntil(w http.ResponseWriter, f fate) {
	seconds := strconv.Itoa(int(f.until.Sub(s.cfg.Now()).Seconds()) + 1)
	s.mu.Lock()
	secondary := s.faults.Secondary
	s.mu.Unlock()
	if secondary {
		w.Header().Set("Retry-After", seconds)
		fault(w, f.status, secondaryWords)
		return
	}
	limit{limit: s.cfg.RateLimit, used: s.cfg.RateLimit, reset: f.until.Add(time.Second - 1)}.show(w.Header())
	fault(w, f.status, primaryWords)
}

const (
	primaryWords   = "API rate limit exceeded for installation."
	secondaryWords = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
)

// A discarded drops an answer.
type discarded struct{ header http.Header }

func (d discarded) Header() http.Header         { return d.header }
func (d discarded) Write(b []byte) (int, error) { return len(b), nil }
func (d discarded) WriteHeader(int)             {}

// A recent has what was spent recently, oldest first.
type recent []struct {
	at time.Time
	n  int
}

// spend adds n unless that is over most within span; it reports whether it did.
func (r *recent) spend(n, most int, span time.Duration, now time.Time) bool {
	over, sum := 0, 0
	for over < len(*r) && !now.Before((*r)[over].at.Add(span)) {
		over++
	}
	*r = append((*r)[:0], (*r)[over:]...)
	for _, e := range *r {
		sum += e.n
	}
	if sum+n > most {
		return false
	}
	*r = append(*r, struct {
		at time.Time
		n  int
	}{now, n})
	return true
}

// secondary refuses requests over the secondary limits of Config:
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#about-secondary-rate-limits (read 2026-11-24).
func (s *gate) secondary(pattern func(*http.Request) string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		points := 5
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			points = 1
		}
		key := fmt.Sprint(callerOf(r).account(), " ", pattern(r))
		s.mu.Lock()
		ok := s.cfg.Points == 0
		if !ok {
			s.points[key] = cmp.Or(s.points[key], &recent{})
			ok = s.points[key].spend(points, s.cfg.Points, time.Minute, s.cfg.Now())
		}
		if !ok {
			s.traffic.Over++
		}
		s.mu.Unlock()
		if !ok {
			w.Header().Set("Retry-After", "60")
			fault(w, http.StatusForbidden, secondaryWords)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// registration counts one registration of a runner in a scope; false: that is over the
// limit of five minutes. s.mu is held.
func (s *gate) registration(sc scope) bool {
	if s.cfg.Registrations == 0 {
		return true
	}
	now := s.cfg.Now()
	maps.DeleteFunc(s.registrations, func(_ scope, r *recent) bool {
		return len(*r) == 0 || !now.Before((*r)[len(*r)-1].at.Add(5*time.Minute))
	})
	key := sc.lower()
	s.registrations[key] = cmp.Or(s.registrations[key], &recent{})
	if s.registrations[key].spend(1, s.cfg.Registrations, 5*time.Minute, now) {
		return true
	}
	s.traffic.Over++
	return false
}
