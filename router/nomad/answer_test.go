package nomad

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"switchyard/router"
	"switchyard/router/nomadsim/nomadtest"
)

// A 200 is only as good as what it says.
func TestAnswersThatCannotBeReadAreToldOf(t *testing.T) {
	for name, tc := range map[string]struct {
		kind, index, body string
		cut               bool // in the middle of the connection
		want              int
	}{
		"Nomad's":                       {"application/json", "7", `{"Status":"dead"}`, false, 200},
		"empty":                         {"application/json", "7", "", false, router.Unreadable},
		"cut":                           {"application/json", "7", `{"Status":"de`, false, router.Unreadable},
		"cut with its connection":       {"application/json", "7", `{"Status":`, true, router.Unreadable},
		"a page":                        {"text/html; charset=utf-8", "", "<html>Log in</html>", false, router.Unreadable},
		"a page that claims to be JSON": {"application/json", "7", "<html>Log in</html>", false, router.Unreadable},
		"somebody else's":               {"application/json", "", `{"Status":"dead"}`, false, router.Unreadable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var told []string
				c := answered(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", tc.kind)
					if tc.index != "" {
						w.Header().Set("X-Nomad-Index", tc.index)
					}
					if tc.cut {
						w.Header().Set("Content-Length", "1000")
					}
					_, _ = io.WriteString(w, tc.body)
				}), func(c *Config) {
					c.Called = func(call string, status int, _ time.Duration) {
						mu.Lock()
						defer mu.Unlock()
						told = append(told, fmt.Sprint(call, " ", status))
					}
				})
				_, _ = c.Ended(t.Context(), router.Runner{ID: "gha-1-1", NomadJob: "gha-1-1"})
				mu.Lock()
				defer mu.Unlock()
				if len(told) != 1 || told[0] != fmt.Sprint("read job ", tc.want) {
					t.Errorf("it is reported as %q, want %d", told, tc.want)
				}
			})
		})
	}
}

func TestWhole(t *testing.T) {
	for text, want := range map[string]bool{
		`{}`: true, " [1, {\"a\": \"}\"}]\n": true, `"a\\\""`: true, `null`: true, `-1.5`: true,
		``: false, ` `: false, `{`: false, `[{}`: false, `"a\\\"`: false, `}`: false, `<html>`: false, `{}}`: false, `Not found`: false,
	} {
		var w whole
		in := iotest.OneByteReader(strings.NewReader(text))
		for b := make([]byte, 1); ; {
			n, err := in.Read(b)
			w.take(b[:n])
			if err != nil {
				break
			}
		}
		if w.complete() != want {
			t.Errorf("%q is whole: %v, want %v", text, !want, want)
		}
	}
}

// What answers a registration with nothing of Nomad's has not registered anything.
func TestARegistrationIsNotBelievedOfAnybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := answered(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"ok":true}`) }))
		_, err := c.Start(t.Context(), nomadtest.Request(router.Placement{Jobspec: "plain"}))
		if err == nil || !strings.Contains(err.Error(), "check that NOMAD_ADDR is the address of a Nomad agent") {
			t.Errorf("Start = %v", err)
		}
	})
}
