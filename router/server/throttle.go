package server

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	lineEvery    = time.Minute // between two lines of one kind: in an outage thousands of jobs fail in the same way, many times a minute
	maxLineKinds = 1000        // kinds of lines that are told apart; those beyond count as one
)

// A logThrottle says which lines of the log are written of those that an outage
// or a stranger can cause by the thousand. The zero value is ready; it is safe
// for concurrent use.
type logThrottle struct {
	mu    sync.Mutex
	kinds map[string]*lineKind
}

type lineKind struct {
	at      time.Time // of the last line
	leftOut int       // lines since
}

// allow reports whether a line of a kind is written now, and how many were left
// out since the last one.
func (l *logThrottle) allow(kind string, now time.Time) (leftOut int, ok bool) {
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

// logThrottled writes a line unless one with this message about the same thing,
// such as the same rule, was written in the last minute; the next one has
// left_out, the number of lines that were left out.
func (w *worker) logThrottled(log *slog.Logger, level slog.Level, about, message string, args ...any) {
	leftOut, ok := w.throttle.allow(message+"\x00"+about, w.Now())
	if !ok {
		return
	}
	if leftOut > 0 {
		args = append(args, "left_out", leftOut)
	}
	log.Log(context.Background(), level, message, args...)
}
