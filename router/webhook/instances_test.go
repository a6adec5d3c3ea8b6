package webhook_test

import (
	"net/http"
	"strings"
	"testing"

	"switchyard/router"
	"switchyard/router/webhook"
)

func TestTheSecretTellsWhichGitHubSentADelivery(t *testing.T) {
	const other = "the secret of the other"
	in := router.Instance{Number: 2, Host: "ghe.example"}
	h := newHook(t, func(c *webhook.Config) {
		c.Host, c.More = "github.com", []webhook.Instance{{Instance: in, Secrets: []router.Secret{other}}}
	})
	for _, tt := range []struct {
		secret string
		from   router.Instance
	}{{secret, router.Instance{Host: "github.com"}}, {oldSecret, router.Instance{Host: "github.com"}}, {other, in}} {
		for kind, hook := range map[string]router.Hook{
			"integration":  {Kind: router.HookApp, ID: tt.from.ID(0)},
			"organization": {Kind: router.HookOrganization, ID: tt.from.ID(77), Owner: "acme"},
		} {
			r := signedBy(tt.secret, queued)
			r.Header.Set("X-GitHub-Hook-ID", "77")
			r.Header.Set("X-GitHub-Hook-Installation-Target-Type", kind)
			r.Header.Set("X-GitHub-Enterprise-Host", "github.com") // is not signed
			want(t, h.send(r), http.StatusAccepted, "")
			d := h.got[len(h.got)-1]
			if d.Job.ID != tt.from.ID(29679449526) || d.Job.RunID != tt.from.ID(10000000001) || d.Job.Repo.Host != tt.from.Host || d.Hook != hook {
				t.Errorf("signed with %q: job %d of run %d on %q by %+v, want those of %+v by %+v", tt.secret, d.Job.ID, d.Job.RunID, d.Job.Repo.Host, d.Hook, tt.from, hook)
			}
		}
	}
	want(t, h.send(signedBy("nobody's secret at all", queued)), http.StatusUnauthorized, "signature is wrong")

	for _, field := range []string{`"id": 29679449526`, `"run_id": 10000000001`} {
		name, _, _ := strings.Cut(field, ":")
		body := strings.Replace(queued, field, name+": 281474976710656", 1)
		r := request(body)
		want(t, h.send(r), http.StatusBadRequest, strings.Trim(name, `"`)+" has more than 48 bits")
	}
}

func TestNoTwoGitHubsShareASecret(t *testing.T) {
	for name, tt := range map[string]struct {
		secrets []router.Secret
		want    string
	}{
		"one of the first's": {[]router.Secret{"the secret of the other", oldSecret}, "secret 2 also belongs to another GitHub"},
		"none":               {nil, "webhook of ghe.example: got 0 secrets"},
		"a short one":        {[]router.Secret{"short"}, "webhook of ghe.example: secret 1 has 5 bytes"},
	} {
		_, err := webhook.Handler(webhook.Config{
			Secrets: []router.Secret{secret, oldSecret},
			More:    []webhook.Instance{{Instance: router.Instance{Number: 1, Host: "ghe.example"}, Secrets: tt.secrets}},
		}, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), oldSecret) {
			t.Errorf("%s = %v, want %q", name, err, tt.want)
		}
	}
}
