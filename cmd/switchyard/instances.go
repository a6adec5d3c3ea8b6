package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/goccy/go-yaml"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/intake"
	"switchyard/router/telemetry"
	"switchyard/router/webhook"
)

const maxInstances = 64 << 10 // bytes of the file

// An instanceForm is one entry of the file of --github-instances.
type instanceForm struct {
	Number             int64      `yaml:"number"`
	URL                string     `yaml:"url"`
	AppID              int64      `yaml:"app_id"`
	AppKeyFile         string     `yaml:"app_key_file"`
	TokenFile          string     `yaml:"token_file"`
	WebhookSecretFiles []string   `yaml:"webhook_secret_files"`
	From               intakeForm `yaml:",inline"`
}

// readInstances reads the file of --github-instances.
func readInstances(path string) ([]instanceForm, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := router.RefuseWritable(path, info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxInstances+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxInstances {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxInstances)
	}
	var forms []instanceForm
	if err := yaml.UnmarshalWithOptions(text, &forms, yaml.Strict()); err != nil {
		if at, ok := errors.AsType[yaml.Error](err); ok && at.GetToken() != nil {
			p := at.GetToken().Position
			return nil, fmt.Errorf("%s:%d:%d: %s", path, p.Line, p.Column, at.GetMessage())
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(forms) == 0 {
		return nil, fmt.Errorf("%s lists no GitHub: want entries with number, url, app_id and app_key_file or token_file, and webhook_secret_files", path)
	}
	return forms, nil
}

// githubs returns the GitHub of the flags and those of --github-instances, the webhook secrets
// of the latter, and the webhooks whose deliveries are read.
func (f *serveFlags) githubs() (all *gh.Instances, hooks []webhook.Instance, polls []intake.Poll, err error) {
	first, err := f.github()
	if err != nil {
		return nil, nil, nil, err
	}
	polls, err = f.intake.polls(router.Instance{}, first, func(name string) string { return "--github-" + name })
	if err != nil {
		return nil, nil, nil, err
	}
	all = gh.NewInstances(first)
	if f.githubInstances == "" {
		return all, nil, polls, nil
	}
	forms, err := readInstances(f.githubInstances)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("--github-instances: %w", err)
	}
	for i, form := range forms {
		in, more, err := form.add(all, f.githubSide)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("--github-instances: %s: entry %d: %w", f.githubInstances, i+1, err)
		}
		if polls = append(polls, more...); form.From.receives() {
			hooks = append(hooks, in)
		}
	}
	return all, hooks, polls, nil
}

func (f *instanceForm) add(all *gh.Instances, side *telemetry.Side) (in webhook.Instance, polls []intake.Poll, err error) {
	if f.URL == "" {
		return in, nil, errors.New("url is missing: https://HOST/api/v3/ of an Enterprise Server, https://api.TENANT.ghe.com/ or https://api.github.com/")
	}
	if at, err := url.Parse(f.URL); err == nil {
		side = side.At(at.Host)
	}
	cfg := gh.Config{BaseURL: f.URL, Called: side.Called, Calling: side.Calling}
	switch {
	case (f.AppID != 0 || f.AppKeyFile != "") == (f.TokenFile != ""):
		return in, nil, errors.New("want either app_id and app_key_file, or token_file")
	case f.TokenFile != "":
		cfg.Token = gh.TokenFile(f.TokenFile)
		_, err = cfg.Token()
	case f.AppID <= 0 || f.AppKeyFile == "":
		return in, nil, errors.New("a GitHub App needs both app_id and app_key_file")
	default:
		cfg.App = &gh.App{ID: f.AppID, Key: gh.KeyFile(f.AppKeyFile)}
		_, err = cfg.App.Key()
	}
	if err != nil {
		return in, nil, err
	}
	client, err := gh.New(cfg)
	if err != nil {
		return in, nil, err
	}
	if err := all.Add(f.Number, client); err != nil {
		return in, nil, err
	}
	in.Instance = router.Instance{Number: f.Number, Host: client.Host()}
	polls, err = f.From.polls(in.Instance, client, func(name string) string {
		return strings.ReplaceAll(strings.Replace(name, "poll-hook", "poll_hooks", 1), "-", "_")
	})
	if err == nil && f.From.receives() {
		in.Secrets, in.Reread, err = readSecrets(f.WebhookSecretFiles, "")
	}
	return in, polls, err
}
