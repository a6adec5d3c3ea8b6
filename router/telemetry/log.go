// Package telemetry owns what Switchyard shows machines about itself: metrics, traces, and
// log lines that an outage or a stranger could cause by the thousand. Every room uses it.
package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	lineEvery    = time.Minute // between two lines of one kind: in an outage thousands of jobs fail alike, many times a minute
	maxLineKinds = 1000        // kinds of lines; those beyond count as one kind
)

// A Log is a logger that can leave out repeated lines. It is safe for concurrent use.
type Log struct {
	*slog.Logger
	lines *throttle
	now   func() time.Time
}

// NewLog returns a Log that writes to a logger and takes the time from now.
func NewLog(to *slog.Logger, now func() time.Time) *Log { return &Log{to, &throttle{}, now} }

// With returns a Log whose lines have these attributes; the two leave out lines together.
func (l *Log) With(args ...any) *Log { return &Log{l.Logger.With(args...), l.lines, l.now} }

// Throttled writes a line unless one with this message was written about the same thing,
// such as the same rule, in the last minute. The next line has the attribute left_out: how
// many were left out.
func (l *Log) Throttled(level slog.Level, about, message string, args ...any) {
	leftOut, ok := l.lines.allow(message+"\x00"+about, l.now())
	if !ok {
		return
	}
	if leftOut > 0 {
		args = append(args, "left_out", leftOut)
	}
	l.Log(context.Background(), level, message, args...)
}

// Allows reports whether a line of this kind may be written, and counts it as written.
func (l *Log) Allows(kind string) bool {
	_, ok := l.lines.allow(kind, l.now())
	return ok
}

// A throttle decides which lines are written of those that an outage or a stranger can cause
// by the thousand. The zero value is ready; it is safe for concurrent use.
type throttle struct {
	mu    sync.Mutex
	kinds map[string]*lineKind
}

type lineKind struct {
	at      time.Time // of the last line
	leftOut int       // lines since
}

// allow reports whether a line of a kind is written now, and how many were left out since the
// last one.
func (l *throttle) allow(kind string, now time.Time) (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kinds[kind] == nil {
		if len(l.kinds) >= maxLineKinds {
			for other, k := range l.kinds {
				if now.Sub(k.at) >= lineEvery {
					delete(l.kinds, other)
				}
			}
		}
		if len(l.kinds) >= maxLineKinds {
			kind = ""
		}
		if l.kinds == nil {
			l.kinds = map[string]*lineKind{}
		}
		if l.kinds[kind] == nil {
			l.kinds[kind] = &lineKind{}
		}
	}
	k := l.kinds[kind]
	if now.Sub(k.at) < lineEvery {
		k.leftOut++
		return 0, false
	}
	leftOut, *k = k.leftOut, lineKind{at: now}
	return leftOut, true
}
