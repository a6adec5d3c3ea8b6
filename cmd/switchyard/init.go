package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/web/auth"
)

const (
	hookPath = "/webhooks/github"
	pollHook = "poll" // --webhook-url of a server that GitHub does not reach

	maxSystems = 3
)

// An initFlags is what init is told.
type initFlags struct {
	github, owner, systems, publicURL, webhook string

	createApp bool
	dir       string
}

func initCommand() *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write the files of a new installation, and make its GitHub App",
		Long: `Init asks six questions, or takes their answers as flags, and writes into a
directory: rules.yaml with tests, policy.hcl for Nomad's token, the job
switchyard.nomad.hcl that runs the server on Nomad, app-manifest.json, from which
GitHub makes the App, access.yaml with a token for the console, and
switchyard.env with the settings of serve and doctor. It never overwrites a file:
what is there stays, and what is missing is written.

With --create-app it opens a page on this machine alone, whose one button makes
the App on GitHub with exactly the permissions that rules.yaml needs. GitHub's
answer, with the App's key and webhook secret, is stored for this user alone.

It ends with the commands that are left to do. Run it again to go on where it
was stopped.

Exit codes: 0, done; 2, something is missing or failed.`,
		Example: "  switchyard init --owner acme --public-url http://10.0.0.5:8080 --webhook-url poll --create-app",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			given := map[string]bool{}
			for _, q := range f.questions() {
				given[q.flag] = cmd.Flags().Changed(q.flag)
			}
			if err := f.answer(cmd.InOrStdin(), cmd.ErrOrStderr(), given); err != nil {
				return err
			}
			return f.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.github, "github", "https://github.com", "`URL` of GitHub's pages: another for an Enterprise Server or a tenant of ghe.com")
	fl.StringVar(&f.owner, "owner", "", "`NAME` of the organization whose jobs get runners, or @NAME of a user")
	fl.StringVar(&f.systems, "systems", "linux", "`systems` that jobs run on: linux, macos, windows")
	fl.StringVar(&f.publicURL, "public-url", "", "`URL` at which Nomad's clients reach the server, such as http://10.0.0.5:8080")
	fl.StringVar(&f.webhook, "webhook-url", "", "`URL` at which GitHub reaches it; or poll: it reads its deliveries from GitHub")
	fl.BoolVar(&f.createApp, "create-app", false, "make the GitHub App, by a page on this machine")
	fl.StringVar(&f.dir, "dir", ".", "`directory` of the files, which is made")
	return cmd
}

// A question is one of those that init asks.
type question struct {
	flag, text string
	def        string // "": none
	set        func(string) error
}

func (f *initFlags) questions() []question {
	return []question{
		{"github", "Where is GitHub?", "https://github.com", f.setGitHub},
		{"owner", "Which organization's jobs get runners? (@NAME for a user)", "", f.setOwner},
		{"systems", "On which systems? (linux, macos, windows)", "linux", f.setSystems},
		{"public-url", "At which URL do Nomad's clients reach the server? (such as http://10.0.0.5:8080)", "", f.setPublicURL},
		{"webhook-url", "At which URL does GitHub reach it? (poll: it reads its deliveries from GitHub)", pollHook, f.setWebhook},
		{"create-app", "Make the GitHub App now, in your browser? (yes or no)", "yes", f.setCreateApp},
	}
}

// answer completes the answers: on a terminal it asks for those that are not given.
func (f *initFlags) answer(stdin io.Reader, stderr io.Writer, given map[string]bool) error {
	terminal, _ := stdin.(*os.File)
	asks := terminal != nil && term.IsTerminal(int(terminal.Fd()))
	values := map[string]string{"github": f.github, "owner": f.owner, "systems": f.systems, "public-url": f.publicURL, "webhook-url": f.webhook}
	var missing []string
	var errs []error
	for _, q := range f.questions() {
		switch {
		case q.flag == "create-app", asks && !given[q.flag]:
		case values[q.flag] == "":
			missing = append(missing, "--"+q.flag)
		default:
			if err := q.set(values[q.flag]); err != nil {
				errs = append(errs, fmt.Errorf("--%s: %w", q.flag, err))
			}
		}
	}
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("without a terminal to ask on, also give %s; see switchyard init --help", strings.Join(missing, ", ")))
	}
	if err := errors.Join(errs...); err != nil || !asks {
		return err
	}
	return f.ask(bufio.NewReader(stdin), stderr, given)
}

// ask asks for what is not given, until each answer is a possible one.
func (f *initFlags) ask(answers *bufio.Reader, out io.Writer, given map[string]bool) error {
	for _, q := range f.questions() {
		for asked := given[q.flag]; !asked; {
			hint := ""
			if q.def != "" {
				hint = " [" + q.def + "]"
			}
			fmt.Fprintf(out, "%s%s ", q.text, hint)
			line, err := answers.ReadString('\n')
			if err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
			if err := q.set(cmp.Or(strings.TrimSpace(line), q.def)); err != nil {
				fmt.Fprintf(out, "  %s\n", router.Printable(err.Error()))
				continue
			}
			asked = true
		}
	}
	return nil
}

// plainURL matches a URL that means the same in a shell, in HCL and in YAML.
var plainURL = regexp.MustCompile(`^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?$`)

func (f *initFlags) setGitHub(s string) error {
	if _, err := gh.APIOf(s); err != nil {
		return err
	}
	f.github = strings.TrimSuffix(s, "/")
	return plain(f.github)
}

func plain(s string) error {
	u, err := url.Parse(s)
	if err == nil && u.Port() == "" && strings.HasSuffix(u.Host, ":") || err != nil || u.Hostname() == "" || !plainURL.MatchString(s) {
		return fmt.Errorf("%q is not a URL such as https://ci.example.com", router.Shorten(s, router.MaxText))
	}
	return nil
}

