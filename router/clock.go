package router

import "time"

// A Clock tells the time, and how late it can be at most. It is safe for
// concurrent use.
type Clock struct {
	now     func() time.Time
	beganAt time.Time // when this process began, by the clock
	began   time.Time // and by the time that passes
}

// NewClock returns a clock of this process that goes by now.
func NewClock(now func() time.Time) *Clock {
	return &Clock{now, now().Round(0), time.Now()}
}

// Sure returns the latest time that it can be: what the clock says, unless it was
// set forward since this process began. What cannot be undone goes by it.
func (c *Clock) Sure() time.Time {
	now := c.now()
	if latest := c.beganAt.Add(time.Since(c.began)); latest.Before(now) {
		return latest
	}
	return now
}
