package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"switchyard/router"
	"switchyard/rules"
)

// Access says who may use the console and the API.
type Access struct {
	Tokens []Token `yaml:"tokens"`
	OIDC   *OIDC   `yaml:"oidc"` // nil: nobody logs in by it
}

// A Token is one that somebody may show.
type Token struct {
	Name   string       `yaml:"name"` // of who has it; unique
	SHA256 Hash         `yaml:"sha256"`
	Role   Role         `yaml:"role"`
	Repos  router.Scope `yaml:"repos"` // what its holder sees; nil: everything, which the file says as all
}

// leastToken is the minimum length of a token, in bytes. Those of switchyard
// token have 56; ones that people made by hand and use are shorter.
const leastToken = 8

// CheckToken returns why a text is too easily guessed to be a token, or nil.
func CheckToken(token string) error {
	if len(strings.TrimSpace(token)) < leastToken {
		return fmt.Errorf("a token needs at least %d characters, as shorter ones can be guessed; switchyard token makes one", leastToken)
	}
	return nil
}

// A Hash is the SHA-256 of a token, hexadecimal in the file.
type Hash [32]byte

// UnmarshalYAML reads 64 hexadecimal digits.
func (h *Hash) UnmarshalYAML(node ast.Node) error {
	b, err := hex.DecodeString(node.GetToken().Value)
	if err != nil || len(b) != len(h) {
		return &yaml.SyntaxError{Token: node.GetToken(), Message: "want the SHA-256 of the token as 64 hexadecimal digits; switchyard token makes both"}
	}
	copy(h[:], b)
	return nil
}

// UnmarshalYAML reads a role's name.
func (r *Role) UnmarshalYAML(node ast.Node) error {
	if err := r.UnmarshalText([]byte(node.GetToken().Value)); err != nil {
		return &yaml.SyntaxError{Token: node.GetToken(), Message: err.Error()}
	}
	return nil
}

// OIDC is the OpenID Connect provider with which people log in.
type OIDC struct {
	Issuer           string      `yaml:"issuer"` // its URL, as in its discovery document
	ClientID         string      `yaml:"client_id"`
	ClientSecretFile string      `yaml:"client_secret_file"` // "": the client has none
	URL              string      `yaml:"url"`                // of the console, as browsers reach it; its redirect URL is this and /login/callback
	Scopes           []string    `yaml:"scopes"`             // besides openid; nil: profile, email, groups
	NameClaim        string      `yaml:"name_claim"`         // whose text names a person; "": email
	GroupsClaim      string      `yaml:"groups_claim"`       // whose list of texts decides the role; "": groups
	Roles            []GroupRole `yaml:"roles"`              // of a person in several groups the highest role counts, with the repositories of the groups that have it
}

// A GroupRole is what those in a group may.
type GroupRole struct {
	Group string       `yaml:"group"`
	Role  Role         `yaml:"role"`
	Repos router.Scope `yaml:"repos"` // nil: everything, which the file says as all
}

const (
	maxScope = 200   // repositories of one token or group
	allRepos = "all" // what repos says for everything: a file that was cut off must not
)

// anonyms are the names in the audit trail that no token may have.
var anonyms = []string{somebody, loopbackName, "GitHub", AdminToken}

// unmarshalRepos reads repos: a list of repositories, or all. What is neither is
// taken for the name of a repository, so that the fault has its place.
func unmarshalRepos(s *router.Scope, src []byte) error {
	var word string
	if yaml.Unmarshal(src, &word) == nil && word != "" {
		*s = router.Scope{word}
	} else if yaml.Unmarshal(src, (*[]string)(s)) != nil {
		*s = router.Scope{strings.TrimSpace(string(src))}
	}
	return nil
}

// cutOff matches a file that ends, without a line break, in what may be the
// beginning of a repository's name: it would be another's.
var cutOff = regexp.MustCompile(`(?:^|\n)[ \t]*(?:-|(?:-[ \t]+)?repos:)[ \t]+([^\s{\[]+)[ \t]*$`)

