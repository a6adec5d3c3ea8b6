package runners

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTheRegionThatEvaluatesNothingIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rs := &Runners{}
		want := func(region string, evaluates bool) {
			t.Helper()
			if d, got := rs.NotEvaluating(); got != region || d == 0 != evaluates {
				t.Errorf("for %s region %q does not evaluate, want %q", d, got, region)
			}
		}
		want("", true)
		rs.notEvaluated("tokyo")
		want("tokyo", false)
		rs.notEvaluated("")
		rs.notEvaluated("tokyo") // the client's own is shown
		want("", false)
		time.Sleep(3 * unevaluatedAfter)
		want("", true)
		rs.notEvaluated("tokyo")
		want("tokyo", false)
	})
}
