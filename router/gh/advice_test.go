package gh_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"switchyard/router"
	"switchyard/router/githubsim"
)

// What GitHub refuses is not always a permission: each refusal has its own advice.
func TestEachRefusalHasItsOwnAdvice(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		says   string
		header [2]string
		kind   string
		advice string
	}{
		{"a full group", 422, "Runner group 1 has reached max limit of 10000 runners", [2]string{}, "fix", "remove runners of that group"},
		{"runners that are disabled", 403, "Repository level self-hosted runners are disabled on this repository.", [2]string{}, "fix", "allow self-hosted runners for the repository"},
		{"Actions that are disabled", 403, "GitHub Actions is disabled on this repository.", [2]string{}, "fix", "enable Actions"},
		{"an IP allow list", 403,
			"Although you appear to have the correct authorization credentials, the `acme` organization has an IP allow list enabled, and your IP address is not permitted to access this resource.",
			[2]string{}, "fix", "add the address of this machine to the IP allow list of acme"},
		{"single sign-on", 403, "Resource protected by organization SAML enforcement. You must grant your Personal Access token access to this organization.",
			[2]string{"X-GitHub-SSO", "required; url=https://github.com/orgs/acme/sso?authorization_request=A1"}, "fix",
			"authorize the GitHub App 17 for the single sign-on of acme: https://github.com/orgs/acme/sso?authorization_request=A1"},
		{"single sign-on at an odd page", 403, "Forbidden by SAML", [2]string{"X-GitHub-SSO", "required; url=javascript:alert(1)"}, "fix", "single sign-on of acme: in its settings"},
		{"an archived repository", 403, "Repository was archived so is read-only.", [2]string{}, "fix", "unarchive the repository"},
		{"a permission", 403, "Resource not accessible by integration", [2]string{}, "fix", "give the GitHub App 17 the organization permission Self-hosted runners (write)"},
		{"a permission that it lacks", 403, "Resource not accessible by integration",
			[2]string{"X-Accepted-GitHub-Permissions", "organization_custom_roles=write"}, "fix", "give the GitHub App 17 the organization permission"},
		{"nothing said, and a permission that it has", 403, "",
			[2]string{"X-Accepted-GitHub-Permissions", "organization_custom_roles=write; organization_self_hosted_runners=write"}, "fix",
			"see whether self-hosted runners are allowed for the repository"},
		{"labels", 422, "Labels can't be blank.", [2]string{}, "give up", ""},
		{"a 422 of another kind", 422, "The moon is not full.", [2]string{}, "fix", "see what GitHub says"},
		{"a 410", 410, "Gone", [2]string{}, "fix", "see what GitHub says"},
		{"a 451", 451, "Repository access blocked", [2]string{}, "fix", "see what GitHub says"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAppTest(t, githubsim.Config{}, nil, "acme")
			a.instead = func(r *http.Request) (*http.Response, error) {
				if !strings.HasSuffix(r.URL.Path, "/generate-jitconfig") {
					return nil, nil
				}
				h := http.Header{}
				h.Set(tt.header[0], tt.header[1])
				return made(r, tt.status, h, `{"message": "`+tt.says+`"}`), nil
			}
			err := a.claim(t.Context(), "acme", "")
			if kind(err) != tt.kind || !strings.Contains(err.Error(), tt.advice) {
				t.Fatalf("%s: %v, want %s with %q", kind(err), err, tt.kind, tt.advice)
			}
			if strings.Contains(err.Error(), "give the GitHub App") != strings.HasPrefix(tt.name, "a permission") {
				t.Errorf("%v: that is no advice for it", err)
			}
			if full := errors.Is(err, router.ErrRunnerLimit); full != (tt.name == "a full group") {
				t.Errorf("ErrRunnerLimit = %v", full)
			}
		})
	}
}