var scopePattern = regexp.MustCompile(`^([A-Za-z0-9.:-]+/)?[A-Za-z0-9._-]+/(\*|[A-Za-z0-9._-]+)$`)

// ParseAccess reads an access file. Its error is rules.Diagnostics, with all
// faults, unless it cannot be read as it stands: then the first.
func ParseAccess(name string, src []byte) (*Access, error) {
	c := accessReader{name: name}
	file, err := parser.ParseBytes(src, 0)
	if err == nil {
		c.file = file
		if len(file.Docs) > 0 {
			if list, ok := file.Docs[0].Body.(*ast.SequenceNode); ok {
				at := list.GetToken().Position
				return nil, rules.Diagnostics{{File: name, Line: at.Line, Column: at.Column, Message: "the entries belong below a line tokens:, which is missing"}}
			}
		}
		err = yaml.NewDecoder(bytes.NewReader(src), yaml.Strict(), yaml.CustomUnmarshaler(unmarshalRepos)).Decode(&c.access)
	}
	if err != nil && !errors.Is(err, io.EOF) { // that of an empty file
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil {
			p := at.GetToken().Position
			return nil, rules.Diagnostics{{File: name, Line: p.Line, Column: p.Column, Message: at.GetMessage()}}
		}
		return nil, rules.Diagnostics{{File: name, Line: 1, Column: 1, Message: err.Error()}}
	}
	c.check()
	if last := cutOff.FindSubmatch(src); last != nil && string(last[1]) != allRepos {
		c.found = append(c.found, rules.Diagnostic{File: name, Line: bytes.Count(src, []byte("\n")) + 1, Column: 1, Message: "the file ends within a line, so it may be cut off: end it with a line break"})
	}
	if len(c.found) > 0 {
		return nil, c.found
	}
	return &c.access, nil
}

type accessReader struct {
	name   string
	file   *ast.File
	access Access
	found  rules.Diagnostics
}

// fault records one at a path such as $.tokens[0].role, or at the part of it that exists.
func (c *accessReader) fault(path, format string, args ...any) {
	d := rules.Diagnostic{File: c.name, Line: 1, Column: 1, Message: fmt.Sprintf(format, args...)}
	for p := path; p != "$"; p = p[:max(strings.LastIndexAny(p, ".["), 1)] {
		if node := c.node(p); node != nil {
			d.Line, d.Column = node.GetToken().Position.Line, node.GetToken().Position.Column
			break
		}
	}
	c.found = append(c.found, d)
}

// node returns what is at a path, if only null; nil: nothing is.
func (c *accessReader) node(path string) ast.Node {
	at, err := yaml.PathString(path)
	if err != nil || c.file == nil {
		return nil
	}
	node, _ := at.FilterFile(c.file) // nil if it fails
	return node
}

