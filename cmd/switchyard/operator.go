package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/server"
	"switchyard/router/store"
	"switchyard/router/web/api"
	"switchyard/router/web/problem"
)

const (
	askTimeout = 70 * time.Second       // for one answer
	maxAnswer  = 64 << 20               // bytes
	pageSize   = 500                    // the API's maximum
	watchPause = 2 * time.Second        // between two readings when there is no stream of changes
	watchLeast = 300 * time.Millisecond // from a change to reading it
	watchMost  = 10 * time.Second       // between two readings
)

// An operator reaches a running server's API for a command, or reads the server's
// database file instead.
type operator struct {
	server, tokenFile string
	flag              string        // the flag that set server; "": --server
	db                string        // "": ask the server
	format            string        // text or json
	watched           bool          // print again on every change
	most              time.Duration // between two readings of a watch; 0: watchMost
}

// flags adds the flags that say which server to ask.
func (o *operator) flags(fl *pflag.FlagSet) {
	o.serverFlag(fl)
	o.tokenFlag(fl)
	fl.StringVar(&o.format, "format", "text", "text or json")
}

func (o *operator) serverFlag(fl *pflag.FlagSet) {
	fl.StringVar(&o.server, "server", cmp.Or(os.Getenv(envName("server")), ownServer()), "`URL` or unix:PATH of the server's --admin-listen; also SWITCHYARD_SERVER")
}

// ownServer returns the address of the server with this environment: commands in its
// container or its Nomad task ask it.
func ownServer() string {
	listen := cmp.Or(os.Getenv(envName("admin-listen")), "127.0.0.1:8081")
	if strings.HasPrefix(listen, server.SocketPrefix) {
		return listen
	}
	host, port, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip.IsUnspecified()) {
		listen = net.JoinHostPort("127.0.0.1", port)
	}
	return "http://" + listen
}

func (o *operator) tokenFlag(fl *pflag.FlagSet) {
	fl.StringVar(&o.tokenFile, "token-file", "", "the server's --admin-token-file; also SWITCHYARD_ADMIN_TOKEN, the token itself")
}

// showFlags adds the flags of a command that only shows something.
func (o *operator) showFlags(fl *pflag.FlagSet, again string) {
	fl.BoolVar(&o.watched, "watch", false, again+" when something changes, until interrupted")
	o.flags(fl)
	fl.StringVar(&o.db, "db", "", "read this `database` instead of asking a server: a file, or a URL postgres://…")
}

func (o *operator) check() error { return checkFormat(o.format, "text", "json") }

// hint says what to check when there is no usable answer.
func (o *operator) hint() string {
	return "is " + cmp.Or(o.flag, "--server") + " the --admin-listen of a running switchyard serve?"
}

// request returns a request to the server's API.
func (o *operator) request(ctx context.Context, method, path string, params url.Values, body any) (*http.Request, error) {
	server := o.server
	if _, ok := o.socket(); ok {
		server = "http://localhost"
	} else if !strings.Contains(server, "://") {
		server = "http://" + server
	}
	address := strings.TrimSuffix(server, "/") + path
	if len(params) > 0 {
		address += "?" + params.Encode()
	}
	token, err := o.token()
	if err != nil {
		return nil, err
	}
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmp.Or(o.flag, "--server"), err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+string(token))
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// socket returns the path of the server's Unix socket, if --server names one.
func (o *operator) socket() (path string, ok bool) {
	return strings.CutPrefix(o.server, server.SocketPrefix)
}

func (o *operator) client() *http.Client {
	path, ok := o.socket()
	if !ok {
		return http.DefaultClient
	}
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // nobody would close idle connections
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
}

// ask sends one request to the server's API and decodes its answer into v. If the
// answer is a problem, the error is a *problem.Details.
func (o *operator) ask(ctx context.Context, method, path string, params url.Values, body, v any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := o.request(ctx, method, path, params, body)
	if err != nil {
		return err
	}
	resp, err := o.client().Do(req)
	if err != nil {
		if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
			return fmt.Errorf("ask the server: %w; set SSL_CERT_FILE to the authorities to trust", err)
		}
		return fmt.Errorf("ask the server: %w; %s", err, o.hint())
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", o.server, err)
	}
	if resp.StatusCode != http.StatusOK {
		var p problem.Details
		if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") && json.Unmarshal(b, &p) == nil && p.Detail != "" {
			p.Status = resp.StatusCode
			if p.Status == http.StatusUnauthorized {
				if req.Header.Get("Authorization") == "" {
					p.Detail += "; give its token with --token-file FILE"
				} else {
					p.Detail += "; the given token is not valid"
				}
			}
			p.Detail = router.Printable(p.Detail)
			return &p
		}
		return fmt.Errorf("%s answered %s; %s", o.server, router.Printable(resp.Status), o.hint())
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("the answer of %s is not Switchyard's: %w; %s", o.server, err, o.hint())
	}
	return nil
}

// token returns the token for the server; "" if none was given.
func (o *operator) token() (router.Secret, error) {
	if o.tokenFile == "" {
		return router.Secret(os.Getenv(envName("admin-token"))), nil
	}
	token, err := gh.TokenFile(o.tokenFile)()
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	return token, nil
}

// get asks the server for path, or calls read with the database file.
func get[T any](ctx context.Context, o *operator, path string, params url.Values, read func(api.Database) (T, error)) (v T, err error) {
	if o.db == "" {
		err = o.ask(ctx, http.MethodGet, api.Prefix+path, params, nil, &v)
		return v, err
	}
	r, err := store.OpenReadOnly(ctx, o.db)
	if err != nil {
		return v, err
	}
	v, err = read(r)
	return v, errors.Join(err, r.Close())
}

