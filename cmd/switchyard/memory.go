package main

import (
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"strconv"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// memoryShare is the part of what the process may use that Go is given: the
// rest is for stacks of the kernel, the database's pages, and what is freed late.
const memoryShare = 0.9

// limitMemory has Go collect garbage sooner when the process comes near to what
// it may use, which it would otherwise be killed for. Who sets GOMEMLIMIT is heard.
func limitMemory(log *slog.Logger) {
	limit, from := memoryLimit(memlimit.FromCgroup, os.Getenv)
	if limit == 0 || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetMemoryLimit(int64(memoryShare * float64(limit)))
	log.Info("memory is limited", "mib", limit>>20, "by", from)
}

// memoryLimit returns the bytes that the process may use, and who says so: its
// cgroup, or Nomad, of whose tasks some do not see theirs. 0 is no limit. The
// variables are those of https://developer.hashicorp.com/nomad/docs/runtime (read 2026-11-29).
func memoryLimit(cgroup func() (uint64, error), getenv func(string) string) (limit uint64, from string) {
	if n, err := cgroup(); err == nil && n > 0 && n < math.MaxInt64 {
		limit, from = n, "cgroup"
	}
	for _, name := range []string{"NOMAD_MEMORY_MAX_LIMIT", "NOMAD_MEMORY_LIMIT"} {
		n, err := strconv.ParseUint(getenv(name), 10, 32)
		if err != nil || n == 0 {
			continue
		}
		if n <<= 20; limit == 0 || n < limit {
			limit, from = n, name
		}
		break
	}
	return limit, from
}
