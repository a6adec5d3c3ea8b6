package cond

import (
	"reflect"
	"slices"
	"testing"
)

func TestEachFactOfAJobHasAValue(t *testing.T) {
	for of, v := range map[string]any{"repo": Repo{}, "job": Job{}, "run": Run{}} {
		for field := range reflect.TypeOf(v).Fields() {
			if name := of + "." + field.Tag.Get("expr"); !slices.Contains(allFacts, name) {
				t.Errorf("%s is not among the facts of a job", name)
			}
		}
	}
}