// pages asks for pages of a list until there are limit items, the value of
// --limit, or the list ends; next is "" then.
func pages[T any](params url.Values, limit int, page func(url.Values) (items []T, next string, err error)) (list []T, next string, err error) {
	if limit < 1 {
		return nil, "", fmt.Errorf("--limit %d: want at least 1", limit)
	}
	list = []T{}
	params.Del("cursor")
	for {
		params.Set("limit", strconv.Itoa(min(limit-len(list), pageSize)))
		var items []T
		if items, next, err = page(params); err != nil {
			return nil, "", err
		}
		if list = append(list, items...); next == "" || len(list) >= limit {
			return list, next, nil
		}
		params.Set("cursor", next)
	}
}

// show prints what find returns, as JSON or for people by text, which gets the columns of
// the terminal (0: any number) and the present time; with --watch it prints again on every
// change.
func show[T any](cmd *cobra.Command, o *operator, find func(context.Context) (T, error), text func(out io.Writer, v T, columns int, now time.Time) error) error {
	if err := o.check(); err != nil {
		return err
	}
	columns, _ := width(cmd.OutOrStdout())
	write := func(out io.Writer) error {
		v, err := find(cmd.Context())
		switch {
		case err != nil:
			return err
		case o.format == "json":
			return writeJSON(out, v)
		}
		return text(out, v, columns, time.Now())
	}
	switch {
	case o.watched && o.db == "":
		return o.follow(cmd.Context(), func(ctx context.Context, next func(context.Context)) error {
			return watch(ctx, cmd.OutOrStdout(), next, write)
		})
	case o.watched:
		return watch(cmd.Context(), cmd.OutOrStdout(), pause, write)
	}
	return write(cmd.OutOrStdout())
}

// watch calls write now and whenever next returns, until write fails or ctx ends,
// which is no error. On a terminal each output replaces the one before.
func watch(ctx context.Context, out io.Writer, next func(context.Context), write func(io.Writer) error) error {
	_, terminal := width(out)
	for {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if terminal {
			b = *bytes.NewBufferString("\x1b[H\x1b[2J" + b.String())
		}
		if _, err := out.Write(b.Bytes()); err != nil {
			return err
		}
		if next(ctx); ctx.Err() != nil {
			return nil
		}
	}
}

// pause waits until it is time to read a database file again.
func pause(ctx context.Context) { router.Pause(ctx, watchPause) }

// follow calls do with a function that waits for the server to report a change,
// but for watchMost at most, because the output shows ages. Without a stream of
// changes it waits as pause does.
func (o *operator) follow(ctx context.Context, do func(ctx context.Context, next func(context.Context)) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	changed, opened := make(chan struct{}, 1), make(chan struct{})
	wake := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	reading.Go(func() {
		open := sync.OnceFunc(func() { close(opened) })
		for ctx.Err() == nil {
			o.stream(ctx, open, wake)
			open() // without a stream: the first request shows why
			router.Pause(ctx, watchPause)
			wake()
		}
	})
	select {
	case <-opened: // nothing that changes from now on is missed
	case <-time.After(watchPause):
	case <-ctx.Done():
	}
	return do(ctx, func(ctx context.Context) {
		most := time.NewTimer(cmp.Or(o.most, watchMost))
		defer most.Stop()
		select {
		case <-changed:
			router.Pause(ctx, watchLeast) // for related changes
		case <-most.C:
		case <-ctx.Done():
		}
	})
}

// stream reads the server's stream of changes until it ends. It calls open once it
// is open, and wake at each change.
func (o *operator) stream(ctx context.Context, open, wake func()) {
	req, err := o.request(ctx, http.MethodGet, api.Prefix+"/events", nil, nil)
	if err != nil {
		return
	}
	resp, err := o.client().Do(req)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return
	}
	open()
	for lines := bufio.NewReader(resp.Body); ; {
		line, _, err := lines.ReadLine()
		if err != nil {
			return
		}
		if bytes.HasPrefix(line, []byte("event:")) {
			wake()
		}
	}
}

// width returns the number of columns of a terminal; terminal is false if out is
// not a terminal.
func width(out io.Writer) (columns int, terminal bool) {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	return columns, err == nil && columns > 0
}

// A table is rows of aligned cells for people. Strangers' text in them is made
// harmless. Lines are cut to columns; 0: they are not cut.
type table struct {
	rows    [][]string
	columns int
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// writeMore returns the error of writing a page of a list, and otherwise adds a hint
// if the list has a next page.
func writeMore(out io.Writer, next string, page error) error {
	if page != nil || next == "" {
		return page
	}
	_, err := fmt.Fprintln(out, "there are more; see --limit")
	return err
}

func (t *table) write(out io.Writer) error {
	var b bytes.Buffer
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		for i, cell := range row {
			row[i] = router.Printable(cell)
		}
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		line = strings.TrimRight(line, " \n")
		if runes := []rune(line); t.columns > 0 && len(runes) > t.columns {
			line = string(runes[:t.columns-1]) + "…"
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
	return nil
}

// ago formats the time from t to now for a table: 45s, 12m, 3h20m, 2d.
func ago(now, t time.Time) string { return short(now.Sub(t)) }

func short(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.3gs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Hour:
		return strings.TrimSuffix(d.Truncate(time.Second).String(), "m0s") + map[bool]string{true: "m"}[d.Truncate(time.Second)%time.Minute == 0]
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}
