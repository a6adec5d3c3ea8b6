package gh

import (
	"slices"
	"time"
)

// A window counts what was spent in the last span of time, which is the same in each
// call. It counts in steps of a sixtieth of the span, and rounds times down.
type window []step

type step struct {
	start time.Time
	n     int
}

func (w *window) spend(n int, span time.Duration, now time.Time) {
	start := now.Truncate(span / 60)
	if last := len(*w) - 1; last >= 0 && !(*w)[last].start.Before(start) {
		(*w)[last].n += n
		return
	}
	w.drop(span, now)
	*w = append(*w, step{start, n})
}

// drop removes the steps that have ended.
func (w *window) drop(span time.Duration, now time.Time) {
	over := 0
	for over < len(*w) && !now.Before(w.end(over, span)) {
		over++
	}
	*w = slices.Delete(*w, 0, over)
}

// end returns when a step no longer counts.
func (w *window) end(i int, span time.Duration) time.Time {
	return (*w)[i].start.Add(span + span/60)
}

func (w *window) sum(span time.Duration, now time.Time) (n int) {
	w.drop(span, now)
	for _, s := range *w {
		n += s.n
	}
	return n
}

// room returns when n more fit into most; zero: now.
func (w *window) room(n, most int, span time.Duration, now time.Time) time.Time {
	over := w.sum(span, now) + n - most
	for i := range *w {
		if over <= 0 {
			break
		}
		over -= (*w)[i].n
		if over <= 0 {
			return w.end(i, span)
		}
	}
	if over > 0 && len(*w) > 0 { // n alone exceeds most
		return w.end(len(*w)-1, span)
	}
	return time.Time{}
}
