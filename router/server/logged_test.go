package server_test

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"switchyard/router/server"
	"switchyard/rules"
)

// wantFewLines checks what the log has of an incident in two minutes, which is what it has after
// so many lines.
func (s *shop) wantFewLines(t *testing.T, before int) {
	t.Helper()
	times := map[string]int{}
	for _, l := range s.log.all(t)[before:] {
		if l["level"] == "WARN" || l["level"] == "ERROR" {
			times[fmt.Sprint(l["msg"], " ", l["rule"], " ", l["what"])]++
		}
		for _, advice := range []string{"redeliver it on", "jobs sync", "jobs retry"} {
			if text := fmt.Sprint(l["msg"], l["fix"]); strings.Contains(text, advice) {
				t.Errorf("the log has advice for what is done without it: %v", l)
			}
		}
	}
	for line, n := range times {
		if n > 3 {
			t.Errorf("in two minutes the log has %d lines such as %q", n, line)
		}
	}
}

// A runner that dies with its configuration is a warning that says why, and whose it was.
func TestARunnerThatDiesIsAWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openShop(t)
		s.task.Store("die")
		time.Sleep(noticed)
		s.task.Store("")
		said := s.log.about(t, "a runner ended after it got its configuration; github is asked whether it had its job")
		if len(said) == 0 {
			t.Fatal("the log says nothing")
		}
		for key, want := range map[string]string{"level": "WARN", "rule": "linux", "repo": "acme/web", "reason": "127"} {
			if got := fmt.Sprint(said[0][key]); !strings.Contains(got, want) {
				t.Errorf("%s is %q, want %q in it", key, got, want)
			}
		}
		time.Sleep(noticed)
	})
}

// What is tried again and again, and fails with other words each time, is a line a minute.
func TestWhatFailsInOtherWordsIsALineAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		var n atomic.Int64
		h := &hub{}
		h.board.refuse = func(int) error { return fmt.Errorf("502, request %d", n.Add(1)) }
		set, err := rules.Parse("rules.yaml", []byte(testRules+"feedback: { kind: check_run, after: 1s }\n"))
		must(t, err)
		r := start(t, openStore(t), &cluster{}, h, func(c *server.Config) {
			c.Rules, c.Feedback, c.Logger = set, 5*time.Second, slog.New(slog.NewJSONHandler(&log, nil))
		})
		r.deliver(committed(1, "self-hosted", "linx"))
		time.Sleep(3*time.Minute + time.Second)
		if said := log.about(t, "cannot update notices on commits"); len(said) < 3 || len(said) > 4 || n.Load() < 10 {
			t.Errorf("of %d failures in three minutes, the log has %d lines: %v", n.Load(), len(said), said)
		}
	})
}
