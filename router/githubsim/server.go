// Package githubsim owns a simulated GitHub: a server that speaks the part of
// GitHub's REST API that runners need, sends signed webhooks, and gives queued
// jobs to the runners that connect to it. It is for the demo and for tests;
// what it answers is checked against GitHub's own OpenAPI description.
//
// It differs from GitHub in this: all owners have the same runner groups, a runner
// without a job stays forever, a job waits for a runner forever, and the
// deliveries of one job arrive in order.
package githubsim

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Config says what the simulated GitHub is like.
type Config struct {
	WebhookURL string        // where deliveries go; "": they are recorded as failed
	Hook       string        // what webhooks belong to: AppHook, OrganizationHook or RepositoryHook; "": AppHook
	Secret     string        // of the webhook; "": deliveries are not signed
	Client     *http.Client  // sends deliveries; nil: one of its own, closed by Close
	Timeout    time.Duration // of one delivery; 0: 10 s, GitHub's own
	Senders    int           // deliveries under way at once; 0: 32

	Token     string           // the bearer token that the REST API takes; "": any, or none, unless there is an App
	App       *App             // may log in; nil: none
	RateLimit int              // REST requests an hour: with Token, of the App itself, and of each installation; 0: 5000
	Groups    map[int64]string // names of runner groups by ID, which take all jobs, see SetGroup; nil: 1, "Default"

	Enterprise    string // the slug of the one that all owners belong to, for Token alone; "": none
	Points        int    // of the secondary limit, a minute, for the callers of RateLimit and by endpoint; 0: any
	Registrations int    // of runners in five minutes in one repository, organization or enterprise; 0: any

	Now      func() time.Time // nil: time.Now
	FirstID  int64            // the ID of the first job, run or runner; 0: 1
	RandSeed uint64           // of the choice among idle runners and of what goes into secrets
}

// A Repo is a repository that exists before a job is queued in it.
type Repo struct {
	Owner, Name string
	Private     bool
	User        bool // the owner is a user, so has no organization runners
}

// ErrClosed is returned by a closed Server.
var ErrClosed = errors.New("the simulated GitHub is closed")

// A Server is a simulated GitHub. It is the http.Handler of its REST API, which
// it serves at / and, as GitHub Enterprise Server does, at /api/v3/. All its
// methods are safe for concurrent use.
type Server struct {
	*floor
	*apps
	*notices
	handler http.Handler
	stop    context.CancelFunc
}

// The parts of a Server, each on top of the one before it. They share one state, as all
// of it changes together.
type (
	gate  struct{ *state } // logins, limits and faults of the REST API
	hooks struct{ *gate }  // webhooks and their deliveries
	floor struct{ *hooks } // jobs and runners

	rest    struct{ *floor } // the REST API of jobs, runners and deliveries
	apps    struct{ *floor } // installations of the App
	notices struct{ *floor } // check runs, commit statuses and cancelled runs
)

// A state is all that a Server knows.
type state struct {
	cfg     Config
	closing <-chan struct{} // closed by Server.stop
	// deliveryContext makes the context of one delivery, which ends with Close.
	deliveryContext func() (context.Context, context.CancelFunc)
	senders         chan struct{} // one token for each delivery under way
	wg              sync.WaitGroup

	mu             sync.Mutex
	closed         bool
	rand           *rand.Rand
	lastID         int64
	repos          map[string]Repo // by lower-case owner/name
	orgs           map[string]bool // by lower-case name
	jobs           map[int64]*job
	runs           map[int64][]*job // in the order they were queued
	reads          map[int64]int    // by run
	queued         []*job           // without a runner; oldest first
	runners        map[int64]*runner
	groups         map[int64]Group
	variables      []*variable
	versions       map[string]VersionEnd
	version        string // of runners that connect
	settings       AppSettings
	madeApps       map[string]AppSettings // by the code with which they are completed, once
	byJIT          map[string]*runner     // by encoded configuration; runners that are gone stay
	idle           []*runner              // online without a job
	deliveries     []*delivery            // by ID, from 1
	forgotten      int64                  // the last of those that are not listed any more
	checks         []*CheckRun
	statuses       []CommitStatus
	pending        int // deliveries recorded and not yet answered
	deliveryFaults DeliveryFaults
	flushed        chan struct{}    // closed when pending falls to 0; nil: nobody waits
	limits         map[int64]*limit // by caller.account

	faults             Faults
	asked              map[string]uint64 // requests of the same method and path, since SetFaults
	traffic            Traffic
	points             map[string]*recent // by account and endpoint
	registrations      map[scope]*recent  // of lower case
	registrationTokens map[string]registrationToken

	installations map[int64]*installed  // those that ended too
	installedFor  map[string]*installed // by lower-case owner
	appTokens     map[string]appToken
}

