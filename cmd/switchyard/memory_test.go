package main

import (
	"errors"
	"math"
	"testing"
)

func TestTheMemoryLimitIsTheProcesss(t *testing.T) {
	const MiB = 1 << 20
	for name, tt := range map[string]struct {
		cgroup uint64
		env    map[string]string
		want   uint64
		from   string
	}{
		"none":                          {0, nil, 0, ""},
		"a cgroup without one":          {math.MaxUint64, nil, 0, ""},
		"that of the cgroup":            {256 * MiB, nil, 256 * MiB, "cgroup"},
		"a task that sees no cgroup":    {0, map[string]string{"NOMAD_MEMORY_LIMIT": "512"}, 512 * MiB, "NOMAD_MEMORY_LIMIT"},
		"a task that may use more":      {0, map[string]string{"NOMAD_MEMORY_LIMIT": "512", "NOMAD_MEMORY_MAX_LIMIT": "1024"}, 1024 * MiB, "NOMAD_MEMORY_MAX_LIMIT"},
		"a cgroup within the task's":    {300 * MiB, map[string]string{"NOMAD_MEMORY_LIMIT": "512"}, 300 * MiB, "cgroup"},
		"a cgroup of the whole machine": {64 << 30, map[string]string{"NOMAD_MEMORY_LIMIT": "512"}, 512 * MiB, "NOMAD_MEMORY_LIMIT"},
		"no number":                     {0, map[string]string{"NOMAD_MEMORY_LIMIT": "lots"}, 0, ""},
	} {
		cgroup := func() (uint64, error) {
			if tt.cgroup == 0 {
				return 0, errors.New("no cgroup")
			}
			return tt.cgroup, nil
		}
		if got, from := memoryLimit(cgroup, func(name string) string { return tt.env[name] }); got != tt.want || from != tt.from {
			t.Errorf("%s: %d by %q, want %d by %q", name, got, from, tt.want, tt.from)
		}
	}
}
