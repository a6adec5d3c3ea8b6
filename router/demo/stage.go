package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"switchyard/router"
	"switchyard/router/githubsim"
)

// A scene is a job of the demo and what its labels promise.
type scene struct {
	repo, job  string
	labels     []string
	change     func(*githubsim.JobSpec) // nil: as it is
	want       router.JobState
	rule       string            // that takes it
	attributes map[string]string // of a node that may run it
	device     string            // that its node must have
	cancelled  bool              // it is cancelled while it waits for a node
}

func on(kernel, arch string) map[string]string {
	attributes := map[string]string{"kernel.name": kernel}
	if arch != "" {
		attributes["cpu.arch"] = arch
	}
	return attributes
}

// scenes are what the demo shows, in the order of --once.
var scenes = []scene{
	{repo: "web", job: "build", labels: []string{"self-hosted", "linux", "x64"}, want: router.Completed, rule: "linux", attributes: on("linux", "amd64")},
	{repo: "web", job: "test (arm64)", labels: []string{"self-hosted", "Linux", "ARM64"}, want: router.Completed, rule: "linux", attributes: on("linux", "arm64")},
	{repo: "app", job: "archive", labels: []string{"self-hosted", "macOS", "arm64"}, want: router.Completed, rule: "macos", attributes: on("darwin", "arm64")},
	{repo: "app", job: "installer", labels: []string{"self-hosted", "windows", "x64"}, want: router.Completed, rule: "windows", attributes: on("windows", "amd64")},
	{repo: "ml", job: "train", labels: []string{"self-hosted", "linux", "gpu", "cpu=8"}, want: router.Completed, rule: "linux", attributes: on("linux", ""), device: "nvidia/gpu"},
	{repo: "web", job: "lint", labels: []string{"ubuntu-latest"}, want: router.Ignored,
		change: func(s *githubsim.JobSpec) { s.Hosted, s.HostedIn = true, 2*time.Second }},
	{repo: "website", job: "deploy", labels: []string{"self-hosted", "linux"}, want: router.Denied, rule: "no-public-repositories",
		change: func(s *githubsim.JobSpec) { s.Private = false }},
	{repo: "web", job: "docs", labels: []string{"self-hosted", "linx"}, want: router.Unroutable},
	{repo: "web", job: "fat binary", labels: []string{"self-hosted", "linux", "x64", "arm64"}, want: router.Unroutable, rule: "linux"},
	{repo: "ml", job: "sweep", labels: []string{"self-hosted", "linux", "cpu=99"}, want: router.Unroutable},
	{repo: "web", job: "package", labels: []string{"self-hosted", "linux", "large"}, want: router.Completed, rule: "linux", attributes: on("linux", "")},
	{repo: "web", job: "release", labels: []string{"self-hosted", "linux", "x64"}, want: router.Completed, rule: "linux-release", attributes: on("linux", "amd64"),
		change: func(s *githubsim.JobSpec) { s.Branch = "release/1.2" }},
	{repo: "ml", job: "evaluate", labels: []string{"yard=7001/linux/gpu/memory=16GiB"}, want: router.Completed, rule: "linux", attributes: on("linux", ""), device: "nvidia/gpu"},
	{repo: "ml", job: "pretrain", labels: []string{"self-hosted", "linux", "gpus=8"}, want: router.Completed, rule: "linux", cancelled: true},
	{repo: "app", job: "sign", labels: []string{"self-hosted", "macos"}, want: router.Completed, rule: "macos", attributes: on("darwin", "")},
	{repo: "web", job: "integration", labels: []string{"self-hosted", "linux", "x64", "run-7002"}, want: router.Completed, rule: "linux", attributes: on("linux", "amd64")},
}

func (s scene) spec(duration time.Duration) githubsim.JobSpec {
	spec := githubsim.JobSpec{
		Owner: "acme", Repo: s.repo, Private: true, Name: s.job, Labels: s.labels, Duration: duration,
	}
	if s.change != nil {
		s.change(&spec)
	}
	return spec
}

