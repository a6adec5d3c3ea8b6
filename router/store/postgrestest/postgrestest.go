// Package postgrestest owns the PostgreSQL that tests run against.
package postgrestest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// cluster is the one of this test process.
var cluster struct {
	once sync.Once
	url  *url.URL // of a database that superusers may use
	err  error
	made atomic.Int64 // schemas
	hold io.Closer    // the cluster's standard input: not closed before this process ends
}

// URL returns the URL of a new, empty schema and of a role that owns it and may do nothing
// else. Both are dropped when the test ends. They are in the cluster that
// SWITCHYARD_POSTGRES names (the URL of a superuser), or else in one that is started from the PostgreSQL
// that is installed, once for the whole test process. Without either the test is skipped,
// or fails if CI is set. Safe for concurrent use.
func URL(t testing.TB) string {
	t.Helper()
	u := *superuser(t)
	name, password := fmt.Sprintf("test_%d_%d", os.Getpid(), cluster.made.Add(1)), rand.Text()
	Exec(t, fmt.Sprintf("CREATE ROLE %[1]s LOGIN PASSWORD '%[2]s'; CREATE SCHEMA AUTHORIZATION %[1]s", name, password)) // a database of its own would take ten times as long
	t.Cleanup(func() { Exec(t, fmt.Sprintf("DROP SCHEMA %[1]s CASCADE; DROP ROLE %[1]s", name)) })
	u.User = url.UserPassword(name, password)
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = q.Encode()
	return u.String()
}

// superuser returns the URL of a superuser.
func superuser(t testing.TB) *url.URL {
	t.Helper()
	cluster.once.Do(func() { cluster.url, cluster.err = find() })
	switch {
	case cluster.err != nil:
		t.Fatalf("start PostgreSQL: %v", cluster.err)
	case cluster.url == nil && os.Getenv("CI") != "":
		t.Fatal("there is no PostgreSQL: install it, or set SWITCHYARD_POSTGRES to the URL of a cluster")
	case cluster.url == nil:
		t.Skip("there is no PostgreSQL: install it, or set SWITCHYARD_POSTGRES to the URL of a cluster")
	}
	return cluster.url
}

// Exec runs a statement as a superuser. It skips or fails as URL does.
func Exec(t testing.TB, statement string) {
	t.Helper()
	ExecIn(t, "", statement)
}

// ExecIn does the same in a database, "" is that of URL.
func ExecIn(t testing.TB, database, statement string) {
	t.Helper()
	u := *superuser(t)
	if database != "" {
		u.Path = "/" + database
	}
	execAt(t, u.String(), statement)
}