// New returns a running Server, which Close ends.
func New(cfg Config) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.Senders = cmp.Or(cfg.Senders, 32)
	client := http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: cfg.Senders}}
	if cfg.Client != nil {
		client = *cfg.Client
	}
	// To GitHub, a redirection is a failed delivery.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	cfg.Client = &client
	cfg.RateLimit = cmp.Or(cfg.RateLimit, 5000)
	if cfg.Groups == nil {
		cfg.Groups = map[int64]string{1: "Default"}
	}
	groups := make(map[int64]Group, len(cfg.Groups))
	for id, name := range cfg.Groups {
		groups[id] = Group{Name: name}
	}
	settings := AppSettings{Events: []string{"workflow_job"}, HookURL: cfg.WebhookURL, Secret: cfg.Secret, ContentType: "json"}
	if cfg.App != nil {
		settings.Permissions = cfg.App.permissions()
	}
	base, stop := context.WithCancel(context.Background())
	at := &floor{&hooks{&gate{&state{
		cfg: cfg, closing: base.Done(),
		deliveryContext: func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(base, cfg.Timeout)
		},
		senders: make(chan struct{}, cfg.Senders), lastID: max(cfg.FirstID, 1) - 1, rand: rand.New(rand.NewPCG(cfg.RandSeed, 0)),
		repos: map[string]Repo{}, orgs: map[string]bool{}, jobs: map[int64]*job{}, runs: map[int64][]*job{}, reads: map[int64]int{},
		runners: map[int64]*runner{}, groups: groups, versions: map[string]VersionEnd{newestVersion: {}}, version: newestVersion, settings: settings,
		madeApps: map[string]AppSettings{}, byJIT: map[string]*runner{}, limits: map[int64]*limit{}, asked: map[string]uint64{},
		points: map[string]*recent{}, registrations: map[scope]*recent{}, registrationTokens: map[string]registrationToken{},
		installations: map[int64]*installed{}, installedFor: map[string]*installed{}, appTokens: map[string]appToken{},
	}}}}
	s := &Server{floor: at, apps: &apps{at}, notices: &notices{at}, stop: stop}
	s.handler = s.routes()
	return s
}

// Close cuts off deliveries and runners and waits for them. The REST API still
// answers afterwards, but nothing changes any more.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
	s.cfg.Client.CloseIdleConnections()
}

// AddRepo makes a repository, and its owner, known to the REST API. Queue does
// so too.
func (s *state) AddRepo(r Repo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addRepo(r)
}

func (s *state) addRepo(r Repo) {
	s.repos[repoKey(r.Owner, r.Name)] = r
	if !r.User {
		s.orgs[strings.ToLower(r.Owner)] = true
	}
}

func repoKey(owner, name string) string { return strings.ToLower(owner + "/" + name) }

// begin admits one goroutine that Close waits for; it must call s.wg.Done.
// s.mu is held.
func (s *state) begin() bool {
	if s.closed {
		return false
	}
	s.wg.Add(1)
	return true
}

// newID returns an ID that nothing else has. s.mu is held.
func (s *state) newID() int64 {
	s.lastID++
	return s.lastID
}
