package feedback

import (
	"strings"
	"testing"
	"unicode"

	"switchyard/router"
)

func TestAStrangersStringsAreInertInANotice(t *testing.T) {
	hostile := "x\n\n# <img src=x onerror=alert(1)> ``` ~~~ @octocat #1 [a](javascript:x)\r\x1b[31m\u202e" + strings.Repeat("y", 5000)
	d := &router.Decision{Rule: "linux"}
	for _, state := range []router.JobState{router.Queued, router.Unroutable, router.Completed} {
		n := noticeOf(router.Job{Name: hostile, Reason: hostile, State: state, Decision: d}, router.NoticeCheckRun, hostile, "they wait")
		for _, line := range []string{n.Name, n.Title} {
			if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsGraphic(r) }) || len([]rune(line)) > 140 {
				t.Errorf("%q is not one short line", line)
			}
		}
		if len(n.Text) > 6000 {
			t.Errorf("the text has %d bytes", len(n.Text))
		}
		for _, line := range strings.Split(n.Text, "\n") {
			if !strings.HasPrefix(line, "    ") && (strings.ContainsAny(line, "<@#[\x1b") || strings.Contains(line, "```")) {
				t.Errorf("a line of the text means something: %q", line)
			}
		}
	}
}

// A job that is tried again says what it waits for all the time, in the words of the status.
func TestANoticeNamesTheTrouble(t *testing.T) {
	const words, said = "their runners end after they got their configuration", "its runner ended: exit code 127"
	n := noticeOf(router.Job{State: router.Dispatched, Reason: "Nomad looks for a node"}, router.NoticeCheckRun, said, words)
	if n.Title != "Waits: "+said || n.State != router.NoticeWaits {
		t.Errorf("the notice is %+v", n)
	}
	for _, want := range []string{words, said, "Nomad looks for a node"} {
		if !strings.Contains(n.Text, "    "+want) {
			t.Errorf("the text lacks %q:\n%s", want, n.Text)
		}
	}
	n = noticeOf(router.Job{State: router.Dispatched, Reason: "Nomad looks for a node"}, router.NoticeCheckRun, "Nomad looks for a node", "")
	if n.Title != "Waits: Nomad looks for a node" || strings.Contains(n.Text, "status says") {
		t.Errorf("without a trouble, the notice is %+v", n)
	}
}
