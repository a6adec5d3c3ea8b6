package main

import (
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

func TestTracesGoWhereTheEnvironmentSays(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, name := range []string{"ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL", "HEADERS"} {
		t.Setenv("OTEL_EXPORTER_OTLP_"+name, "")
	}
	t.Setenv("OTEL_SERVICE_NAME", "")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "")
	if p, err := newTraces(t.Context(), log); p != nil || err != nil {
		t.Fatalf("without a place to send to: %v, %v", p, err)
	}
	got := make(chan *coltrace.ExportTraceServiceRequest, 1)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		sent := new(coltrace.ExportTraceServiceRequest)
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, sent) != nil {
			t.Errorf("%s %s, %v: not what OTLP sends", r.Method, r.URL.Path, err)
		}
		got <- sent
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	p, err := newTraces(t.Context(), log)
	must(t, err)
	_, span := p.Tracer("test").Start(t.Context(), "job")
	span.End()
	must(t, p.Shutdown(t.Context()))
	sent := (<-got).ResourceSpans[0]
	if name := sent.ScopeSpans[0].Spans[0].Name; name != "job" {
		t.Errorf("span %q came, want job", name)
	}
	service := ""
	for _, a := range sent.Resource.Attributes {
		if a.Key == "service.name" {
			service = a.Value.GetStringValue()
		}
	}
	if service != "switchyard" {
		t.Errorf("service.name = %q, want switchyard", service)
	}

	t.Setenv("OTEL_SDK_DISABLED", "true")
	if p, err := newTraces(t.Context(), log); p != nil || err != nil {
		t.Errorf("disabled: %v, %v", p, err)
	}
	t.Setenv("OTEL_SDK_DISABLED", "")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	if _, err := newTraces(t.Context(), log); err == nil || !strings.Contains(err.Error(), "4318") {
		t.Errorf("with gRPC: %v", err)
	}
}

// The whole server sends what it did before it ends, and its log names the trace.
func TestTheServerSendsTraces(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	spans := map[string]string{} // traces by span
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sent := new(coltrace.ExportTraceServiceRequest)
		if err := proto.Unmarshal(body, sent); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range sent.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					spans[s.Name] = hex.EncodeToString(s.TraceId)
				}
			}
		}
	}))
	defer collector.Close()
	p := newProcess(t, "http://127.0.0.1:1", "http://127.0.0.1:1/") // where nobody is
	p.env = append(p.env, "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL)
	p.start()
	if status := send(t.Context(), http.DefaultClient, p.url, "guid-1", payload(4711, "self-hosted", "linux")); status != http.StatusAccepted {
		t.Fatalf("the delivery is answered with %d", status)
	}
	for deadline := time.Now().Add(5 * time.Minute); !strings.Contains(string(p.get("/readyz")), `"retrying":1`); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the job is not tried again: %s", p.get("/readyz"))
		}
	}
	http.DefaultClient.CloseIdleConnections()
	p.stop()
	mu.Lock()
	defer mu.Unlock()
	trace := spans["delivery"]
	if trace == "" || spans["decide"] != trace || spans["register"] != trace {
		t.Errorf("the spans are %v, want a delivery, a decision and a registration of one trace", spans)
	}
	if log := p.log.String(); !strings.Contains(log, `"job_id":4711`) || !strings.Contains(log, `"trace_id":"`+trace+`"`) {
		t.Errorf("the log does not name trace %s:\n%s", trace, log)
	}
}
