package usage

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

func TestAnAmountIsWrittenAndReadExactly(t *testing.T) {
	for a, want := range map[Amount]string{0: "0", 1: "0.000001", 1_500_000: "1.5", 40_000_000_000_001: "40000000.000001", math.MaxInt64: "9223372036854.775807"} {
		b, err := json.Marshal(a)
		if err != nil || string(b) != want {
			t.Errorf("%d is written %s, %v; want %s", int64(a), b, err, want)
		}
		var read Amount
		if err := json.Unmarshal(b, &read); err != nil || read != a {
			t.Errorf("%s is read as %d, %v", b, int64(read), err)
		}
	}
	for a, want := range map[Amount]string{0: "0.00", 4_999: "0.00", 5_000: "0.01", 1_995_000: "2.00", 12_340_000: "12.34"} {
		if got := a.Cents(); got != want {
			t.Errorf("%v in cents is %s, want %s", a, got, want)
		}
	}
	for _, wrong := range []string{`"1"`, "-1", "x"} {
		if err := json.Unmarshal([]byte(wrong), new(Amount)); err == nil {
			t.Errorf("%s was read", wrong)
		}
	}
}

func TestAQuantileIsAtMostAThirtySecondTooLong(t *testing.T) {
	for _, ms := range []int64{0, 1, 63, 64, 65, 127, 128, 1000, 123_456, 86_400_000, 30 * 86_400_000} {
		var q queue
		waited := time.Duration(ms) * time.Millisecond
		q.add(waited)
		if got := q.quantile(95); got < waited || float64(got) > float64(waited)*(1+1/32.) {
			t.Errorf("%v is told as %v", waited, got)
		}
	}
	if got := new(queue).quantile(50); got != 0 {
		t.Errorf("nobody waited %v", got)
	}
}

// flood is a database in which each of so many jobs has a label of its own.
type flood int

func (flood) FirstEnded(context.Context) (time.Time, error) { return time.Time{}, nil }

func (n flood) Usage(_ context.Context, f router.UsageFilter, each func(*router.Used) error) error {
	for i := range int(n) {
		asked := &router.Asked{Labels: []string{fmt.Sprint("run-", i), "linux"}}
		if err := each(&router.Used{EndedAt: f.From, Started: true, Queued: time.Second, Held: time.Minute, Asked: asked}); err != nil {
			return err
		}
	}
	return nil
}

func TestNamesThatAreTooManyAreCountedTogether(t *testing.T) {
	from := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	f := router.UsageFilter{By: router.ByLabel, From: from, Until: from.Add(time.Hour)}
	r, err := Count(t.Context(), flood(maxRows+500), f, rules.Prices{})
	if err != nil || len(r.Rows) != maxRows || r.Others == nil || r.Total.Jobs != maxRows+500 || r.Rows[0].Name != "linux" || r.Rows[0].Jobs != maxRows+500 || r.Others.Jobs != 501 {
		t.Errorf("%d rows, others %+v, total %+v, %v", len(r.Rows), r.Others, r.Total, err)
	}
}
