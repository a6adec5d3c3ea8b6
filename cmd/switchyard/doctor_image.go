package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

const registryTimeout = 15 * time.Second // for one answer

// errImageLogin is imageExists's error when a registry shows an image to those who log in alone.
var errImageLogin = errors.New("its registry wants a login, so the nodes need one: auth in plugin \"docker\"")

var imageName = regexp.MustCompile(`^[a-z0-9]+([._/-]+[a-z0-9]+)*$`)

// parseImage splits the name of an image as Docker does: into its registry's URL, its repository
// and its tag or digest.
func parseImage(image string) (registry, repository, reference string, err error) {
	host, rest, found := strings.Cut(image, "/")
	if !found || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, rest = "docker.io", image
	}
	repository, reference, found = strings.Cut(rest, "@")
	if name, tag, tagged := strings.Cut(repository, ":"); tagged {
		repository = name
		if !found {
			reference = tag
		}
	}
	if reference == "" {
		reference = "latest"
	}
	registry = "https://" + host
	if at, err := url.Parse("//" + host); err == nil && (at.Hostname() == "localhost" || loopback(at.Hostname()+":0")) {
		registry = "http://" + host
	}
	if host == "docker.io" {
		registry = "https://registry-1.docker.io"
		if !strings.Contains(repository, "/") {
			repository = "library/" + repository
		}
	}
	if !imageName.MatchString(repository) || len(image) > 512 || strings.ContainsAny(reference, "/?#% $") {
		return "", "", "", errors.New("it is not the name of an image")
	}
	return registry, repository, reference, nil
}

// imageExists asks a registry whether it has an image, without a login:
// https://distribution.github.io/distribution/spec/api/ (read 2026-11-30).
func imageExists(ctx context.Context, image string) (bool, error) {
	registry, repository, reference, err := parseImage(image)
	if err != nil {
		return false, err
	}
	client := &http.Client{Timeout: registryTimeout}
	head := func(token string) (status int, asksFor string, err error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, registry+"/v2/"+repository+"/manifests/"+reference, nil)
		if err != nil {
			return 0, "", err
		}
		req.Header.Set("Accept", "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json")
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("WWW-Authenticate"), nil
	}
	status, asksFor, err := head("")
	if err != nil {
		return false, err
	}
	if status == http.StatusUnauthorized {
		token, err := pullToken(ctx, client, asksFor, repository)
		if err != nil {
			return false, err
		}
		if status, _, err = head(token); err != nil {
			return false, err
		}
	}
	switch status {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	case http.StatusUnauthorized, http.StatusForbidden:
		return false, errImageLogin
	}
	return false, fmt.Errorf("it answered %d %s", status, http.StatusText(status))
}

var challenge = regexp.MustCompile(`(realm|service)="([^"]*)"`)

// pullToken gets the token that a registry gives to everybody.
func pullToken(ctx context.Context, client *http.Client, asks, repository string) (string, error) {
	params := map[string]string{}
	for _, m := range challenge.FindAllStringSubmatch(asks, -1) {
		params[m[1]] = m[2]
	}
	realm, err := url.Parse(params["realm"])
	if err != nil || realm.Scheme != "https" && !local(realm.String()) || !strings.HasPrefix(asks, "Bearer ") {
		return "", errImageLogin
	}
	realm.RawQuery = url.Values{"service": {params["service"]}, "scope": {"repository:" + repository + ":pull"}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, realm.String(), nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		return "", errImageLogin
	}
	var given struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&given); err != nil {
		return "", fmt.Errorf("its token: %w", err)
	}
	if given.Token == "" {
		given.Token = given.AccessToken
	}
	return given.Token, nil
}
