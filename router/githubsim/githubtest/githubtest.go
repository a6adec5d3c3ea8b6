// Package githubtest owns the check of a simulated GitHub, and of what is asked
// of it, against GitHub's own OpenAPI description.
package githubtest

import (
	"bytes"
	_ "embed"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// GitHub's own descriptions, which do not lie in the repository, seen from
// where the tests of router/gh and router/githubsim run.
const shared = "../../../shared/github/"

// What the shared description leaves out, without its texts: check runs, commit statuses,
// Actions variables and how an App is made, cut from npm's @octokit/openapi 23.0.2 (MIT), and
// the support of the runner's versions, cut from github/rest-api-description at 0000036e42b5
// (MIT).
var (
	//go:embed testdata/checks.openapi.json
	checks []byte

	//go:embed testdata/variables.openapi.json
	variables []byte

	//go:embed testdata/deprecations.openapi.json
	deprecations []byte

	//go:embed testdata/manifest.openapi.json
	manifest []byte
)

// openAPI returns a router over GitHub's OpenAPI description; nil, and a line
// in the log, when it is absent.
var openAPI = sync.OnceValues(func() (routers.Router, error) {
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromFile(shared + "api.github.com.openapi.json")
	if err != nil {
		return nil, err
	}
	doc.Servers = nil // the tests' hosts differ
	// An installation's account is a user or an enterprise; here it would be both at once.
	doc.Paths.Find("/app/installations").Get.Responses.Status(200).Value.Content["application/json"].Schema.Value.Items = doc.Components.Schemas["installation"]
	for _, cut := range [][]byte{checks, variables, deprecations, manifest} {
		more, err := loader.LoadFromData(cut)
		if err != nil {
			return nil, err
		}
		for path, item := range more.Paths.Map() {
			doc.Paths.Set(path, item)
		}
	}
	if err := doc.Validate(loader.Context, openapi3.DisableExamplesValidation()); err != nil {
		return nil, err
	}
	return gorillamux.NewRouter(doc)
})

// Contract wraps a server of GitHub's REST API and checks each request and response by
// GitHub's description, except paths below /_sim/ and HTML. Paths of an enterprise, which
// only the description of Enterprise Cloud has, are checked as those of an organization.
func Contract(t testing.TB, next http.Handler) http.Handler {
	t.Helper()
	router, err := openAPI()
	if os.IsNotExist(err) {
		t.Logf("not checked against GitHub's API description: %v", err)
		return next
	}
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read the body of %s %s: %v", r.Method, r.URL, err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		defer func() {
			maps.Copy(w.Header(), rec.Header())
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
		}()

		described := r.Clone(r.Context())
		described.URL.Path = strings.TrimPrefix(described.URL.Path, "/api/v3")
		if rest, ok := strings.CutPrefix(described.URL.Path, "/enterprises/"); ok {
			described.URL.Path = "/orgs/" + rest
		}
		described.Body = io.NopCloser(bytes.NewReader(body))
		route, params, err := router.FindRoute(described)
		if err != nil {
			if rec.Code != http.StatusNotFound && !strings.HasPrefix(r.URL.Path, "/_sim/") {
				t.Errorf("%s %s is not GitHub's: %v", r.Method, r.URL, err)
			}
			return
		}
		in := &openapi3filter.RequestValidationInput{Request: described, PathParams: params, Route: route}
		refused := rec.Code >= 400 && rec.Code < 500 // a path that names nothing is 404
		if err := openapi3filter.ValidateRequest(r.Context(), in); err != nil && !refused {
			t.Errorf("%s %s was answered %d, but it is wrong: %v", r.Method, r.URL, rec.Code, err)
		}
		out := &openapi3filter.ResponseValidationInput{
			RequestValidationInput: in, Status: rec.Code, Header: rec.Header(), Body: io.NopCloser(bytes.NewReader(rec.Body.Bytes())),
		}
		if err := openapi3filter.ValidateResponse(r.Context(), out); err != nil {
			t.Errorf("the answer to %s %s is not GitHub's: %v", r.Method, r.URL, err)
		}
	})
}
