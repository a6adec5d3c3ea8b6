package telemetry_test

import (
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router/telemetry"
)

// What one GitHub answers says nothing of another.
func TestEachHostFailsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := telemetry.NewMetrics().GitHub
		second := first.At("github.example.com")
		began := time.Now()
		second.Called("GET rate_limit", 401, time.Second)
		ended := second.Calling("GET rate_limit")
		time.Sleep(time.Minute)
		first.Called("GET rate_limit", 200, time.Second)
		second.Called("GET rate_limit", 401, time.Second)
		list := first.Failing()
		if len(list) != 1 || list[0].Call != "GET rate_limit at github.example.com" || !list[0].Since.Equal(began) {
			t.Errorf("failing: %+v; want the other host's since %v", list, began)
		}
		silent := first.At("slow.example.com")
		defer silent.Calling("GET rate_limit")()
		time.Sleep(time.Minute)
		first.Called("GET rate_limit", 200, time.Second)
		if n, since := first.Silent(); n != 1 || time.Since(since) != time.Minute {
			t.Errorf("%d calls are silent since %v, want one", n, since)
		}
		ended()
		second.Called("GET rate_limit", 200, time.Second)
		if list := first.Failing(); len(list) != 0 {
			t.Errorf("after the mend: %+v", list)
		}
	})
}
