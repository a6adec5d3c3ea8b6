package health

import (
	"testing"

	"switchyard/router"
)

func TestALimitSaysWhoHasItsPlaces(t *testing.T) {
	holder := func(key, name string, jobs, waiting int) router.LimitHolder {
		return router.LimitHolder{Key: key, Repo: router.Repo{Host: "github.com", Owner: "acme", Name: name, FullName: "acme/" + name}, Jobs: jobs, Waiting: waiting}
	}
	flood := []router.LimitHolder{holder("linux", "flood", 1, 9), holder("linux", "web", 0, 3)}
	for _, tt := range []struct {
		holders []router.LimitHolder
		within  router.Scope
		want    string
	}{
		{flood, nil, "acme/flood has the only place and 9 more jobs waiting; acme/web has none and 3 jobs waiting"},
		{flood, router.Scope{"acme/web"}, "acme/web has no place (1 in all) and 3 jobs waiting"},
		{flood, router.Scope{"beta/*"}, ""},
		{
			[]router.LimitHolder{holder("linux", "flood", 4, 1), holder("gpu|acme", "ml", 2, 1), holder("linux", "web", 1, 0)}, nil,
			"rule linux: acme/flood has 4 of 5 places and 1 more job waiting; acme/web has 1 of 5 places; rule gpu for acme: acme/ml has all 2 places and 1 more job waiting",
		},
		{
			[]router.LimitHolder{holder("l", "a", 1, 0), holder("l", "b", 0, 1), holder("l", "c", 0, 1), holder("l", "d", 0, 1), holder("l", "e", 0, 1), holder("l", "f", 0, 1)}, nil,
			"acme/a has the only place; acme/b has none and 1 job waiting; acme/c has none and 1 job waiting; acme/d has none and 1 job waiting; acme/e has none and 1 job waiting; and 1 more",
		},
	} {
		places := map[string]int{}
		for _, h := range tt.holders {
			places[h.Key] += h.Jobs
		}
		for i, h := range tt.holders {
			tt.holders[i].Places = places[h.Key]
		}
		if got := saysLimits(tt.holders, tt.within); got != tt.want {
			t.Errorf("within %v:\n%s\nwant\n%s", tt.within, got, tt.want)
		}
	}
}
