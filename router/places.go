package router

// Places are those under one limit, handed out in the order in which the store does, for what
// simulates it. The zero value has none.
type Places struct{ queue queue }

// Wait has a job wait for a place. Jobs come in their order.
func (p *Places) Wait(j HeldJob) {
	for _, l := range p.queue.lines {
		if l.repo == j.Repo && l.urgency == j.Urgency {
			l.jobs = append(l.jobs, j)
			return
		}
	}
	p.queue.lines = append(p.queue.lines, &line{repo: j.Repo, urgency: j.Urgency, jobs: []HeldJob{j}})
}

// Take counts a place of a repository, and Leave no longer does.
func (p *Places) Take(repo RepoName) {
	if p.queue.places == nil {
		p.queue.places = map[RepoName]int{}
	}
	p.queue.places[repo]++
}

// Leave is the opposite of Take.
func (p *Places) Leave(repo RepoName) { p.queue.places[repo]-- }

// Next returns the job that has a place now, which is counted; false: none waits.
func (p *Places) Next() (HeldJob, bool) { return p.queue.next() }