// A stage sends the demo's jobs and shows how they move.
type stage struct {
	out    io.Writer
	github *githubsim.Server
	store  Server
	fleet  *fleet
	began  time.Time

	patience time.Duration // until a job that waits for a node is cancelled

	acts    []*act
	broken  []string                // promises, each as a sentence
	ended   map[router.JobState]int // how many jobs ended how
	waiting int                     // for nodes that this Nomad does not have
}

// An act is one job on its way.
type act struct {
	scene
	id       int64
	shown    string
	started  bool // its Nomad job is registered
	node     *api.Node
	waits    string    // why Nomad has no node for it
	cancelAt time.Time // zero: it is not, or has no runner yet
}

// queue sends a job.
func (s *stage) queue(ctx context.Context, sc scene, duration time.Duration) {
	a := &act{scene: sc, id: s.github.Queue(ctx, sc.spec(duration))}
	if a.id != 0 {
		s.acts = append(s.acts, a)
	}
}

// once sends every scene and waits for all of them to end.
func (s *stage) once(ctx context.Context) error {
	next := time.NewTicker(pause)
	defer next.Stop()
	update := time.NewTicker(updateEvery)
	defer update.Stop()
	late := time.NewTimer(stuckAfter)
	defer late.Stop()
	left := scenes
	for len(left) > 0 || len(s.acts) > 0 {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late.C:
			for _, a := range s.acts {
				if s.fleet.real && a.waits != "" {
					s.waiting++
					continue
				}
				s.broken = append(s.broken, fmt.Sprintf("%s did not end: %s", a.title(), a.shown))
			}
			return s.summary()
		case <-next.C:
			if len(left) > 0 {
				s.queue(ctx, left[0], time.Second)
				left = left[1:]
			}
		case <-update.C:
			if s.update(ctx) {
				late.Reset(stuckAfter)
			}
			if s.fleet.real && len(left) == 0 && !slices.ContainsFunc(s.acts, func(a *act) bool { return a.waits == "" }) {
				late.Reset(0) // only nodes that are not there are waited for
			}
		}
	}
	return s.summary()
}

// forever sends jobs until ctx ends.
func (s *stage) forever(ctx context.Context) error {
	next := time.NewTimer(0)
	defer next.Stop()
	update := time.NewTicker(updateEvery)
	defer update.Stop()
	for _, sc := range scenes {
		if sc.cancelled {
			s.queue(ctx, sc, time.Second) // so that something waits from the beginning
		}
	}
	for i := 0; ; {
		select {
		case <-ctx.Done():
			return s.summary()
		case <-next.C:
			sc := scenes[rand.IntN(len(scenes))]
			if i < len(scenes) {
				sc = scenes[i]
			}
			i++
			s.queue(ctx, sc, time.Duration(1000+rand.IntN(4000))*time.Millisecond)
			next.Reset(time.Duration(200+rand.IntN(1300)) * time.Millisecond)
		case <-update.C:
			s.update(ctx)
		}
	}
}

// update shows what has changed since the last update, removes the jobs that ended, and
// reports whether there was a change.
func (s *stage) update(ctx context.Context) (changed bool) {
	s.acts = slices.DeleteFunc(s.acts, func(a *act) bool {
		j, err := s.store.Job(ctx, a.id)
		if err != nil {
			return false // its delivery is under way
		}
		routed := j.State == router.Dispatched || j.State == router.Running || j.State == router.Completed && j.Conclusion == "success"
		a.started = a.started || routed
		switch {
		case !a.cancelled || !routed:
		case a.cancelAt.IsZero():
			a.cancelAt = time.Now().Add(s.patience)
		case time.Now().After(a.cancelAt):
			_ = s.github.Cancel(a.id) // it was already, at worst
		}
		if routed && a.node == nil {
			a.node, a.waits = s.fleet.where(ctx, j.RunnerID())
		}
		if line := a.line(j); line != a.shown {
			a.shown, changed = line, true
			fmt.Fprintf(s.out, "%6.2fs  %s\n", time.Since(s.began).Seconds(), line)
		}
		if !slices.Contains([]router.JobState{router.Completed, router.Ignored, router.Denied, router.Unroutable}, j.State) {
			return false
		}
		if s.ended == nil {
			s.ended = map[router.JobState]int{}
		}
		s.ended[j.State]++
		if why := a.breaks(j); why != "" {
			s.broken = append(s.broken, a.title()+" "+why)
		}
		return true
	})
	return changed
}