func execAt(t testing.TB, url, statement string) {
	t.Helper()
	ctx := context.Background() // also after the test
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// find returns the URL of a cluster; nil: there is none.
func find() (*url.URL, error) {
	if u := os.Getenv("SWITCHYARD_POSTGRES"); u != "" {
		return url.Parse(u)
	}
	bin := binaries()
	if bin == "" {
		return nil, nil
	}
	c, err := start(bin, "")
	if err != nil {
		return nil, err
	}
	cluster.hold = c.in
	return url.Parse(c.URL)
}

// binaries returns the folder of the newest PostgreSQL that is installed: on PATH, or where
// Debian has them; "" when there is none.
func binaries() string {
	if path, err := exec.LookPath("initdb"); err == nil {
		if target, err := filepath.EvalSymlinks(path); err == nil { // all are there
			path = target
		}
		return filepath.Dir(path)
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	slices.SortFunc(found, func(a, b string) int { return version(a) - version(b) })
	if len(found) == 0 {
		return ""
	}
	return filepath.Dir(found[len(found)-1])
}

func version(path string) int {
	n, _ := strconv.Atoi(strings.Split(path, "/")[4])
	return n
}

// initialize makes the data of a cluster, which it keeps until its standard input ends, as it
// does when this process ends, however that comes. Members of guarded need a password. Its
// durability is of no use here and costs seconds.
const initialize = `
trap 'rm -rf "$1"' EXIT
trap exit HUP INT TERM
"$0/initdb" -D "$1/data" -U postgres -A trust --no-sync --no-instructions >"$1/log" 2>&1 || exit 1
sed -i '1i local all +guarded scram-sha-256' "$1/data/pg_hba.conf"
echo ready
read -r line
`

// watch runs a cluster with a copy of the data in $2, also until its standard input ends. For
// each line there it stops it, and starts it again if that says start. It is a standby of the
// one in $3, if that is not empty.
const watch = `
trap 'kill -QUIT $server; wait $server; rm -rf "$1"' EXIT
trap exit HUP INT TERM
if [ "$3" ]; then
	"$0/pg_basebackup" -h "$3" -U postgres -D "$1/data" -R -c fast --no-sync >"$1/log" 2>&1 || exit 1
else
	cp -R "$2/data" "$1/data" || exit 1
	chmod 700 "$1/data"
fi
serve() {
	"$0/postgres" -D "$1/data" -k "$1" -c listen_addresses= -c fsync=off -c max_connections=500 >"$1/log" 2>&1 &
	server=$!
	until grep -q 'ready to accept' "$1/log"; do kill -0 $server || exit 1; sleep 0.05; done
	echo ready
}
serve "$1"
while read -r line; do
	kill -QUIT $server
	wait $server
	if [ "$line" = start ]; then serve "$1"; else echo stopped; fi
done
`

// A Cluster is a PostgreSQL of a test's own, which it may stop and start again.
type Cluster struct {
	URL string // of a database that superusers may use

	dir string
	in  io.WriteCloser
	out io.Reader
}

// NewCluster starts a cluster, which ends with the test. Without an installed PostgreSQL the
// test is skipped, or fails if CI is set.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	return newCluster(t, "")
}

// newCluster starts a cluster; a standby of the one in a folder, if that is not "".
func newCluster(t testing.TB, of string) *Cluster {
	t.Helper()
	bin := binaries()
	switch {
	case bin == "" && os.Getenv("CI") != "":
		t.Fatal("there is no PostgreSQL: install it")
	case bin == "":
		t.Skip("there is no PostgreSQL: install it")
	}
	c, err := start(bin, of)
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	t.Cleanup(func() { _ = c.in.Close() })
	return c
}

// Restart ends the cluster as kill -QUIT does, and starts it again. It returns when the
// cluster takes connections.
func (c *Cluster) Restart(t testing.TB) {
	t.Helper()
	c.tell(t, "start")
}

// Stop ends the cluster as kill -QUIT does.
func (c *Cluster) Stop(t testing.TB) {
	t.Helper()
	c.tell(t, "stop")
}

func (c *Cluster) tell(t testing.TB, what string) {
	t.Helper()
	_, err := fmt.Fprintln(c.in, what)
	if err == nil {
		_, err = fmt.Fscanln(c.out, new(string))
	}
	if err != nil {
		t.Errorf("%s PostgreSQL: %v", what, err)
	}
}

// Exec runs a statement as a superuser.
func (c *Cluster) Exec(t testing.TB, statement string) {
	t.Helper()
	execAt(t, c.URL, statement)
}

// Standby starts a standby of the cluster. From then on a commit waits until the standby has
// it, too.
func (c *Cluster) Standby(t testing.TB) *Cluster {
	t.Helper()
	s := newCluster(t, c.dir)
	c.Exec(t, "ALTER SYSTEM SET synchronous_standby_names = '*'")
	c.Exec(t, "SELECT pg_reload_conf()")
	conn, err := pgx.Connect(t.Context(), c.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for waits := false; !waits; time.Sleep(10 * time.Millisecond) {
		if err := conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')").Scan(&waits); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// StartAsStandby starts a cluster again that was stopped, as a standby.
func (c *Cluster) StartAsStandby(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, "data", "standby.signal"), nil, 0o644); err != nil {
		t.Error(err)
	}
	c.tell(t, "start")
}

// start starts a cluster on a socket in a temporary folder, see watch.
func start(bin, of string) (*Cluster, error) {
	initial.once.Do(func() { initial.cluster, initial.err = command(initialize, bin) })
	if initial.err != nil {
		return nil, initial.err
	}
	return command(watch, bin, initial.cluster.dir, of)
}

// initial is the data that each cluster of this process begins with: a copy costs a tenth of
// making it.
var initial struct {
	once    sync.Once
	cluster *Cluster // which does not run
	err     error
}

// command runs a shell script of a cluster until it has said a word. Its arguments are the
// folder of the binaries, that of the cluster, and more.
func command(script, bin string, more ...string) (c *Cluster, err error) {
	dir, err := os.MkdirTemp("", "postgrestest-") // short: the path of a socket has 107 bytes at most
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Path: "/postgres", RawQuery: url.Values{"host": {dir}}.Encode()}
	c = &Cluster{URL: u.String(), dir: dir}
	cmd := exec.Command("sh", append([]string{"-c", script, bin, dir}, more...)...)
	if err := unprivileged(cmd, dir); err != nil {
		return nil, err
	}
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.out, err = cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := fmt.Fscanln(c.out, new(string)); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		return nil, fmt.Errorf("%w; its log:\n%s", err, log)
	}
	return c, nil
}