func (f *initFlags) setOwner(s string) error {
	if !gh.ValidOwner(strings.TrimPrefix(s, "@")) {
		return errors.New("want the name of an organization, or @ and that of a user")
	}
	f.owner = s
	return nil
}

// name returns the owner's name, and whether it is an organization.
func (f *initFlags) name() (name string, organization bool) {
	name, user := strings.CutPrefix(f.owner, "@")
	return name, !user
}

func (f *initFlags) setSystems(s string) error {
	list := strings.FieldsFunc(strings.ToLower(s), func(c rune) bool { return c == ',' || c == ' ' })
	slices.Sort(list)
	list = slices.Compact(list)
	if len(list) == 0 || len(list) > maxSystems || slices.ContainsFunc(list, func(one string) bool { return systems[one] == nil }) {
		return errors.New("want any of linux, macos and windows, with commas between them")
	}
	f.systems = strings.Join(list, ",")
	return nil
}

func (f *initFlags) setPublicURL(s string) error {
	s = strings.TrimSuffix(s, "/")
	if err := plain(s); err != nil {
		return err
	}
	if at, err := url.Parse(s); err != nil || at.Path != "" {
		return errors.New("want scheme, host and port alone, such as http://10.0.0.5:8080")
	}
	f.publicURL = s
	return nil
}

func (f *initFlags) setWebhook(s string) error {
	if s == pollHook {
		f.webhook = s
		return nil
	}
	s = strings.TrimSuffix(s, "/")
	if err := plain(s); err != nil {
		return fmt.Errorf("%w, nor is it poll", err)
	}
	if !strings.HasSuffix(s, hookPath) {
		s += hookPath
	}
	f.webhook = s
	return nil
}

func (f *initFlags) setCreateApp(s string) error {
	switch strings.ToLower(s) {
	case "yes", "y":
		f.createApp = true
	case "no", "n":
		f.createApp = false
	default:
		return errors.New("want yes or no")
	}
	return nil
}

// path returns that of a file in the directory.
func (f *initFlags) path(name string) string { return filepath.Join(f.dir, name) }

func (f *initFlags) has(names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool {
		_, err := os.Lstat(f.path(name))
		return err != nil
	})
}

// write writes a file at once, whole or not at all, unless one is there, and says which.
func (f *initFlags) write(out io.Writer, name, text string, mode os.FileMode) error {
	switch err := f.create(name, text, mode); {
	case errors.Is(err, os.ErrExist):
		_, err = fmt.Fprintf(out, "%s stays as it is\n", f.path(name))
		return err
	case err != nil:
		return fmt.Errorf("write %s: %w", f.path(name), err)
	}
	_, err := fmt.Fprintf(out, "%s is written\n", f.path(name))
	return err
}

// create makes a file, whole even if the process is killed; os.ErrExist: there is one.
func (f *initFlags) create(name, text string, mode os.FileMode) (err error) {
	if f.has(name) {
		return os.ErrExist
	}
	made, err := os.CreateTemp(f.dir, ".switchyard-init-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(made.Name()) }()
	_, err = made.WriteString(text)
	if err = errors.Join(err, made.Chmod(mode), made.Sync(), made.Close()); err != nil {
		return err
	}
	return os.Link(made.Name(), f.path(name)) // unlike a rename, it replaces nothing
}

// run writes what is missing, makes the App if that is wanted, and says what is left to do.
func (f *initFlags) run(ctx context.Context, out io.Writer) error {
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return err
	}
	if err := f.write(out, "rules.yaml", f.rules(), 0o644); err != nil {
		return err
	}
	set, err := loadRulesFor(ctx, out, f.path("rules.yaml"), nil)
	if err != nil {
		return err
	}
	manifest, err := f.manifest(permissionsFor(set))
	if err != nil {
		return err
	}
	for _, file := range []struct {
		name, text string
	}{
		{"policy.hcl", policy},
		{"switchyard.nomad.hcl", f.service()},
		{"app-manifest.json", manifestText(manifest)},
	} {
		if err := f.write(out, file.name, file.text, 0o644); err != nil {
			return err
		}
	}
	if err := f.writeAccess(out); err != nil {
		return err
	}
	if f.createApp || f.has(newAppFile) {
		if err := f.makeApp(ctx, out, manifest); err != nil {
			return err
		}
	}
	if f.has(appFiles...) {
		id, err := os.ReadFile(f.path("app.id"))
		if err != nil {
			return err
		}
		if err := f.write(out, "switchyard.env", f.env(strings.TrimSpace(string(id))), 0o600); err != nil {
			return err
		}
	}
	return f.next(out)
}

// writeAccess writes a token for the console, and then its entry, which has only its hash.
func (f *initFlags) writeAccess(out io.Writer) error {
	if f.has("access.yaml") {
		return f.write(out, "access.yaml", "", 0)
	}
	if err := f.write(out, "console.token", newToken()+"\n", 0o600); err != nil {
		return err
	}
	token, err := gh.TokenFile(f.path("console.token"))()
	if err != nil {
		return err
	}
	return f.write(out, "access.yaml", "tokens:\n"+tokenEntry("admin", string(token), auth.Editor)+" }\n", 0o600)
}

// port returns that of the public URL, if the server itself is there; "8080" behind a proxy.
func (f *initFlags) port() string {
	at, err := url.Parse(f.publicURL)
	if err != nil || at.Scheme != "http" {
		return "8080"
	}
	return cmp.Or(at.Port(), "80")
}

// local reports whether an address is of this machine alone.
func local(address string) bool {
	at, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(at.Hostname())
	return at.Hostname() == "localhost" || err == nil && ip.IsLoopback()
}
