package nomad

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
)

const (
	noPath   = "No path to region" // Nomad's words for a region that it does not know, or that has no server alive
	maxWords = 600                 // characters of Nomad's words in an error

	// NodeRead is the capability that reading nodes takes, as in an ACL policy.
	NodeRead = `node { policy = "read" }`
)

// A Call describes one request to Nomad, for its errors.
type Call struct {
	What       string // such as "register job gha-1-1"
	At         Scope  // without a namespace for what has none
	Capability string // the ACL capability that it needs
	BadRequest string // what to do when Nomad cannot read it; "": check the address
}

func (c Call) String() string {
	said := c.What
	if c.At.Namespace != "" {
		said += " in namespace " + c.At.Namespace
	}
	if c.At.Region != "" {
		said += " of region " + c.At.Region
	}
	return said
}

// Classify turns an error of the API client into one of router.Nomad's. An unknown error
// is worth a retry: no job is given up on a guess.
func (c Call) Classify(err error) error {
	code := Status(err)
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
		return &router.FixError{Fix: needs(c.Capability, c.At), Err: plain}
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed:
		fix := "check that NOMAD_ADDR is the address of a Nomad agent"
		if code == http.StatusBadRequest && c.BadRequest != "" {
			fix, plain = c.BadRequest, &router.JobspecError{Err: plain}
		}
		return &router.FixError{Fix: fix, Err: plain}
	}
	return plain
}

func needs(capability string, at Scope) string {
	token := "a token"
	if at.Region != "" { // others are valid in the region that made them
		token = "a global token, as for region " + at.Region + ","
	}
	if at.Namespace == "" {
		return fmt.Sprintf("set NOMAD_TOKEN to %s that has %s", token, capability)
	}
	if at.Namespace == api.AllNamespacesNamespace {
		return fmt.Sprintf("set NOMAD_TOKEN to %s that has %s on each namespace that rules name; it needs no other", token, capability)
	}
	return fmt.Sprintf("set NOMAD_TOKEN to %s that has %s on namespace %s", token, capability, at.Namespace)
}

// unanswered classifies an error of the connection.
func (c Call) unanswered(err error) error {
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

// refusal returns the error for a job that Nomad finds invalid, with Nomad's words.
func (c Call) refusal(said string) error {
	said = Line(said)
	var err error = &router.JobspecError{Err: fmt.Errorf("%s: Nomad refuses it: %s", c, said)}
	if fix, ok := fixFor(said); ok {
		return &router.FixError{Fix: fix, Err: err}
	}
	return &router.GiveUpError{Err: err}
}

// refused reports whether err is a verdict on a job, and not a failure to get one.
func refused(err error) bool {
	return errors.As(err, new(*router.GiveUpError)) || errors.As(err, new(*router.FixError))
}

// fixFor returns what to do about an answer that needs an operator. Only the words
// tell such answers apart (sources of Nomad v2.0.6-dev and Go 1.26, read 2026-11-24).
func fixFor(said string) (fix string, ok bool) {
	for _, f := range []struct{ says, fix string }{
		// nomad/job_endpoint_validators.go, nomad/state/state_store.go
		{"nonexistent namespace", "create the namespace, or correct it in the rule or jobspec"},
		// nomad/job_endpoint_hook_node_pool.go, nomad/state/state_store.go
		{"nonexistent node pool", "create the node pool, or correct it in the rule or jobspec"},
		// nomad/structs/errors.go: errNoRegionPath, errJobRegistrationDisabled
		{noPath, "join the region, or correct it in the rule, the jobspec or NOMAD_REGION"},
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

// Unclear reports whether an answer may mean that the job exists, that it is
// invalid, or that Nomad itself failed.
func Unclear(err error) bool {
	return Status(err) == http.StatusInternalServerError || Status(err) == http.StatusBadRequest
}

// NoRegion reports whether an error says that Nomad has no path to the region: it does not
// know it, or none of its servers is alive.
func NoRegion(err error) bool { return strings.Contains(err.Error(), noPath) }

// Status returns the HTTP status of Nomad's answer: 200 if err is nil, 0 when there was no answer.
func Status(err error) int {
	if err == nil {
		return http.StatusOK
	}
	unexpected, ok := errors.AsType[api.UnexpectedResponseError](err)
	if !ok {
		return 0
	}
	return unexpected.StatusCode()
}

// words returns what Nomad said, as one line.
func words(err error) string {
	if unexpected, ok := errors.AsType[api.UnexpectedResponseError](err); ok && unexpected.HasBody() {
		return Line(unexpected.Body())
	}
	return Line(err.Error())
}

// Line returns Nomad's words as one printable line of at most 600 characters.
func Line(s string) string {
	return Printable(strings.Join(strings.Fields(s), " "), maxWords)
}

// Warnings splits Nomad's list of warnings: a heading, then "* " before each.
func Warnings(list string) []string {
	var each []string
	for i, w := range strings.Split(list, "\n* ") {
		if i > 0 {
			each = append(each, Line(w))
		}
	}
	return each
}

// Printable replaces every character that does not print by a space, and cuts the
// text to most characters.
func Printable(s string, most int) string {
	all := []rune(router.OneLine(s))
	if len(all) > most {
		all = append(all[:most-1], '…')
	}
	return string(all)
}
