package server

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"switchyard/router"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// A job has one trace, whichever processes carry it: the IDs of the trace and
// of its root span follow from the job, so that nothing is kept for it. The root
// is sent when the job has ended, and the spans below it as they end.

// traceOf returns the IDs of a job's trace, from the host of its GitHub and its
// ID in the books. A run that is run again has other jobs.
func traceOf(host string, jobID int64) (id trace.TraceID, root trace.SpanID) {
	sum := sha256.Sum256([]byte("switchyard job " + strconv.FormatInt(jobID, 10) + " of " + host))
	copy(id[:], sum[:16])
	copy(root[:], sum[16:24])
	return id, root
}

// TraceIDs is what the IDs of the tracer provider's spans are made by: an
// sdktrace.IDGenerator. Without it, a job's root span is not the parent of the others.
type TraceIDs struct{}

type rootKey struct{}

type rootIDs struct {
	trace trace.TraceID
	span  trace.SpanID
}

// NewIDs returns those of a job's root span, or random ones.
func (t TraceIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if ids, ok := ctx.Value(rootKey{}).(rootIDs); ok {
		return ids.trace, ids.span
	}
	var id trace.TraceID
	for i := range id {
		id[i] = byte(rand.Uint32())
	}
	return id, t.NewSpanID(ctx, id)
}

// NewSpanID returns a random one.
func (TraceIDs) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	for !id.IsValid() {
		for i := range id {
			id[i] = byte(rand.Uint32())
		}
	}
	return id
}

// span begins a span of a job's trace; below the span in ctx if there is one,
// else below the root. It is nil when nobody follows.
func (w *worker) span(ctx context.Context, j router.Job, name string, began time.Time) (context.Context, *span) {
	if w.Traces == nil {
		return ctx, nil
	}
	id, root := traceOf(w.hostOf(j.ID), j.ID)
	if trace.SpanContextFromContext(ctx).TraceID() != id {
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: id, SpanID: root, TraceFlags: trace.FlagsSampled, Remote: true,
		}))
	}
	ctx, s := w.tracer().Start(ctx, name, trace.WithTimestamp(began))
	return ctx, (&span{s}).with("job_id", strconv.FormatInt(j.ID, 10))
}

func (w *worker) tracer() trace.Tracer { return w.Traces.Tracer("switchyard/router") }

// A span is one that may be nil.
type span struct{ trace.Span }

// with adds a fact. A stranger's string is made fit for a terminal.
func (s *span) with(key, value string) *span {
	if s != nil && value != "" {
		s.SetAttributes(attribute.String("switchyard."+key, router.Printable(value)))
	}
	return s
}

// end ends it. An error makes it a failed one; zero at: now.
func (s *span) end(at time.Time, err error) {
	if s == nil {
		return
	}
	if err != nil {
		s.SetStatus(codes.Error, router.Printable(err.Error()))
	}
	if at.IsZero() {
		s.End()
		return
	}
	s.End(trace.WithTimestamp(at))
}

// traceDelivery sends the span of a delivery that was stored.
func (w *worker) traceDelivery(ctx context.Context, d router.Delivery, err error) {
	_, s := w.span(ctx, d.Job, "delivery", d.ReceivedAt)
	s.with("delivery_id", d.ID).with("action", d.Action).with("source", string(d.Source)).end(w.Now(), err)
}

// tracePlace sends the span from a runner's registration to its node.
func (w *worker) tracePlace(ctx context.Context, c router.Claimed, placed time.Time) {
	_, s := w.span(ctx, c.Job, "place", c.Runner.CreatedAt)
	if placed.Before(c.Runner.CreatedAt) { // by Nomad's clock
		placed = c.Runner.CreatedAt
	}
	s.with("nomad_job", c.Runner.ID).with("node", c.Runner.Node).end(placed, nil)
}

// traceEnd sends the span of a job's run and the root span of its trace.
func (w *worker) traceEnd(ctx context.Context, id int64) {
	if w.Traces == nil {
		return
	}
	j, err := w.Store.Job(ctx, id)
	if err != nil || j.State != router.Completed {
		return
	}
	if !j.RunningAt.IsZero() {
		_, s := w.span(ctx, j, "run", j.RunningAt)
		s.with("runner", j.RunnerName).with("conclusion", j.Conclusion).end(j.CompletedAt, nil)
	}
	var ids rootIDs
	ids.trace, ids.span = traceOf(w.hostOf(j.ID), j.ID)
	_, root := w.tracer().Start(context.WithValue(ctx, rootKey{}, ids), "job", trace.WithNewRoot(), trace.WithTimestamp(j.ReceivedAt))
	s := (&span{root}).with("job_id", strconv.FormatInt(j.ID, 10)).with("repo", j.Repo.FullName).with("name", j.Name).
		with("conclusion", j.Conclusion).with("url", j.URL)
	if j.Decision != nil {
		s.with("rule", j.Decision.Rule)
	}
	s.end(time.Time{}, nil)
}

// TraceLogs has each line that names a job say the ID of its trace, too.
func TraceLogs(to *slog.Logger, github router.GitHub) *slog.Logger {
	w := &worker{Config: &Config{GitHub: github}}
	return slog.New(traceLogs{to.Handler(), w, false})
}

type traceLogs struct {
	slog.Handler
	worker *worker
	told   bool // the line has one already
}

func (t traceLogs) id(a slog.Attr) (slog.Attr, bool) {
	if a.Key != "job_id" || a.Value.Kind() != slog.KindInt64 || a.Value.Int64() == 0 {
		return slog.Attr{}, false
	}
	id, _ := traceOf(t.worker.hostOf(a.Value.Int64()), a.Value.Int64())
	return slog.String("trace_id", id.String()), true
}

// Handle implements slog.Handler.
func (t traceLogs) Handle(ctx context.Context, r slog.Record) error {
	if !t.told {
		r = r.Clone()
		r.Attrs(func(a slog.Attr) bool {
			id, ok := t.id(a)
			if ok {
				r.AddAttrs(id)
			}
			return !ok
		})
	}
	return t.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (t traceLogs) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if id, ok := t.id(a); ok && !t.told {
			attrs, t.told = append(attrs[:len(attrs):len(attrs)], id), true
			break
		}
	}
	t.Handler = t.Handler.WithAttrs(attrs)
	return t
}

// WithGroup implements slog.Handler.
func (t traceLogs) WithGroup(name string) slog.Handler {
	t.Handler = t.Handler.WithGroup(name)
	return t
}
