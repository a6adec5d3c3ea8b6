package nomad

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"unicode"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
)

// noPath is how Nomad says that it knows no such region.
const noPath = "No path to region"

// maxWords bounds Nomad's words in an error, in characters.
const maxWords = 600

// A call is something asked of Nomad, for errors.
type call struct {
	what       string // "register job gha-1-1"
	at         scope  // without a namespace for what is in none
	capability string // the ACL capability that it takes
	badRequest string // what to do when Nomad cannot read it; "": doubt the address
}

func (c call) String() string {
	if c.at.Namespace == "" {
		return c.what
	}
	return fmt.Sprintf("%s in namespace %s", c.what, c.at.Namespace)
}

// sorted turns an error of the API client into one of router.Nomad's. What it
// does not know is worth a retry: a job is never given up on a guess.
func (c call) sorted(err error) error {
	code := status(err)
	if code == 0 {
		return c.unanswered(err)
	}
	said := words(err)
	plain := fmt.Errorf("%s: Nomad answered %d: %s", c, code, said)
	if fix, ok := fixFor(said); ok {
		return &router.FixError{Fix: fix, Err: plain}
	}
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return &router.FixError{Fix: needs(c.capability, c.at), Err: plain}
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed:
		fix := "check that NOMAD_ADDR is the address of a Nomad agent"
		if code == http.StatusBadRequest && c.badRequest != "" {
			fix, plain = c.badRequest, &router.JobspecError{Err: plain}
		}
		return &router.FixError{Fix: fix, Err: plain}
	}
	return plain
}

func needs(capability string, at scope) string {
	if at.Namespace == "" {
		return "set NOMAD_TOKEN to a token that has " + capability
	}
	if at.Namespace == api.AllNamespacesNamespace {
		return fmt.Sprintf("set NOMAD_TOKEN to a token that has %s on each namespace that rules name; it needs no other", capability)
	}
	return fmt.Sprintf("set NOMAD_TOKEN to a token that has %s on namespace %s", capability, at.Namespace)
}

// unanswered sorts an error of the connection.
func (c call) unanswered(err error) error {
	err = fmt.Errorf("%s: %w", c, router.WithoutLocalPort(err))
	var certificate *tls.CertificateVerificationError
	var network *net.OpError
	switch {
	case errors.As(err, &certificate):
		return &router.FixError{Fix: "set NOMAD_CACERT, and NOMAD_TLS_SERVER_NAME where the name differs, so that Nomad's certificate is trusted", Err: err}
	case errors.As(err, &network) && network.Op == "remote error": // crypto/tls's word for an alert
		return &router.FixError{Fix: "set NOMAD_CLIENT_CERT and NOMAD_CLIENT_KEY to a pair that Nomad trusts", Err: err}
	case errors.Is(err, http.ErrSchemeMismatch):
		return &router.FixError{Fix: "write NOMAD_ADDR with http:// instead of https://", Err: err}
	}
	return err
}

// refusal is the error for a job that Nomad finds invalid, in its words.
func (c call) refusal(said string) error {
	said = line(said)
	var err error = &router.JobspecError{Err: fmt.Errorf("%s: Nomad refuses it: %s", c, said)}
	if fix, ok := fixFor(said); ok {
		return &router.FixError{Fix: fix, Err: err}
	}
	return &router.GiveUpError{Err: err}
}

// refused tells a verdict from trouble on the way to it.
func refused(err error) bool {
	var giveUp *router.GiveUpError
	var fix *router.FixError
	return errors.As(err, &giveUp) || errors.As(err, &fix)
}

// fixFor is what to do about an answer that waits for an operator. These are
// told by their words alone; read in the sources of Nomad v2.0.6-dev and Go
// 1.26, 2026-11-24.
func fixFor(said string) (fix string, ok bool) {
	for _, f := range []struct{ says, fix string }{
		// nomad/job_endpoint_validators.go, nomad/state/state_store.go
		{"nonexistent namespace", "create the namespace, or correct it in the rule or jobspec"},
		// nomad/job_endpoint_hook_node_pool.go, nomad/state/state_store.go
		{"nonexistent node pool", "create the node pool, or correct it in the rule or jobspec"},
		// nomad/structs/errors.go: errNoRegionPath, errJobRegistrationDisabled
		{noPath, "join the region, or correct it in NOMAD_REGION or the jobspec"},
		{"disabled by the scheduler configuration", "let Nomad take jobs again (nomad operator scheduler set-config -reject-job-registration=false), or give Switchyard a management token"},
		// Go's net/http/server.go, for a Nomad that wants TLS
		{"HTTP request to an HTTPS server", "write NOMAD_ADDR with https:// instead of http://"},
	} {
		if strings.Contains(said, f.says) {
			return f.fix, true
		}
	}
	return "", false
}

// unclear reports whether an answer may mean that the job exists, that it is
// invalid, or that Nomad is in trouble.
func unclear(err error) bool {
	return status(err) == http.StatusInternalServerError || status(err) == http.StatusBadRequest
}

// status is the HTTP status of Nomad's answer: 200 without an error, 0 when there was no answer.
func status(err error) int {
	if err == nil {
		return http.StatusOK
	}
	unexpected, ok := errors.AsType[api.UnexpectedResponseError](err)
	if !ok {
		return 0
	}
	return unexpected.StatusCode()
}

// words is what Nomad said, as one line.
func words(err error) string {
	if unexpected, ok := errors.AsType[api.UnexpectedResponseError](err); ok && unexpected.HasBody() {
		return line(unexpected.Body())
	}
	return line(err.Error())
}

// line makes one bounded line of Nomad's words.
func line(s string) string {
	return printable(strings.Join(strings.Fields(s), " "), maxWords)
}

// warnings takes Nomad's list of warnings apart: a heading, then "* " before each.
func warnings(list string) []string {
	var each []string
	for i, w := range strings.Split(list, "\n* ") {
		if i > 0 {
			each = append(each, line(w))
		}
	}
	return each
}

// printable makes of every character that does not print a space, and leaves
// at most max characters.
func printable(s string, max int) string {
	all := []rune(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, s))
	if len(all) > max {
		all = append(all[:max-1], '…')
	}
	return string(all)
}
