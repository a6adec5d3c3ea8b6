package router

import "strings"

// A Scope lists the repositories that somebody may see, as owner/name or owner/* on
// every GitHub, or as HOST/owner/name or HOST/owner/* on one. They are compared without
// case. nil: all repositories; empty, but not nil: none.
type Scope []string

// Has reports whether a repository is in the scope.
func (s Scope) Has(r Repo) bool {
	if s == nil {
		return true
	}
	for _, pattern := range s {
		host, owner, name := SplitScope(pattern)
		if (host == "" || strings.EqualFold(host, r.Host)) && strings.EqualFold(owner, r.Owner) && (name == "*" || strings.EqualFold(name, r.Name)) {
			return true
		}
	}
	return false
}

// SplitScope returns the parts of one pattern of a Scope; host is "" for any GitHub.
func SplitScope(pattern string) (host, owner, name string) {
	parts := strings.SplitN(pattern, "/", 3)
	switch len(parts) {
	case 3:
		return parts[0], parts[1], parts[2]
	case 2:
		return "", parts[0], parts[1]
	}
	return "", pattern, "*"
}
