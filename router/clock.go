package router

import "time"

// A Clock knows how late it can be at most, even if the system's clock was set forward.
// It is safe for concurrent use.
type Clock struct {
	now     func() time.Time
	beganAt time.Time // when this process began, by the wall clock
	began   time.Time // the same, by the monotonic clock
}

// NewClock returns a clock that starts with this call and reads the wall clock from now.
func NewClock(now func() time.Time) *Clock {
	return &Clock{now, now().Round(0), time.Now()}
}

// Sure returns the wall clock's time, but never more than has really passed since
// this process began. Use it for what cannot be undone, such as deleting history.
func (c *Clock) Sure() time.Time {
	now := c.now()
	if latest := c.beganAt.Add(time.Since(c.began)); latest.Before(now) {
		return latest
	}
	return now
}
