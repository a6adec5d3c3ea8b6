package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/routertest"
	"switchyard/router/store/postgrestest"
	"switchyard/router/testnet"
	"switchyard/router/web/auth"
)

func TestATokenIsMadeForTheAccessFile(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"token", "grafana", "--role", "operator", "--repos", "acme/*,acme/web"}, nil, &out, &errs); code != 0 {
		t.Fatalf("switchyard token = %d: %s", code, errs.String())
	}
	acc, err := auth.ParseAccess("access.yaml", append([]byte("tokens:\n"), out.Bytes()...))
	must(t, err)
	lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
	token := lines[len(lines)-1]
	if sum := sha256.Sum256([]byte(token)); len(token) < 50 || hex.EncodeToString(sum[:]) != hex.EncodeToString(acc.Tokens[0].SHA256[:]) {
		t.Errorf("the token is %q, its entry %s", token, out.String())
	}
	if got := acc.Tokens[0]; got.Name != "grafana" || got.Role != auth.Operator || len(got.Repos) != 2 {
		t.Errorf("the entry is %+v", got)
	}
	for args, want := range map[string]string{"--role=viewer": "repos: all", "--role=editor": "role: editor }", "--repos=all": "repos: all"} {
		out.Reset()
		if code := run(t.Context(), []string{"token", "x", args}, nil, &out, &errs); code != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("switchyard token %s = %d: %s", args, code, out.String())
		}
		if acc, err := auth.ParseAccess("access.yaml", append([]byte("tokens:\n"), out.Bytes()...)); err != nil || acc.Tokens[0].Repos != nil {
			t.Errorf("%s: %+v, %v", out.String(), acc, err)
		}
	}
	if code := run(t.Context(), []string{"token", "x", "--repos", ""}, nil, &out, &errs); code == 0 || !strings.Contains(errs.String(), "--repos is empty") {
		t.Errorf("repositories of an empty variable = %d: %s", code, errs.String())
	}
	if code := run(t.Context(), []string{"token", "x", "--repos", "acme"}, nil, &out, &errs); code != exitUnknown || !strings.Contains(errs.String(), `repository "acme": want owner/name`) {
		t.Errorf("a wrong repository = %d: %s", code, errs.String())
	}
}

func TestPeopleStayLoggedInWhenTheServerRestartsOverPostgreSQL(t *testing.T) {
	acc := &auth.Access{Tokens: []auth.Token{{Name: "vera", SHA256: sha256.Sum256([]byte("only a look")), Role: auth.Viewer}}}
	w := routertest.New(t, routertest.Config{
		Rules: string(demoRules), Network: &testnet.Net{Loopback: true}, Logger: slog.New(slog.DiscardHandler), Database: postgrestest.URL(t),
		New: wired(appParts{access: func() (*auth.Access, error) { return acc, nil }}),
	})
	w.Start()
	jar, err := cookiejar.New(nil)
	must(t, err)
	browser := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer browser.CloseIdleConnections()
	in, err := browser.PostForm("http://"+w.App.AdminAddr()+"/login", url.Values{"token": {"only a look"}})
	must(t, err)
	in.Body.Close()
	w.Stop()
	w.Start()
	page, err := browser.Get("http://" + w.App.AdminAddr() + "/jobs")
	must(t, err)
	page.Body.Close()
	if in.StatusCode != http.StatusSeeOther || page.StatusCode != http.StatusOK {
		t.Errorf("log in = %d; after a restart GET /jobs = %d, want 200", in.StatusCode, page.StatusCode)
	}
}

