package telemetry

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"switchyard/router"
)

// forgiven is how long a kind of calls counts as failing that nobody made again, while
// others are answered: whoever needed it may be gone.
const forgiven = 90 * time.Second

// A Side is Nomad or GitHub, as its answers show it. It is safe for concurrent use.
type Side struct {
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec

	mu       sync.Mutex
	calls    map[string]bool // names that have a series
	failing  map[string]Failing
	answered time.Time               // the last time that any call was
	underWay map[*time.Time]struct{} // when each was made
	others   map[string]*Side        // by host, see At
}

// A Failing is a kind of calls of which the last one failed.
type Failing struct {
	Call   string
	Status int       // of the last answer: 401, 403, 429, a failure of its own, router.Unreadable or router.TimedOut; 0: it was not reached
	Since  time.Time // of the first such answer in a row
	Last   time.Time
}

func newSide(name string) *Side {
	return &Side{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "switchyard_" + name + "_requests_total", Help: `Requests, by call and by the status of the answer: "none" if there was none, "unreadable" if it made no sense.`,
		}, []string{"call", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "switchyard_" + name + "_request_duration_seconds", Help: "Time from a request until the headers of its answer, by call.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"call"}),
		calls: map[string]bool{}, failing: map[string]Failing{}, underWay: map[*time.Time]struct{}{},
	}
}

// At returns another host of the side, such as a second GitHub. Its calls are counted
// with the others, but it fails, and is silent, by itself.
func (s *Side) At(host string) *Side {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.others == nil {
		s.others = map[string]*Side{}
	}
	if s.others[host] == nil {
		s.others[host] = &Side{requests: s.requests, took: s.took, calls: map[string]bool{}, failing: map[string]Failing{}, underWay: map[*time.Time]struct{}{}}
	}
	return s.others[host]
}

// inRegion is how the name of a call ends that was made to another region of Nomad.
const (
	inRegion   = " of region "
	maxRegions = 100 // others are "other"
)

// region returns the side that is a region of Nomad, if a call is to another than the
// client's own, and the call's name without it.
func (s *Side) region(call string) (of *Side, name string) {
	name, region, ok := strings.Cut(call, inRegion)
	if !ok {
		return nil, call
	}
	s.mu.Lock()
	if s.others["region "+region] == nil && len(s.others) >= maxRegions {
		region = "other"
	}
	s.mu.Unlock()
	return s.At("region " + region), name
}

// Calling counts a call as under way until ended is called, once.
func (s *Side) Calling(call string) (ended func()) {
	if of, _ := s.region(call); of != nil {
		return func() {} // dispatch tells how long a region is silent
	}
	began := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.underWay[&began] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.underWay, &began)
	}
}

// Called counts a call: its name, which is one of few; the status of the answer, 0 if the
// side was not reached, router.TimedOut if it did not answer in time, and
// router.Unreadable if the answer made no sense; and the time until the answer's headers came.
func (s *Side) Called(call string, status int, took time.Duration) {
	if of, name := s.region(call); of != nil {
		of.Called(name, status, took)
		return
	}
	s.mu.Lock()
	if !s.calls[call] && len(s.calls) >= maxCalls {
		call = "other"
	}
	s.calls[call] = true
	now := time.Now()
	if status > 0 {
		s.answered = now
	}
	switch {
	case status == http.StatusInternalServerError && strings.HasSuffix(call, " job") && !strings.HasPrefix(call, "read "):
		// Nomad's answer to a job that it refuses, too: it says nothing of Nomad.
	case status <= 0 || status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusTooManyRequests || status >= 500:
		f := s.failing[call]
		if f.Since.IsZero() || now.Sub(f.Last) > forgiven && s.answered.After(f.Last) {
			f.Since = now
		}
		f.Call, f.Status, f.Last = call, status, now
		s.failing[call] = f
	default:
		delete(s.failing, call)
	}
	s.mu.Unlock()
	code := strconv.Itoa(status)
	switch status {
	case 0, router.TimedOut:
		code = "none"
	case router.Unreadable:
		code = "unreadable"
	}
	s.requests.WithLabelValues(call, code).Inc()
	s.took.WithLabelValues(call).Observe(took.Seconds())
}

// Failing returns the kinds of calls that fail, those that began to fail first before the
// others. A kind fails until a call of it succeeds.
func (s *Side) Failing() (list []Failing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.failing {
		if time.Since(f.Last) <= forgiven || !s.answered.After(f.Last) {
			list = append(list, f)
		}
	}
	for host, other := range s.others {
		for _, f := range other.Failing() {
			if strings.HasPrefix(host, "region ") && time.Since(f.Last) > forgiven {
				continue // no rule names it any longer
			}
			f.Call += " at " + host
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(a, b Failing) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Call, b.Call)) })
	return list
}

// Silent returns how many calls are under way, and since when the oldest of them is, if
// no call was answered since; 0 if one was, or none is under way. With several hosts it is
// about the one that has been silent for longest.
func (s *Side) Silent() (calls int, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls, since = s.silent()
	for _, other := range s.others {
		if n, from := other.Silent(); n > 0 && (calls == 0 || from.Before(since)) {
			calls, since = n, from
		}
	}
	return calls, since
}

func (s *Side) silent() (calls int, since time.Time) {
	for began := range s.underWay {
		if since.IsZero() || began.Before(since) {
			since = *began
		}
	}
	if s.answered.After(since) {
		return 0, time.Time{}
	}
	return len(s.underWay), since
}

// What has worked.
const (
	WorkedDelivery     = "delivery"
	WorkedRegistration = "registration"
	WorkedClaim        = "claim"
	WorkedStart        = "start"
)

// Worked remembers when things worked last, and which deliveries came that did not. The
// zero value is ready; it is safe for concurrent use.
type Worked struct {
	mu       sync.Mutex
	last     map[string]time.Time
	unsigned int       // deliveries since the last good one
	first    time.Time // when the first of those came
	newest   time.Time // when the last of them came
}

func (w *Worked) at(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.worked(what)
}

func (w *Worked) worked(what string) {
	if w.last == nil {
		w.last = map[string]time.Time{}
	}
	w.last[what] = time.Now()
}

func (w *Worked) delivered(outcome string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch outcome {
	case router.DeliveryStored, router.DeliveryKnown, router.DeliveryPing, router.DeliveryIgnored:
		w.unsigned = 0
		w.worked(WorkedDelivery)
	case router.DeliveryUnsigned:
		if w.newest = time.Now(); w.unsigned == 0 {
			w.first = w.newest
		}
		w.unsigned++
	}
}

// All returns when everything worked last that has since the start.
func (w *Worked) All() map[string]time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.last)
}

// Heard takes what All returned in another process.
func (w *Worked) Heard(last map[string]time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, what := range []string{WorkedDelivery, WorkedRegistration, WorkedClaim, WorkedStart} {
		if at := last[what]; at.After(w.last[what]) {
			if w.last == nil {
				w.last = map[string]time.Time{}
			}
			w.last[what] = at
		}
	}
}

// Last returns when something worked last; zero: not since the start.
func (w *Worked) Last(what string) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last[what]
}

// Unsigned returns how many requests to the webhook without a valid signature came since
// the last good delivery, and when the first and the last of them did.
func (w *Worked) Unsigned() (n int, first, last time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unsigned, w.first, w.newest
}
