package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

func TestTracesGoWhereTheEnvironmentSays(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
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
	if err != nil {
		t.Fatal(err)
	}
	_, span := p.Tracer("test").Start(t.Context(), "job")
	span.End()
	if err := p.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
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
