package main

import "testing"

func TestTheServerWithTheSameEnvironmentIsAsked(t *testing.T) {
	for listen, want := range map[string]string{
		"":                 "http://127.0.0.1:8081",
		"127.0.0.1:24011":  "http://127.0.0.1:24011",
		":9000":            "http://127.0.0.1:9000",
		"0.0.0.0:9000":     "http://127.0.0.1:9000",
		"[::]:9000":        "http://127.0.0.1:9000",
		"10.0.0.5:8081":    "http://10.0.0.5:8081",
		"[fd00::5]:8081":   "http://[fd00::5]:8081",
		"unix:/run/s.sock": "unix:/run/s.sock",
	} {
		t.Setenv("SWITCHYARD_ADMIN_LISTEN", listen)
		if got := ownServer(); got != want {
			t.Errorf("--admin-listen %q is asked at %s, want %s", listen, got, want)
		}
	}
}
