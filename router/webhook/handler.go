// Package webhook owns GitHub's deliveries on their way in: it checks the
// signature and the limits, decodes, has the delivery stored, and answers.
package webhook

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"switchyard/router"
)

const (
	defaultMaxBytes = 25 << 20 // GitHub sends no larger body: https://docs.github.com/en/webhooks/webhook-events-and-payloads (2026-11-24)
	minSecret       = 16       // bytes
	maxHeader       = 128      // bytes of an event's name or a delivery's ID; GitHub's have 36 at most

	signaturePrefix = "sha256="

	// For a delivery to be stored, or refused: GitHub waits 10 s for the answer, and what the
	// database has begun by then may take 4 s more.
	// https://docs.github.com/en/webhooks/using-webhooks/best-practices-for-using-webhooks (2026-11-24)
	storeWithin = 5 * time.Second

	digestBytes = 16 // of a signature: without the secret nobody can make two bodies with the same digest
)

// Config says what a Handler needs.
type Config struct {
	Secrets  []router.Secret                 // one or, while a secret is being changed, two; each of at least 16 bytes. Required without More
	Reread   func() ([]router.Secret, error) // reads Secrets again, when a delivery comes, at most once a second; nil: they never change
	Host     string                          // of the GitHub that has them, as router.Repo.Host; "": not known
	More     []Instance                      // other GitHubs; a secret tells which one sent a delivery, so no two share one
	Logger   *slog.Logger                    // nil: slog.Default
	MaxBytes int64                           // largest body; 0: 25 MiB, GitHub's own limit
	Budget   int64                           // bytes of all bodies together whose signature is not known yet; 0: 64 MiB
	Now      func() time.Time                // nil: time.Now

	// Counted, if not nil, is called for each request that receive is not called for,
	// with one of router's Delivery… words.
	Counted func(outcome string)
}

// An Instance is a GitHub and the secrets of its webhooks, as Config.Secrets.
type Instance struct {
	router.Instance
	Secrets []router.Secret
	Reread  func() ([]router.Secret, error)
}

type handler struct {
	cfg     Config
	keys    *keyring
	receive func(context.Context, router.Delivery) error
	intake  *intake

	unstored rate.Sometimes // bounds the errors that a full disk can cause
	left     rate.Sometimes // bounds the warnings that a slow one can cause
	unsigned rate.Sometimes // bounds the warnings that strangers can cause
	repeats  repeats
}

