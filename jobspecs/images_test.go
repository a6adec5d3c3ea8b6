package jobspecs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Dependabot does not read jobspecs.
func TestDependabotKnowsEachImage(t *testing.T) {
	found := func(pattern string, files ...string) (list []string) {
		for _, file := range files {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(src, -1) {
				list = append(list, string(m[1]))
			}
		}
		slices.Sort(list)
		return slices.Compact(list)
	}
	specs, err := filepath.Glob("*.nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(found(`image\s+= "([^"$]+)"`, specs...), found(`(?m)^FROM (\S+)$`, "../.github/images/Dockerfile")); d != "" {
		t.Errorf(".github/images/Dockerfile (-jobspecs +it):\n%s", d)
	}
}
