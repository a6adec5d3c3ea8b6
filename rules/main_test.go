package rules

import (
	"flag"
	"os"
	"testing"
)

// Properties are checked on 40 cases, other ones in each run; -rapid.checks has more.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "40"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