// Handler returns the handler of GitHub's webhook. It calls receive for each
// workflow_job delivery that is signed and well formed, and answers when it
// has returned:
//
//	200 for a ping
//	202 for a delivery that is stored
//	204 for an event or an action that the router has no use for
//	400 for a request or a body that is not what GitHub sends
//	401 for a missing or wrong signature; only SHA-256 is good
//	405, 413, 415 for a wrong method, size and type
//	503 when receive failed, or others needed the room of a slow or large body
//
// GitHub does not redeliver by itself what was not answered with 2xx, but shows the
// answer and offers to redeliver.
func Handler(cfg Config, receive func(context.Context, router.Delivery) error) (http.Handler, error) {
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	if cfg.Budget <= 0 {
		cfg.Budget = defaultBudget
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Counted == nil {
		cfg.Counted = func(string) {}
	}
	all := cfg.More
	if len(cfg.Secrets) > 0 || len(all) == 0 {
		all = append([]Instance{{router.Instance{Host: cfg.Host}, cfg.Secrets, cfg.Reread}}, all...)
	}
	keys, err := newKeyring(all, cfg.Logger, cfg.Now)
	if err != nil {
		return nil, err
	}
	return &handler{
		cfg:      cfg,
		keys:     keys,
		receive:  receive,
		intake:   newIntake(cfg.Budget),
		unsigned: rate.Sometimes{Interval: time.Minute},
		unstored: rate.Sometimes{Interval: time.Minute},
		left:     rate.Sometimes{Interval: time.Minute},
	}, nil
}

// A refusal is an answer other than 2xx. Its text is for people who look at the
// delivery on GitHub.
type refusal struct {
	status int
	text   string
}

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	event, id, signature, no := checkHeader(r)
	if no == nil && r.ContentLength > h.cfg.MaxBytes {
		no = h.tooLarge()
	}
	if no != nil {
		h.answer(w, r, no, false)
		return
	}
	body := h.intake.open(func() error { return http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) })
	release := sync.OnceFunc(body.release)
	defer release()
	if no := h.read(w, r, body); no != nil {
		h.answer(w, r, no, false)
		return
	}
	in, ok := h.signed(signature, body)
	if !ok {
		h.answer(w, r, refuse(http.StatusUnauthorized, "the signature is wrong: is the webhook's secret on GitHub the one that is given to Switchyard?"), false)
		return
	}
	switch event {
	case "ping":
		h.cfg.Counted(router.DeliveryPing)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"status":"ok"}`+"\n")
		return
	case "workflow_job":
	default:
		h.ignore(w)
		return
	}

	d, err := Decode(body.bytes())
	release()
	if errors.Is(err, errUnknownAction) {
		h.ignore(w)
		return
	}
	if err != nil {
		h.answer(w, r, refuse(http.StatusBadRequest, "%v", err), true)
		return
	}
	d.ID, d.ReceivedAt, d.Hook = id, h.cfg.Now(), hookOf(r.Header, d.Job.Repo, in)
	d.Digest = string(signature[:digestBytes]) // of a secret that is an instance's own
	d.Job.ID, d.Job.RunID, d.Job.Repo.Host = in.ID(d.Job.ID), in.ID(d.Job.RunID), in.Host
	log := h.cfg.Logger.With("delivery_id", id, "job_id", d.Job.ID, "host", in.Host, "repo", d.Job.Repo.FullName, "action", d.Action)
	copies := h.repeats.count(d.Digest)
	if copies >= maxCopies {
		h.cfg.Counted(router.DeliveryKnown)
		log.Debug("delivery known", "copies", copies)
		w.WriteHeader(http.StatusAccepted)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeWithin)
	defer cancel()
	if err := h.receive(ctx, d); err != nil {
		if r.Context().Err() != nil {
			h.left.Do(func() {
				log.Warn("the sender went away before its delivery was stored; others within the same minute are not logged. GitHub is asked to redeliver them when storing works", "err", err)
			})
			return
		}
		h.unstored.Do(func() {
			log.Error("cannot store a delivery; others within the same minute are not logged. GitHub is asked to redeliver them when storing works again", "err", err, "fix", router.StoreFix(err))
		})
		w.Header().Set("Retry-After", "30")
		http.Error(w, "503: the delivery could not be stored; Switchyard has GitHub redeliver it when storing works", http.StatusServiceUnavailable)
		return
	}
	h.repeats.stored(d.Digest)
	log.Info("delivery stored", "status", d.Status, "took", h.cfg.Now().Sub(d.ReceivedAt))
	w.WriteHeader(http.StatusAccepted)
}

// ignore answers a delivery that the router has no use for.
func (h *handler) ignore(w http.ResponseWriter) {
	h.cfg.Counted(router.DeliveryIgnored)
	w.WriteHeader(http.StatusNoContent)
}

// hookOf returns the webhook that a signed delivery came by; the zero Hook
// when the headers, which the signature does not cover, name none of use.
func hookOf(header http.Header, repo router.Repo, in router.Instance) router.Hook {
	kind := router.HookKind(header.Get("X-GitHub-Hook-Installation-Target-Type"))
	id, err := strconv.ParseInt(header.Get("X-GitHub-Hook-ID"), 10, 64)
	switch {
	case kind == router.HookApp:
		return router.Hook{Kind: kind, ID: in.ID(0)}
	case err != nil || id <= 0 || id > router.MaxGitHubID:
	case kind == router.HookOrganization:
		return router.Hook{Kind: kind, ID: in.ID(id), Owner: repo.Owner}
	case kind == router.HookRepository:
		return router.Hook{Kind: kind, ID: in.ID(id), Owner: repo.Owner, Repo: repo.Name}
	}
	return router.Hook{}
}

// answer refuses a request. Refusals that strangers can cause without a signature are
// not logged one by one.
func (h *handler) answer(w http.ResponseWriter, r *http.Request, no *refusal, signed bool) {
	outcome := router.DeliveryMalformed
	switch no.status {
	case http.StatusServiceUnavailable:
		outcome = router.DeliveryBusy
		w.Header().Set("Retry-After", "30")
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodPost)
	case http.StatusRequestEntityTooLarge:
		outcome = router.DeliveryTooLarge
	case http.StatusUnauthorized:
		outcome = router.DeliveryUnsigned
	}
	h.cfg.Counted(outcome)
	http.Error(w, fmt.Sprintf("%d: %s", no.status, no.text), no.status)

	line := []any{"code", no.status, "reason", no.text, "remote", r.RemoteAddr, "delivery_id", router.Cut(r.Header.Get("X-GitHub-Delivery"), maxHeader)}
	if signed {
		h.cfg.Logger.Warn("delivery refused", line...)
		return
	}
	h.cfg.Logger.Debug("request refused", line...)
	if no.status == http.StatusUnauthorized {
		h.unsigned.Do(func() {
			h.cfg.Logger.Warn("a request without a good signature was refused; others within the same minute are not logged", line...)
		})
	}
}

func (h *handler) tooLarge() *refusal {
	return refuse(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", h.cfg.MaxBytes)
}

// checkHeader checks what can be known before the body is read.
func checkHeader(r *http.Request) (event, id string, signature []byte, no *refusal) {
	event, id = r.Header.Get("X-GitHub-Event"), r.Header.Get("X-GitHub-Delivery")
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	sent := r.Header.Get("X-Hub-Signature-256")
	digits, ok := strings.CutPrefix(sent, signaturePrefix)
	signature, hexErr := hex.DecodeString(digits)
	switch {
	case r.Method != http.MethodPost:
		no = refuse(http.StatusMethodNotAllowed, "a delivery is sent with POST")
	case err != nil || kind != "application/json":
		no = refuse(http.StatusUnsupportedMediaType, "set the webhook's content type to application/json")
	case !token(event):
		no = refuse(http.StatusBadRequest, "the header X-GitHub-Event is missing or not the name of an event")
	case !token(id):
		no = refuse(http.StatusBadRequest, "the header X-GitHub-Delivery is missing or not the ID of a delivery")
	case sent == "" && r.Header.Get("X-Hub-Signature") != "":
		no = refuse(http.StatusUnauthorized, "the delivery is only signed with SHA-1; a SHA-256 signature (X-Hub-Signature-256) is required")
	case sent == "":
		no = refuse(http.StatusUnauthorized, "the header X-Hub-Signature-256 is missing: set a secret for the webhook on GitHub")
	case !ok || hexErr != nil || len(signature) != sha256.Size:
		no = refuse(http.StatusUnauthorized, "the header X-Hub-Signature-256 must be sha256= and 64 hexadecimal digits")
	}
	return event, id, signature, no
}

// token reports whether s is short, visible ASCII.
func token(s string) bool {
	return s != "" && len(s) <= maxHeader && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

// read reads the body of a request.
func (h *handler) read(w http.ResponseWriter, r *http.Request, b *body) *refusal {
	src := http.MaxBytesReader(w, r.Body, h.cfg.MaxBytes)
	for {
		room := b.room()
		if room == nil {
			return outOfRoom()
		}
		n, err := src.Read(room)
		b.size += n
		var tooLarge *http.MaxBytesError
		switch {
		case err == nil:
		case errors.As(err, &tooLarge):
			return h.tooLarge()
		case !b.complete():
			return outOfRoom()
		case err == io.EOF:
			return nil
		default:
			return refuse(http.StatusBadRequest, "the body ended early")
		}
	}
}

func outOfRoom() *refusal {
	return refuse(http.StatusServiceUnavailable, "the body came too slowly, or is too large, while many others are being read; send it again later")
}

// signed returns the instance whose secret made this signature of body. It takes the
// same time for each.
func (h *handler) signed(signature []byte, b *body) (by router.Instance, good bool) {
	for _, in := range h.keys.instances() {
		for _, secret := range in.Secrets {
			mac := hmac.New(sha256.New, []byte(secret))
			b.parts(func(part []byte) { mac.Write(part) })
			var sum [sha256.Size]byte
			if hmac.Equal(mac.Sum(sum[:0]), signature) {
				by, good = in.Instance, true
			}
		}
	}
	return by, good
}
