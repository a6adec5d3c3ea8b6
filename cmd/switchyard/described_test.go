package main

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"switchyard/router/web/api"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// What a whole server answers, with rules that use all there is, is as the API's
// description says.
func TestAWholeServerAnswersAsDescribed(t *testing.T) {
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData(api.OpenAPI)
	must(t, err)
	described, err := gorillamux.NewRouter(doc)
	must(t, err)
	url, _ := operated(t, t.TempDir())
	for _, ask := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/rules", "", 200},
		{"GET", "/rules/list", "", 200},
		{"GET", "/labels", "", 200},
		{"GET", "/fleet", "", 200},
		{"GET", "/jobs", "", 200},
		{"GET", "/jobs/4001", "", 200},
		{"GET", "/jobs/4002", "", 200},
		{"GET", "/runners", "", 200},
		{"GET", "/audit", "", 200},
		{"GET", "/usage?by=label&since=2026-01-01T00:00:00Z", "", 200},
		{"GET", "/usage?by=team", "", 400},
		{"POST", "/explain", `{"job_id": 4001, "render": true}`, 200},
		{"POST", "/explain", `{"repo": "acme/web", "labels": ["self-hosted", "linux", "gpus=2", "memory=16GiB", "zone=tokyo-a"], "all": true, "render": true}`, 200},
		{"POST", "/explain", `{"repo": "acme/web", "labels": ["self-hosted", "macos"]}`, 200},
		{"POST", "/explain", `{"repo": "acme/web", "labels": ["self-hosted", "gpu"]}`, 200},
		{"POST", "/explain", `{"repo": "acme/web", "labels": ["ubuntu-latest"]}`, 200},
		{"POST", "/explain", `{"repo": "acme", "labels": []}`, 400},
		{"GET", "/jobs/1", "", 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), ask.method, url+api.Prefix+ask.path, strings.NewReader(ask.body))
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+operatorsToken)
		if ask.body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		answer, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != ask.status {
			t.Errorf("%s %s %s = %s, %v: %s", ask.method, ask.path, ask.body, resp.Status, err, answer)
			continue
		}
		relative := req.Clone(t.Context())
		relative.URL.Host, relative.URL.Scheme = "", ""
		relative.Body = io.NopCloser(strings.NewReader(ask.body))
		route, params, err := described.FindRoute(relative)
		if err != nil {
			t.Fatalf("%s: %v", ask.path, err)
		}
		in := &openapi3filter.RequestValidationInput{Request: relative, PathParams: params, Route: route, Options: &openapi3filter.Options{
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true,
		}}
		if err := openapi3filter.ValidateRequest(t.Context(), in); err != nil && ask.status == 200 {
			t.Errorf("%s %s: the request is not as described: %v", ask.path, ask.body, err)
		}
		err = openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
			RequestValidationInput: in, Status: resp.StatusCode, Header: resp.Header, Body: io.NopCloser(bytes.NewReader(answer)), Options: in.Options,
		})
		if err != nil {
			t.Errorf("%s %s: the answer is not as described: %v", ask.path, ask.body, err)
		}
	}
}
