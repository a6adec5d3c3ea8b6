package cond

import (
	"reflect"
	"testing"
)

func TestEachFactOfAJobHasAValue(t *testing.T) {
	for i, of := range []string{"repo", "job", "run"} {
		var env Env
		part := reflect.ValueOf([]any{&env.Repo, &env.Job, &env.Run}[i]).Elem()
		for n := range part.NumField() {
			name := of + "." + part.Type().Field(n).Tag.Get("expr")
			one, all := map[string]bool{name: true}, map[string]bool{of: true}
			oneBefore, allBefore := env.Values(one), env.Values(all)
			switch field := part.Field(n); field.Kind() {
			case reflect.String:
				field.SetString("x")
			case reflect.Bool:
				field.SetBool(true)
			default:
				field.SetInt(7)
			}
			if env.Values(one) == oneBefore || env.Values(all) == allBefore {
				t.Errorf("jobs that differ in %s have the same values", name)
			}
		}
	}
}
