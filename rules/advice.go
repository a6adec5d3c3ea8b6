package rules

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"switchyard/rules/internal/yamlfile"
)

// What people who know GitHub's workflows, or YAML a little, write first, and
// what they meant. Each is asked for only where something is wrong already.

// inExpression returns what was likely meant by a faulty expression, to follow the library's
// message; "" when it cannot tell.
func inExpression(source, message string) string {
	code := blanked(source)
	if m := asFunction.FindStringSubmatchIndex(code); m != nil && beforeOperand.MatchString(code[:m[2]]) {
		name := code[m[2]:m[3]]
		if strings.HasSuffix(code[:m[2]], "labels.") {
			return `to ask for a label, write has("gpu")`
		}
		form := "x " + name + ` "y"`
		if a, b, ok := twoArguments(source, code, m[1]); ok {
			if a = cmp.Or(githubNames[a], a); a == "labels" && name == "contains" {
				return "contains is not a function: write has(" + b + ")"
			}
			form = a + " " + name + " " + b
		}
		return name + " is an operator, not a function: write " + form
	}
	unknown := ""
	if m := unknownName.FindStringSubmatch(message); m != nil {
		unknown = m[1]
	}
	word := strings.TrimSpace(source)
	switch {
	case unknown != "" && unknown == "github":
		full := dotted.FindString(code[strings.Index(code, "github"):])
		if meant := githubNames[full]; meant != "" {
			return full + " exists only in workflows: write " + meant
		}
		return "github exists only in workflows: rules see repo, job and run, such as repo.full_name, job.branch and run.event"
	case unknown == "runner":
		return "runner exists only in workflows, and there is none yet: ask for the job's label, has(\"linux\")"
	case slices.Contains([]string{"env", "vars", "secrets", "inputs", "matrix", "needs", "steps", "strategy"}, unknown):
		return unknown + " exists only in workflows: rules see labels, param, repo, job and run"
	case unknown != "" && yamlfile.PlainLabel.MatchString(word): // if: linux, scope: self-hosted
		return "to ask for a label, write has(\"" + word + "\")"
	case githubNames[unknown] != "":
		return "write " + githubNames[unknown]
	case strings.Contains(message, `Operator("=")`):
		return "write == to compare"
	case strings.Contains(message, "&&\")") || strings.Contains(message, "||\")"):
		return ""
	}
	if m := unexpectedWord.FindStringSubmatch(message); m != nil {
		switch lower := strings.ToLower(m[1]); lower {
		case "and", "or", "not", "in":
			return "write " + lower + ", in lower case"
		case "like", "regex", "regexp", "match":
			return `write matches, with a regular expression: job.branch matches "^release/"`
		case "has", "hasany", "only", "exactly", "includes":
			return `write it as a function: has("gpu")`
		}
	}
	switch {
	case strings.Contains(message, "mismatched types []string and string"), strings.Contains(message, "array elements can only be selected"):
		return `to ask for a label, write has("gpu")`
	case strings.ContainsAny(source, "“”„‘’«»"):
		return `write straight quotes: "gpu"`
	case strings.Contains(message, "'~'"):
		return `write matches: job.branch matches "^release/"`
	case strings.Contains(message, "EOF") && strings.Count(code, "(") > strings.Count(code, ")"):
		return "a ) is missing"
	}
	if m := noFunction.FindStringSubmatch(message); m != nil {
		switch strings.ToLower(m[1]) {
		case "fromjson", "tojson", "format", "hashfiles", "always", "success", "failure", "cancelled":
			return m[1] + " exists only in workflows"
		case "regexp", "regex", "match", "test":
			return `write matches: job.branch matches "^release/"`
		case "includes", "contain":
			return `to ask for a label, write has("gpu")`
		}
	}
	return ""
}

var (
	asFunction     = regexp.MustCompile(`\b(contains|startsWith|endsWith|matches)\s*\(`)
	beforeOperand  = regexp.MustCompile(`(^|[(,&|!.]|\b(and|or|not))\s*$`)
	unknownName    = regexp.MustCompile(`unknown name ([A-Za-z_]\w*)`)
	unexpectedWord = regexp.MustCompile(`unexpected token Identifier\("(\w+)"\)`)
	noFunction     = regexp.MustCompile(`there is no function "(\w+)"`)
	dotted         = regexp.MustCompile(`^[a-z_]+(\.[a-z_]+)*`)
)

// githubNames are names that workflows have, or that people guess, and what rules call them.
var githubNames = map[string]string{
	"github.repository": "repo.full_name", "github.repository_owner": "repo.owner", "github.event.repository.name": "repo.name",
	"github.event.repository.private": "repo.private", "github.event.repository.fork": "repo.fork", "github.event.repository.visibility": "repo.visibility",
	"github.ref": "job.branch", "github.ref_name": "job.branch", "github.head_ref": "job.branch",
	"github.actor": "run.actor", "github.triggering_actor": "job.sender", "github.event.sender.login": "job.sender",
	"github.event_name": "run.event", "github.workflow": "job.workflow", "github.job": "job.name", "github.run_attempt": "job.attempt",
	"repository": "repo.full_name", "owner": "repo.owner", "org": "repo.owner", "organization": "repo.owner", "ref": "job.branch", "branch": "job.branch",
	"event": "run.event", "event_name": "run.event", "actor": "run.actor", "sender": "job.sender", "workflow": "job.workflow",
	"private": "repo.private", "visibility": "repo.visibility", "fork": "repo.fork",
}

// blanked replaces what stands in quotes by blanks, byte by byte.
func blanked(source string) string {
	b := []byte(source)
	var quote byte
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quote == 0 && (c == '"' || c == '\'' || c == '`'):
			quote = c
		case quote == 0:
		case c == quote:
			quote = 0
		default:
			if b[i] = ' '; c == '\\' && i+1 < len(b) {
				i++
				b[i] = ' '
			}
		}
	}
	return string(b)
}

// twoArguments reads the arguments of a call that begin at a byte of its source.
func twoArguments(source, code string, from int) (a, b string, ok bool) {
	depth, comma := 0, -1
	for i := from; i < len(code); i++ {
		switch code[i] {
		case '(', '[':
			depth++
		case ')', ']':
			if depth--; depth < 0 {
				if comma < 0 {
					return "", "", false
				}
				return strings.TrimSpace(source[from:comma]), strings.TrimSpace(source[comma+1 : i]), true
			}
		case ',':
			if depth == 0 {
				if comma >= 0 {
					return "", "", false
				}
				comma = i
			}
		}
	}
	return "", "", false
}
