package nomad

import "strings"

const followEvents = "follow events"

// callName returns what a request asks of Nomad, as one of a few phrases.
func callName(method, path string) string {
	parts := strings.Split(strings.TrimPrefix(path, "/v1/"), "/")
	first, last := parts[0], parts[len(parts)-1]
	switch {
	case path == "/v1/jobs" && method == "GET":
		return "list jobs"
	case path == "/v1/jobs":
		return "register job"
	case path == "/v1/jobs/parse":
		return "parse job"
	case path == "/v1/validate/job":
		return "validate job"
	case path == "/v1/event/stream":
		return followEvents
	case first == "job" && len(parts) > 2 && (last == "dispatch" || last == "plan"):
		return last + " job"
	case first == "job" && len(parts) > 2 && (last == "allocations" || last == "evaluations"):
		return "read a job's " + last
	case first == "job" && method == "DELETE":
		return "stop job"
	case first == "job":
		return "read job"
	case path == "/v1/operator/scheduler/configuration":
		return "read scheduler configuration"
	case path == keysPath:
		return "list keys"
	case path == "/v1/agent/members":
		return "list servers"
	case first == "node", first == "allocation", first == "evaluation":
		return "read " + first
	case first == "nodes", first == "allocations", first == "evaluations", first == "namespaces":
		return "list " + first
	}
	return "other"
}
