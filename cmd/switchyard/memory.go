package main

import (
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"strconv"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// memoryShare is the share of the process's memory limit that Go may use. The rest
// is for kernel stacks, the database's pages, and memory that is freed late.
const memoryShare = 0.9

// limitMemory has Go collect garbage sooner when the process comes near its memory
// limit, beyond which it would be killed. A GOMEMLIMIT in the environment wins.
func limitMemory(log *slog.Logger) {
	limit, from := memoryLimit(memlimit.FromCgroup, os.Getenv)
	if limit == 0 || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetMemoryLimit(int64(memoryShare * float64(limit)))
	log.Info("memory is limited", "mib", limit>>20, "by", from)
}

// memoryLimit returns how many bytes the process may use, and who sets the limit:
// its cgroup, or Nomad, as some tasks cannot see their cgroup. 0 is no limit. The
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
