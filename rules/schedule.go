package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // machines without a zone database, as a container or Windows, know the zones too

	"switchyard/rules/internal/cond"
	"switchyard/rules/internal/words"
)

// A schedule is a part of each week by the clock of one time zone. The zero value is always.
type schedule struct {
	text        string  // as it is written
	days        [7]bool // on which it begins, from Sunday; all false: each day
	from, until int     // minutes of the day; until is next day's if it is not after from; both 0: all day
	zone        *time.Location
}

const day = 24 * 60 // minutes

// weekdays are the names of the days as schedules have them, in the order of time.Weekday.
var weekdays = []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

// asSchedule reads a schedule: days, hours and a time zone, in this order.
func asSchedule(v any) (schedule, error) {
	text, err := cond.AsText(v)
	if err != nil {
		return schedule{}, err
	}
	s := schedule{text: words.OneLine(text), zone: time.UTC}
	parts := strings.Fields(text)
	if len(parts) > 0 && !strings.ContainsAny(parts[0], ":/") {
		days, ok, err := readDays(parts[0])
		if err != nil {
			return schedule{}, err
		}
		if ok {
			s.days, parts = days, parts[1:]
		}
	}
	if len(parts) > 0 && strings.Contains(parts[0], ":") {
		if s.from, s.until, err = readHours(parts[0]); err != nil {
			return schedule{}, err
		}
		parts = parts[1:]
	}
	if len(parts) > 0 && len(parts) < len(strings.Fields(text)) {
		if s.zone, err = time.LoadLocation(parts[0]); err != nil || strings.EqualFold(parts[0], "local") {
			return schedule{}, fmt.Errorf("%s is not a time zone: write one as Europe/Berlin or UTC", words.Quote(parts[0]))
		}
		parts = parts[1:]
	}
	if len(parts) > 0 || len(strings.Fields(text)) == 0 {
		return schedule{}, fmt.Errorf("%s is not a schedule: write days, hours and a time zone, as Mon-Fri 07:00-19:00 Asia/Tokyo; days or hours may be left out, and the zone is UTC if it is", words.Quote(text))
	}
	return s, nil
}

// readDays reads days such as Mon-Fri,Sun; ok is false when the text is something else.
func readDays(text string) (days [7]bool, ok bool, err error) {
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, to := weekday(first), weekday(last)
		switch {
		case from < 0 && !ok && !isRange: // a time zone, perhaps
			return days, false, nil
		case from < 0 || to < 0:
			return days, false, fmt.Errorf("%s are not days: write them as Mon-Fri or Sat,Sun", words.Quote(text))
		}
		for ok = true; ; from = (from + 1) % 7 {
			days[from] = true
			if from == to {
				break
			}
		}
	}
	return days, ok, nil
}

func weekday(name string) int {
	return slices.IndexFunc(weekdays, func(d string) bool { return strings.EqualFold(d, name) })
}

// readHours reads hours such as 07:00-19:00.
func readHours(text string) (from, until int, err error) {
	first, last, _ := strings.Cut(text, "-")
	from, errFrom := readMinute(first)
	until, errUntil := readMinute(last)
	switch {
	case errors.Join(errFrom, errUntil) != nil || from == day:
		return 0, 0, fmt.Errorf("%s are not hours: write them as 07:00-19:00, or 22:00-06:00 over midnight", words.Quote(text))
	case from == until:
		return 0, 0, fmt.Errorf("%s begin and end at the same time: leave the hours out for the whole day", words.Quote(text))
	}
	return from, until, nil
}

// readMinute returns the minute of the day of a text such as 07:30; 24:00 is its end.
func readMinute(text string) (int, error) {
	if text == "24:00" {
		return day, nil
	}
	t, err := time.Parse("15:04", text)
	if err != nil || len(text) != len("15:04") {
		return 0, fmt.Errorf("%q is no time of a day", text)
	}
	return t.Hour()*60 + t.Minute(), nil
}

// holds reports whether a time is within the schedule, by the clock on the wall: when that is
// changed, the schedule may be longer or shorter that day.
func (s *schedule) holds(t time.Time) bool {
	if s.zone == nil {
		return true
	}
	t = t.In(s.zone)
	minute, today := t.Hour()*60+t.Minute(), t.Weekday()
	on := func(d time.Weekday) bool { return s.days == [7]bool{} || s.days[d] }
	switch {
	case s.from == s.until:
		return on(today)
	case s.from < s.until:
		return on(today) && s.from <= minute && minute < s.until
	}
	return on(today) && minute >= s.from || on((today+6)%7) && minute < s.until
}