func (a *act) title() string {
	return fmt.Sprintf("acme/%s · %s [%s]", a.repo, a.job, strings.Join(a.labels, ", "))
}

// line returns the job's way so far: labels → rule → Nomad job → node → state.
func (a *act) line(j router.Job) string {
	way := []string{a.title()}
	if j.Decision != nil && j.Decision.Rule != "" {
		way = append(way, "rule "+j.Decision.Rule)
	}
	if a.started {
		way = append(way, j.RunnerID())
	}
	if a.node != nil {
		way = append(way, fmt.Sprintf("%s (%s/%s)", a.node.Name, a.node.Attributes["kernel.name"], a.node.Attributes["cpu.arch"]))
	}
	state := string(j.State)
	switch {
	case j.State == router.Dispatched && a.node != nil:
		state = "starting"
	case j.State == router.Dispatched && a.waits != "":
		state = "waits for a node: " + a.waits
	case j.State == router.Completed:
		state = j.Conclusion
	case j.State != router.Dispatched && j.State != router.Running && j.State != router.Queued:
		state += ": " + j.Reason
	}
	return router.Printable(strings.Join(append(way, state), " → "))
}

// breaks returns how the job's end differs from what its labels promise; "" if it does not.
func (a *act) breaks(j router.Job) string {
	if j.State != a.want {
		return fmt.Sprintf("ended %s (%s), want %s", j.State, j.Reason, a.want)
	}
	if j.Decision == nil || j.Decision.Rule != a.rule {
		return fmt.Sprintf("was decided by %+v, want rule %q", j.Decision, a.rule)
	}
	switch {
	case a.want != router.Completed:
		return ""
	case a.cancelled:
		if j.Conclusion != "cancelled" || j.RunnerName != "" {
			return fmt.Sprintf("ended %q on runner %q, want it cancelled without one", j.Conclusion, j.RunnerName)
		}
		return ""
	case j.Conclusion != "success":
		return "ended " + j.Conclusion
	case a.node == nil:
		return "ended on a node that Nomad does not know"
	}
	for k, want := range a.attributes {
		if got := a.node.Attributes[k]; got != want {
			return fmt.Sprintf("ran on %s with %s = %s, want %s", a.node.Name, k, got, want)
		}
	}
	if a.device != "" && !slices.ContainsFunc(a.node.NodeResources.Devices, func(d *api.NodeDeviceResource) bool {
		return d.Vendor+"/"+d.Type == a.device
	}) {
		return fmt.Sprintf("ran on %s, which has no %s", a.node.Name, a.device)
	}
	return ""
}

// ErrBroken says that a job did not end as its labels promise; Out has which.
var ErrBroken = errors.New("a promise of the demo was broken")

// summary counts the jobs; its error is ErrBroken when a promise was broken.
func (s *stage) summary() error {
	var counts []string
	total := 0
	for _, state := range []router.JobState{router.Completed, router.Ignored, router.Denied, router.Unroutable} {
		if n := s.ended[state]; n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, state))
			total += n
		}
	}
	fmt.Fprintf(s.out, "\n%s ended in %.1f s: %s.\n", router.Count(total, "job"), time.Since(s.began).Seconds(), strings.Join(counts, ", "))
	if s.waiting > 0 {
		fmt.Fprintf(s.out, "%d did not end: they wait for nodes that this Nomad does not have.\n", s.waiting)
	}
	switch {
	case len(s.broken) > 0:
	case s.waiting > 0:
		fmt.Fprintln(s.out, "The others ended as their labels promise.")
		return nil
	default:
		fmt.Fprintln(s.out, "Every one ended as its labels promise.")
		return nil
	}
	for _, b := range s.broken {
		fmt.Fprintf(s.out, "Broken promise: %s\n", router.Printable(b))
	}
	return ErrBroken
}
