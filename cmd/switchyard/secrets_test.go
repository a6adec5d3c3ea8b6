package main

import (
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"switchyard/router"
	"switchyard/router/githubsim"
)

func TestReadSecrets(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		write(t, filepath.Join(dir, name), text)
		return filepath.Join(dir, name)
	}
	for name, c := range map[string]struct {
		files []string
		fixed router.Secret
		want  []router.Secret
		fault bool
	}{
		"one":                          {files: []string{file("one", "abc\n")}, want: []router.Secret{"abc"}},
		"without a line's end":         {files: []string{file("bare", "abc")}, want: []router.Secret{"abc"}},
		"two in a file":                {files: []string{file("two", "abc\r\n\n def \n")}, want: []router.Secret{"abc", " def "}},
		"two files":                    {files: []string{file("a", "abc\n"), file("b", "def\n")}, want: []router.Secret{"abc", "def"}},
		"a file and the environment's": {files: []string{file("c", "abc\n")}, fixed: "env", want: []router.Secret{"abc", "env"}},
		"an empty file beside another": {files: []string{file("d", "abc\n"), file("e", "\n\n")}, fault: true},
		"a missing file":               {files: []string{filepath.Join(dir, "none")}, fault: true},
	} {
		got, again, err := readSecrets(c.files, c.fixed)
		if (err != nil) != c.fault {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(c.want, got); err == nil && diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if err == nil {
			if more, err := again(); err != nil || !slices.Equal(more, got) {
				t.Errorf("%s, read again: %v, %v", name, more, err)
			}
		}
	}
}

// The secret of a webhook is changed without a restart and without losing a
// delivery, of the flags' GitHub and of another.
func TestWebhookSecretsAreRotatedWhileItRuns(t *testing.T) {
	t.Parallel()
	const newSecret, other, otherNew = "another secret of the webhook", "the other's secret", "another of the other's secrets"
	p := newProcess(t, "http://127.0.0.1:1", "http://127.0.0.1:1")
	file := p.args[slices.Index(p.args, "--webhook-secret-file")+1]
	dir := filepath.Dir(file)
	write(t, filepath.Join(dir, "other"), other)
	write(t, filepath.Join(dir, "instances.yaml"), "- { number: 1, url: 'http://127.0.0.1:2/api/v3/', token_file: "+filepath.Join(dir, "token")+", webhook_secret_files: ["+filepath.Join(dir, "other")+"] }\n")
	p.args = append(p.args, "--github-instances", filepath.Join(dir, "instances.yaml"))
	p.start()
	deliver := func(secret string) int {
		t.Helper()
		req, err := githubsim.NewDelivery(t.Context(), p.url, secret, "guid", "ping", []byte("{}"))
		must(t, err)
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		resp.Body.Close()
		return resp.StatusCode
	}
	become := func(secret string, status int) {
		t.Helper()
		for end := time.Now().Add(5 * time.Minute); deliver(secret) != status; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("deliveries with %q are not answered %d; the log:\n%s", secret, status, p.log.String())
			}
		}
	}
	for _, c := range []struct{ file, was, is string }{{file, testSecret, newSecret}, {filepath.Join(dir, "other"), other, otherNew}} {
		replace(t, c.file, c.is+"\n"+c.was+"\n")
		become(c.is, http.StatusOK)
		if got := deliver(c.was); got != http.StatusOK {
			t.Errorf("while both are good the old one is answered %d", got)
		}
		replace(t, c.file, c.is+"\n")
		become(c.was, http.StatusUnauthorized)
		become(c.is, http.StatusOK)
	}
	p.kill()
}