func (c *accessReader) check() {
	acc := &c.access
	if len(acc.Tokens) == 0 && acc.OIDC == nil {
		c.fault("$", "nobody may log in: want tokens or oidc")
	}
	names, hashes := map[string]bool{}, map[Hash]string{}
	for i, t := range acc.Tokens {
		at := fmt.Sprintf("$.tokens[%d]", i)
		switch {
		case t.Name == "" || len(t.Name) > 100 || router.Printable(t.Name) != t.Name || strings.TrimSpace(t.Name) != t.Name:
			c.fault(at+".name", "a token needs a name of at most 100 characters, without blanks around it: who has it")
		case slices.ContainsFunc(anonyms, func(taken string) bool { return strings.EqualFold(taken, t.Name) }) || strings.Contains(t.Name, subjectMark):
			c.fault(at+".name", "the name %s is reserved in the audit trail: name who has the token", t.Name)
		case names[t.Name]:
			c.fault(at+".name", "there are two tokens named %s", t.Name)
		}
		names[t.Name] = true
		if t.SHA256 == (Hash{}) {
			c.fault(at+".sha256", "a token needs its sha256; switchyard token makes both")
		}
		if t.SHA256 == sha256.Sum256(nil) {
			c.fault(at+".sha256", "this is the hash of an empty token, which would let everybody in; switchyard token makes a token")
		}
		if other, ok := hashes[t.SHA256]; ok && t.SHA256 != (Hash{}) {
			c.fault(at+".sha256", "this is also the token of %s: each needs its own", other)
		}
		hashes[t.SHA256] = t.Name
		acc.Tokens[i].Repos = c.role(at, t.Role, t.Repos)
	}
	for short := range guessable {
		if name, ok := hashes[short]; ok {
			i := slices.IndexFunc(acc.Tokens, func(t Token) bool { return t.Name == name })
			c.fault(fmt.Sprintf("$.tokens[%d].sha256", i), "this is the hash of one or two characters, which is easily guessed; switchyard token makes a token")
		}
	}
	o := acc.OIDC
	if o == nil {
		return
	}
	if u, err := url.Parse(o.Issuer); err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && router.LocalHost(u.Host)) {
		c.fault("$.oidc.issuer", "issuer %q: want the https:// URL of the provider", o.Issuer)
	}
	if u, err := url.Parse(o.URL); err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.Scheme != "https" && !(u.Scheme == "http" && router.LocalHost(u.Host)) {
		c.fault("$.oidc.url", "url %q: want the https:// URL of the console, without a path", o.URL)
	}
	if o.ClientID == "" {
		c.fault("$.oidc.client_id", "client_id is missing: Switchyard's client at the provider")
	}
	if len(o.Roles) == 0 {
		c.fault("$.oidc.roles", "roles are missing: nobody could log in")
	}
	for i, r := range o.Roles {
		at := fmt.Sprintf("$.oidc.roles[%d]", i)
		if r.Group == "" || len(r.Group) > maxGroup {
			c.fault(at+".group", "a role needs the group that has it, of at most %d bytes", maxGroup)
		}
		o.Roles[i].Repos = c.role(at, r.Role, r.Repos)
	}
}

// role checks a role with its repositories, and returns what is seen.
func (c *accessReader) role(at string, role Role, repos router.Scope) router.Scope {
	all := len(repos) == 1 && repos[0] == allRepos
	switch {
	case role == 0:
		c.fault(at+".role", "role is missing: want viewer, operator or editor")
	case role == Editor && repos != nil && !all:
		c.fault(at+".repos", "an editor changes the rules for all repositories: leave repos out, or make it an operator")
	case role != Editor && c.node(at+".repos") == nil:
		c.fault(at, "repos is missing: list the repositories, or write repos: all")
	case len(repos) == 0 && c.node(at+".repos") != nil:
		c.fault(at+".repos", "repos is empty: list the repositories, or write repos: all")
	}
	if all {
		return nil
	}
	if len(repos) > maxScope {
		c.fault(at+".repos", "%d repositories exceed the maximum of %d; owner/* covers all of an owner's", len(repos), maxScope)
	}
	for i, r := range repos {
		if !scopePattern.MatchString(r) {
			c.fault(fmt.Sprintf("%s.repos[%d]", at, i), "repository %q: want owner/name, owner/* or host/owner/name", r)
		}
	}
	return repos
}

// guessable yields the hashes of all texts of one or two characters.
func guessable(yield func(Hash) bool) {
	for a := byte(' '); a <= '~'; a++ {
		if !yield(sha256.Sum256([]byte{a})) {
			return
		}
		for b := byte(' '); b <= '~'; b++ {
			if !yield(sha256.Sum256([]byte{a, b})) {
				return
			}
		}
	}
}

// token returns the entry of a token; nil: there is none. It compares with all of them,
// in the same time wherever the right one stands. A token that is easily guessed is
// never right, even if the file has its hash.
func (acc *Access) token(shown string) *Token {
	if CheckToken(shown) != nil {
		return nil
	}
	sum := sha256.Sum256([]byte(shown))
	var found *Token
	for i := range acc.Tokens {
		if subtle.ConstantTimeCompare(sum[:], acc.Tokens[i].SHA256[:]) == 1 {
			found = &acc.Tokens[i]
		}
	}
	return found
}

func (t *Token) principal() Principal {
	return Principal{Name: t.Name, By: byToken, Role: t.Role, Scope: t.Repos}
}
