package decide_test

import (
	"testing"

	"switchyard/router/decide"
)

func TestAJobThatWasReleasedSinceItWasReadIsNotTaken(t *testing.T) {
	var h decide.InHand
	h.Read()
	if !h.Take(1) || h.Take(1) {
		t.Error("a job is not taken once")
	}
	h.Read() // while it is in hand
	h.Release(1)
	if h.Take(1) {
		t.Error("a job is taken as it was before it was released")
	}
	if h.Read(); !h.Take(1) {
		t.Error("a job that was read again is not taken")
	}
}
