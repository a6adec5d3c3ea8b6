package nomadsim

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"
)

const noPath = "No path to region"

// Join federates the cluster with others, as `nomad server join` does: each answers for all
// of their regions, whose names must differ. A region with the fault Refusing is away: the
// others no longer have a path to it.
//
// What a real Nomad answers (2.0.5, tried 2026-11-30), and so does this: 500 "No path to
// region" for a region that it does not know, and from half a minute after the servers of a
// region died; until then 500 with "rpc error: failed to get conn", which this leaves out. A
// region without a leader is 500 "rpc error: No cluster leader", after 5 s. The event stream
// of a region to which there is no path is 200 and stays empty.
func (s *Server) Join(others ...*Server) {
	for _, o := range others {
		for name, of := range o.others.servers() {
			s.others.mu.Lock()
			s.others.of[name] = of
			s.others.mu.Unlock()
			of.others = s.others
		}
	}
}

func (f *federation) servers() map[string]*Server {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.of)
}

// local reports whether the agent answers a request by itself, whatever its region.
func local(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, "/v1/agent/") || r.URL.Path == "/v1/regions" || r.URL.Path == "/v1/jobs/parse"
}

// away reports whether other regions have no path to this one.
func (s *Server) away() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault == Refusing
}

// forward has the cluster of a region answer a request.
func (s *Server) forward(w http.ResponseWriter, r *http.Request, region string) {
	to := s.others.servers()[region]
	switch {
	case to != nil && !to.away():
		to.ServeHTTP(forwarded{w}, r)
	case r.URL.Path == "/v1/event/stream":
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-s.ctx.Done():
		}
	default:
		refuse(w, http.StatusInternalServerError, noPath)
	}
}

// A forwarded answer came from another region's servers.
type forwarded struct{ http.ResponseWriter }

// Unwrap is for http.ResponseController.
func (f forwarded) Unwrap() http.ResponseWriter { return f.ResponseWriter }

// reached returns the regions to which there is a path.
func (s *Server) reached() (names []string) {
	for name, of := range s.others.servers() {
		if of == s || !of.away() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// members returns the servers of all regions, those that are away, too.
func (s *Server) members() (all []*api.AgentMember) {
	servers := s.others.servers()
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		status := "alive"
		if of := servers[name]; of != s && of.away() {
			status = "failed"
		}
		all = append(all, &api.AgentMember{
			Name: "nomadsim." + name, Addr: "127.0.0.1", Port: 4648, Status: status,
			Tags: map[string]string{"role": "nomad", "region": name, "dc": "dc1", "build": servers[name].cfg.Release},
		})
	}
	return all
}
