package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"switchyard/router"
	"switchyard/router/githubsim"
	"switchyard/router/server"
	"switchyard/router/telemetry"
	"switchyard/router/webhook"
)

// Two processes carry one job, and it has one trace.
func TestAJobIsOneTrace(t *testing.T) { bubble(t, testAJobIsOneTrace) }
func testAJobIsOneTrace(t *testing.T) {
	w := newWorld(t, plainRule)
	kept := tracetest.NewInMemoryExporter()
	follow := func(c *server.Config) {
		provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(kept), sdktrace.WithIDGenerator(telemetry.TraceIDs{}))
		c.Traces = provider
		t.Cleanup(func() { _ = provider.Shutdown(context.WithoutCancel(t.Context())) })
	}
	w.Start(quick, follow)
	id := w.GitHub.Queue(t.Context(), githubsim.JobSpec{
		Owner: "acme", Repo: "web", Private: true, Labels: []string{"self-hosted", "linux"}, Duration: time.Second,
	})
	w.Await(id, in(router.Running))
	w.Stop()
	w.Start(quick, follow)
	w.Await(id, in(router.Completed))
	byName := map[string][]tracetest.SpanStub{}
	eventually(t, "the root span is sent", func() bool {
		clear(byName)
		for _, s := range kept.GetSpans() {
			byName[s.Name] = append(byName[s.Name], s)
		}
		return len(byName["job"]) > 0
	})
	root := byName["job"][0]
	if root.Parent.IsValid() || len(byName["job"]) != 1 {
		t.Errorf("the root has the parent %v, and there are %d", root.Parent, len(byName["job"]))
	}
	below := map[string]string{"delivery": "job", "decide": "job", "register": "job", "place": "job", "claim": "job", "configure": "claim", "run": "job"}
	for name, parent := range below {
		if len(byName[name]) == 0 {
			t.Errorf("there is no span %s", name)
			continue
		}
		for _, s := range byName[name] {
			up := byName[parent][0]
			if s.SpanContext.TraceID() != root.SpanContext.TraceID() {
				t.Errorf("span %s is of another trace", name)
			}
			if s.Parent.SpanID() != up.SpanContext.SpanID() {
				t.Errorf("span %s is not below %s", name, parent)
			}
			if s.EndTime.Before(s.StartTime) || s.StartTime.Before(up.StartTime) {
				t.Errorf("span %s lasts from %v to %v, and %s begins at %v", name, s.StartTime, s.EndTime, parent, up.StartTime)
			}
		}
	}
	if t.Failed() {
		return
	}
	if run := byName["run"][0]; run.EndTime.Sub(run.StartTime) < time.Second/2 || run.EndTime.After(root.EndTime) {
		t.Errorf("the run lasts from %v to %v, want a second or so, and no longer than the root's %v", run.StartTime, run.EndTime, root.EndTime)
	}
	has := map[string]string{}
	for _, a := range root.Attributes {
		has[string(a.Key)] = a.Value.AsString()
	}
	if has["switchyard.rule"] != "linux" || has["switchyard.repo"] != "acme/web" || has["switchyard.conclusion"] != "success" {
		t.Errorf("the root says %v", has)
	}
}

// lines keeps what is logged, as JSON.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) all(t *testing.T) (lines []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		lines = append(lines, m)
	}
	return lines
}

// Each line of a job's life names it, and its trace.
func TestTheLogsFollowAJobByItsID(t *testing.T) { bubble(t, testTheLogsFollowAJobByItsID) }
func testTheLogsFollowAJobByItsID(t *testing.T) {
	w := newWorld(t, plainRule)
	var out lines
	log := telemetry.TraceLogs(slog.New(slog.NewJSONHandler(&out, nil)), w.Hub)
	kept := tracetest.NewInMemoryExporter()
	w.Start(func(c *server.Config) {
		c.Logger = log
		c.Traces = sdktrace.NewTracerProvider(sdktrace.WithSyncer(kept), sdktrace.WithIDGenerator(telemetry.TraceIDs{}))
		c.Webhook = func(receive func(context.Context, router.Delivery) error) (http.Handler, error) {
			return webhook.Handler(webhook.Config{Secrets: []router.Secret{"0123456789abcdef"}, Logger: log}, receive)
		}
	})
	id := w.Queue("self-hosted", "linux")
	w.Await(id, in(router.Completed))
	w.Stop()
	type line struct{ msg, keys string }
	want := []line{
		{"delivery stored", "delivery_id job_id repo action trace_id"},
		{"job dispatched", "job_id repo rule nomad_job trace_id"},
		{"runner configured", "job_id rule nomad_job runner trace_id"},
	}
	traces := map[string]bool{}
	for _, s := range kept.GetSpans() {
		traces[s.SpanContext.TraceID().String()] = true
	}
	if len(traces) != 1 {
		t.Errorf("there are %d traces, want one", len(traces))
	}
	all := out.all(t)
	for _, want := range want {
		found := slices.ContainsFunc(all, func(m map[string]any) bool {
			if m["msg"] != want.msg || m["job_id"] != float64(id) {
				return false
			}
			for key := range strings.FieldsSeq(want.keys) {
				if v, ok := m[key]; !ok || v == "" {
					t.Errorf("the line %q lacks %s: %v", want.msg, key, m)
				}
			}
			if trace, _ := m["trace_id"].(string); !traces[trace] {
				t.Errorf("the line %q has another trace: %v", want.msg, m)
			}
			return true
		})
		if !found {
			t.Errorf("no line %q names job %d: %v", want.msg, id, all)
		}
	}
	for _, m := range all {
		_, names := m["job_id"]
		_, traced := m["trace_id"]
		if names != traced || (m["nomad_job"] != nil || m["delivery_id"] != nil) && !names {
			t.Errorf("a line does not say of which job it is, or of which trace: %v", m)
		}
	}
}

func TestLogsWithoutAJobHaveNoTrace(t *testing.T) {
	var out lines
	log := telemetry.TraceLogs(slog.New(slog.NewJSONHandler(&out, nil)), &hub{})
	log.Info("serving", "job_id", int64(0))
	log.With("job_id", int64(7)).Info("a job", "job_id", int64(7))
	log.WithGroup("g").Info("a job in a group", "job_id", int64(7))
	text := out.buf.String()
	if n := strings.Count(text, "trace_id"); n != 2 {
		t.Errorf("want two traces: %s", text)
	}
}

func TestTraceIDsAreValid(t *testing.T) {
	id, span := telemetry.TraceIDs{}.NewIDs(t.Context())
	if !id.IsValid() || !span.IsValid() || (telemetry.TraceIDs{}.NewSpanID(t.Context(), trace.TraceID{})) == span {
		t.Errorf("IDs %s and %s, want valid ones, which differ", id, span)
	}
}
