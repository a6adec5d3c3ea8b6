package nomadsim_test

import (
	"context"
	"fmt"
	"strconv"

	"switchyard/router/nomadsim"
)

// scriptText is what the tasks of the contract run on a real agent: it waits to
// be killed if WAIT is set, fails unless the artifact is as WANT says and AGAIN
// as WANT_AGAIN does in hexadecimal, and exits with EXIT. "$" with a brace is
// Nomad's.
const scriptText = `
if [ -n "$WAIT" ]; then exec sleep 600; fi
if [ -e secrets/runner.jit ] && [ "$(cat secrets/runner.jit)" != "$WANT" ]; then exit 90; fi
if [ -n "$WANT_AGAIN" ] && [ "$(printf %s "$AGAIN" | od -An -v -tx1 | tr -d ' \n')" != "$WANT_AGAIN" ]; then exit 91; fi
if [ -n "$EXIT" ]; then exit $EXIT; fi
`

// script is the same for the simulator.
func script(ctx context.Context, t nomadsim.Task) int {
	if t.Env["WAIT"] != "" {
		<-ctx.Done()
		return 137
	}
	if jit, ok := t.Artifacts["secrets/runner.jit"]; ok && jit != t.Env["WANT"] {
		return 90
	}
	if want := t.Env["WANT_AGAIN"]; want != "" && fmt.Sprintf("%x", t.Env["AGAIN"]) != want {
		return 91
	}
	code, err := strconv.Atoi("0" + t.Env["EXIT"])
	if err != nil {
		return 92
	}
	return code
}
