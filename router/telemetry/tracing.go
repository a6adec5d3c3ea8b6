package telemetry

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"time"

	"switchyard/router"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// A job has one trace, whichever processes carry it: the IDs of the trace and
// of its root span follow from the job, so that nothing is kept for it. The root
// is sent when the job has ended, and the spans below it as they end.

// traceOf returns the IDs of a job's trace, from the host of its GitHub and its
// ID in the database. A run that is re-run has other jobs.
func traceOf(host string, jobID int64) (id trace.TraceID, root trace.SpanID) {
	sum := sha256.Sum256([]byte("switchyard job " + strconv.FormatInt(jobID, 10) + " of " + host))
	copy(id[:], sum[:16])
	copy(root[:], sum[16:24])
	return id, root
}

// TraceIDs generates the IDs of the tracer provider's spans: it is an sdktrace.IDGenerator.
// Without it, a job's root span is not the parent of the others.
type TraceIDs struct{}

type rootKey struct{}

type rootIDs struct {
	trace trace.TraceID
	span  trace.SpanID
}

// NewIDs returns the IDs of a job's root span, or random ones.
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

// NewSpanID returns a random ID.
func (TraceIDs) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	for !id.IsValid() {
		for i := range id {
			id[i] = byte(rand.Uint32())
		}
	}
	return id
}

// Traces follows jobs. A nil *Traces follows none. It is safe for concurrent use.
type Traces struct {
	Provider trace.TracerProvider // required
	GitHub   instances            // required: has the host of each job
	Now      func() time.Time     // required
}

type instances interface{ Instances() []router.Instance }

// Span begins a span of a job's trace, below the span in ctx if there is one of that trace,
// else below the root. The span is nil if t is.
func (t *Traces) Span(ctx context.Context, j router.Job, name string, began time.Time) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	id, root := traceOf(router.HostOf(t.GitHub, j.ID), j.ID)
	if trace.SpanContextFromContext(ctx).TraceID() != id {
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: id, SpanID: root, TraceFlags: trace.FlagsSampled, Remote: true,
		}))
	}
	ctx, s := t.tracer().Start(ctx, name, trace.WithTimestamp(began))
	return ctx, (&Span{s}).With("job_id", strconv.FormatInt(j.ID, 10))
}

func (t *Traces) tracer() trace.Tracer { return t.Provider.Tracer("switchyard/router") }

// A Span is a span of a trace. A nil *Span does nothing.
type Span struct{ trace.Span }

// With adds an attribute and returns s. A stranger's string is made printable.
func (s *Span) With(key, value string) *Span {
	if s != nil && value != "" {
		s.SetAttributes(attribute.String("switchyard."+key, router.Printable(value)))
	}
	return s
}

// Finish ends the span, at the given time or, if that is zero, now. It has failed if err is
// not nil.
func (s *Span) Finish(at time.Time, err error) {
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

// Delivery sends the span of a delivery that was stored.
func (t *Traces) Delivery(ctx context.Context, d router.Delivery, err error) {
	if t == nil {
		return
	}
	_, s := t.Span(ctx, d.Job, "delivery", d.ReceivedAt)
	s.With("delivery_id", d.ID).With("action", d.Action).With("source", string(d.Source)).Finish(t.Now(), err)
}

// Place sends the span from a runner's registration to its node.
func (t *Traces) Place(ctx context.Context, c router.Claimed, placed time.Time) {
	if t == nil {
		return
	}
	_, s := t.Span(ctx, c.Job, "place", c.Runner.CreatedAt)
	if placed.Before(c.Runner.CreatedAt) { // by Nomad's clock
		placed = c.Runner.CreatedAt
	}
	s.With("nomad_job", c.Runner.ID).With("node", c.Runner.Node).Finish(placed, nil)
}

// Ended sends the span of a completed job's run, and the root span of its trace.
func (t *Traces) Ended(ctx context.Context, j router.Job) {
	if t == nil || j.State != router.Completed {
		return
	}
	if !j.RunningAt.IsZero() {
		_, s := t.Span(ctx, j, "run", j.RunningAt)
		s.With("runner", j.RunnerName).With("conclusion", j.Conclusion).Finish(j.CompletedAt, nil)
	}
	var ids rootIDs
	ids.trace, ids.span = traceOf(router.HostOf(t.GitHub, j.ID), j.ID)
	_, root := t.tracer().Start(context.WithValue(ctx, rootKey{}, ids), "job", trace.WithNewRoot(), trace.WithTimestamp(j.ReceivedAt))
	s := (&Span{root}).With("job_id", strconv.FormatInt(j.ID, 10)).With("repo", j.Repo.FullName).With("name", j.Name).
		With("conclusion", j.Conclusion).With("url", j.URL)
	if j.Decision != nil {
		s.With("rule", j.Decision.Rule)
	}
	s.Finish(time.Time{}, nil)
}

// TraceLogs returns a logger that adds the ID of the job's trace to each line about a job.
func TraceLogs(to *slog.Logger, github instances) *slog.Logger {
	return slog.New(traceLogs{to.Handler(), github, false})
}

type traceLogs struct {
	slog.Handler
	github instances
	told   bool // the line has one already
}

func (t traceLogs) id(a slog.Attr) (slog.Attr, bool) {
	if a.Key != "job_id" || a.Value.Kind() != slog.KindInt64 || a.Value.Int64() == 0 {
		return slog.Attr{}, false
	}
	id, _ := traceOf(router.HostOf(t.github, a.Value.Int64()), a.Value.Int64())
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