func TestTheAccessFileIsReadAgain(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "access.yaml")
	put := func(text string) {
		t.Helper()
		must(t, os.WriteFile(name, []byte(text), 0o600))
	}
	entry := "tokens:\n  - { name: NAME, sha256: " + strings.Repeat("ab", 32) + ", role: viewer, repos: all }\n"
	put(strings.ReplaceAll(entry, "NAME", "a"))
	var log bytes.Buffer
	flags := serveFlags{access: name, adminListen: "0.0.0.0:8081"}
	access, err := flags.accessSource("", slog.New(slog.NewTextHandler(&log, nil)))
	must(t, err)
	become := func(want, logged string) {
		t.Helper()
		for end := time.Now().Add(5 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
			acc, err := access()
			must(t, err)
			if acc.Tokens[0].Name == want && strings.Contains(log.String(), logged) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("the first token is %s, want %s; the log: %s", acc.Tokens[0].Name, want, log.String())
			}
		}
	}
	put(strings.ReplaceAll(entry, "NAME", "bob"))
	become("bob", "read again")
	as, err := os.Stat(name) // a change that the file's time and size do not tell
	must(t, err)
	put(strings.ReplaceAll(entry, "NAME", "eve"))
	must(t, os.Chtimes(name, time.Time{}, as.ModTime()))
	become("eve", "read again")
	put(strings.ReplaceAll(entry, "NAME", "bob"))
	become("bob", "read again")
	put("tokens: {")
	become("bob", "has faults")
	put(strings.ReplaceAll(entry, "NAME", "carol"))
	become("carol", "read again")
	must(t, os.Remove(name))
	become("carol", "cannot be read")
}

func TestAShortTokenIsNoAdminToken(t *testing.T) {
	name := filepath.Join(t.TempDir(), "token")
	for _, token := range []string{"x", "1234567", " x \n"} {
		write(t, name, token)
		for what, flags := range map[string]serveFlags{token: {adminListen: "127.0.0.1:8081"}, "": {adminListen: "127.0.0.1:8081", adminTokenFile: name}} {
			if _, err := flags.accessSource(router.Secret(what), slog.Default()); err == nil || !strings.Contains(err.Error(), "a token needs at least 8 characters") {
				t.Errorf("%q, in a file %t: %v", token, what == "", err)
			}
		}
	}
	flags := serveFlags{adminListen: "127.0.0.1:8081"}
	if _, err := flags.accessSource("          ", slog.Default()); err == nil {
		t.Error("blanks are a token")
	}
	write(t, name, "12345678\n")
	flags.adminTokenFile = name
	if _, err := flags.accessSource("", slog.Default()); err != nil {
		t.Error(err)
	}
}

func TestOthersNeedAuthentication(t *testing.T) {
	flags := serveFlags{adminListen: ":8081"}
	if _, err := flags.accessSource("", slog.Default()); err == nil || !strings.Contains(err.Error(), "--access FILE") {
		t.Errorf("without authentication on all addresses: %v", err)
	}
	for listen, loud := range map[string]bool{"127.0.0.1:8081": true, "localhost:8081": true, "[::1]:0": true, "unix:/run/switchyard.sock": false} {
		var log bytes.Buffer
		local := serveFlags{adminListen: listen}
		access, err := local.accessSource("", slog.New(slog.NewTextHandler(&log, nil)))
		if said := strings.Contains(log.String(), "level=WARN") && strings.Contains(log.String(), "EVERYBODY ON THIS MACHINE IS AN EDITOR"); err != nil || access != nil || said != loud {
			t.Errorf("without authentication on %s: %v; it warns: %t, want %t", listen, err, said, loud)
		}
		local.allowEdit = true
		if _, err := local.accessSource("", slog.Default()); err == nil || !strings.Contains(err.Error(), "--allow-edit needs --access") {
			t.Errorf("with --allow-edit: %v", err)
		}
		if access, err := local.accessSource(operatorsToken, slog.New(slog.NewTextHandler(&log, nil))); err != nil || access == nil || strings.Count(log.String(), "EVERYBODY") > 1 {
			t.Errorf("with --allow-edit and a token: %v; the log: %s", err, log.String())
		}
	}
	flags.access = filepath.Join(t.TempDir(), "none.yaml")
	if _, err := flags.accessSource("", slog.Default()); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("an access file that there is not: %v", err)
	}
	if _, err := flags.accessSource("secret", slog.Default()); err == nil || !strings.Contains(err.Error(), "put the token into") {
		t.Errorf("an access file and a token: %v", err)
	}
}
