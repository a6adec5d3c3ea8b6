package router

import "time"

// A Fleet is the nodes that Nomad has and the rules that they could serve, as
// it was at one time. Its JSON form is a contract, and so is that of its parts.
type Fleet struct {
	At      *time.Time    `json:"at"`      // when Nomad was asked; nil: it never answered, and all below is empty
	Problem *FleetProblem `json:"problem"` // why it is no newer; nil: Nomad answered
	Nodes   []Node        `json:"nodes"`   // by pool and name
	More    int           `json:"more"`    // nodes that are left out, as there are too many
	Groups  []NodeGroup   `json:"groups"`  // nodes that are alike, by platform, class and pool
	Rules   []RuleFleet   `json:"rules"`   // those that place, in file order
}

// A FleetProblem is why Nomad does not say what there is.
type FleetProblem struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"` // one line
}

// A Node is one of Nomad's.
type Node struct {
	ID         string       `json:"id"`
	Name       string       `json:"name"`
	Pool       string       `json:"pool"`
	Datacenter string       `json:"datacenter"`
	Class      string       `json:"class"`   // "": none
	OS         string       `json:"os"`      // linux, darwin, windows: Nomad's kernel.name
	Arch       string       `json:"arch"`    // amd64, arm64: Nomad's cpu.arch
	State      string       `json:"state"`   // ready; or why nothing is placed on it: down, draining, ineligible, …
	Group      int          `json:"group"`   // index into Fleet.Groups
	Drivers    []string     `json:"drivers"` // in working order, by name
	Devices    []NodeDevice `json:"devices"`
	Total      NodeSize     `json:"total"`   // what there is for allocations
	Used       NodeSize     `json:"used"`    // what they have
	Running    int          `json:"running"` // allocations
}

// A NodeDevice is one model of device on a node.
type NodeDevice struct {
	Name  string `json:"name"`  // vendor/type/model
	Total int    `json:"total"` // healthy ones
	Used  int    `json:"used"`
}

// A NodeSize is an amount of what allocations share.
type NodeSize struct {
	CPU      int `json:"cpu"`       // MHz
	Cores    int `json:"cores"`     // that can be reserved, or are
	MemoryMB int `json:"memory_mb"` // MiB
	DiskMB   int `json:"disk_mb"`
}

// A NodeGroup is nodes of one platform, class and pool.
type NodeGroup struct {
	OS    string   `json:"os"`
	Arch  string   `json:"arch"`
	Class string   `json:"class"`
	Pool  string   `json:"pool"`
	Nodes int      `json:"nodes"`
	Ready int      `json:"ready"` // of them in service
	Total NodeSize `json:"total"` // of those in service
	Used  NodeSize `json:"used"`
}

// RuleFleet says which nodes could serve the plainest job of a rule, by its
// constraints, drivers, devices, host volumes and sizes. What else Nomad looks
// at, such as ports and storage plugins, may still keep it from a node.
type RuleFleet struct {
	Rule    string   `json:"rule"`
	RunsOn  []string `json:"runs_on"` // the labels of that job
	Problem string   `json:"problem"` // why it cannot be told, and all counts are 0; "": it can
	NodeCounts
	Cells []FleetCell `json:"cells"` // one for each of Fleet.Groups; empty with a problem
}

// NodeCounts counts nodes by whether they could serve a job. Each is counted once.
type NodeCounts struct {
	Now   int `json:"now"`   // it has room
	Idle  int `json:"idle"`  // it is full, and would do with less on it
	Away  int `json:"away"`  // it would do, idle or not, were it in service
	Never int `json:"never"` // it would not do
}

// A FleetCell is a rule's fit with the nodes of a group.
type FleetCell struct {
	NodeCounts
	Why []FleetReason `json:"why"` // for those that do not fit now, most nodes first, at most three
}

// A FleetReason is why nodes do not fit.
type FleetReason struct {
	Text  string `json:"text"` // such as "has not ${attr.cpu.arch} = arm64 (label arm64)"
	Nodes int    `json:"nodes"`
}
