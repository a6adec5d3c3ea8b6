package rules

import (
	"strings"
	"testing"
)

// GitHub compares owners, repositories, hosts, logins and labels without case, and so do
// conditions, in whatever way they compare them. Jobs, workflows and branches have case.
func TestNamesHaveNoCase(t *testing.T) {
	const file = `version: 1
labels:
  self-hosted: {}
  Linux: {}
  GPU-A100: {}
  "cpu=*": { param: { name: cpu, type: int, min: 1, max: 8 } }
  "Image=*": { param: { name: image, type: string, one_of: [Ubuntu-22.04, Windows-2022] } }
  "tag=*": { param: { name: tag, type: string, pattern: '[a-z0-9.]+' } }
rules:
  - name: r
    deny: no
    if: |
      `
	cased := Facts{
		Labels: []string{"Self-Hosted", "LINUX", "gpu-A100", "IMAGE=ubuntu-22.04", "Tag=V1"},
		Repo:   Repo{Host: "Acme.GHE.com", Owner: "EvilCorp", Name: "Web-App", FullName: "EvilCorp/Web-App", Private: true, Visibility: "private"},
		Job:    Job{Name: "Build", Workflow: "CI", Branch: "Release/1", Attempt: 1, Sender: "OctoCat"},
		Run:    &Run{Event: "pull_request", Actor: "OctoCat"},
	}
	for condition, want := range map[string]bool{
		`repo.owner == "evilcorp"`:                                               true,
		`repo.owner == "EVILCORP"`:                                               true,
		`"EVILcorp" == repo.owner`:                                               true,
		`repo.owner != "EVILCORP"`:                                               false,
		`not (repo.owner != "evilCORP")`:                                         true,
		`repo.owner in ["Other", "EVILCORP"]`:                                    true,
		`repo.owner not in ["Other", "evilCORP"]`:                                false,
		`not (repo.owner in ["Other", "evilCORP"])`:                              false,
		`repo["owner"] == "EVILCORP"`:                                            true,
		`repo?.owner == "EVILCORP"`:                                              true,
		`(repo.owner) == ("EVILCORP")`:                                           true,
		`repo.full_name in ["Acme/Secret", "EVILCORP/WEB-app"]`:                  true,
		`repo.full_name == "evilcorp/web-app" and repo.name == "WEB-APP"`:        true,
		`repo.full_name startsWith "EVILCORP/"`:                                  true,
		`repo.full_name contains "CORP/WEB"`:                                     true,
		`not (repo.full_name contains "CORP/WEB")`:                               false,
		`repo.name endsWith "-APP"`:                                              true,
		`hasPrefix(repo.owner, "EVIL")`:                                          true,
		`hasSuffix(repo.owner, "CORP")`:                                          true,
		`indexOf(repo.owner, "CORP") == 4`:                                       true,
		`lastIndexOf(repo.owner, "CORP") == 4`:                                   true,
		`repo.owner matches "^EVIL"`:                                             true,
		`repo.owner matches "^evil[a-z]+$"`:                                      true,
		`repo.owner matches "^[^A-Z]"`:                                           false,
		`not (repo.owner matches "^EVIL")`:                                       false,
		`repo.host == "ACME.ghe.com"`:                                            true,
		`job.sender == "octocat" and run.actor in ["OCTOCAT"]`:                   true,
		`run.event == "Pull_Request"`:                                            true,
		`repo.visibility == "Private"`:                                           true,
		`repo.visibility in ["Private", "Internal"]`:                             true,
		`repo.visibility != "PRIVATE"`:                                           false,
		`lower(repo.owner) == "EvilCorp"`:                                        true,
		`upper(repo.owner) == "EvilCorp"`:                                        true,
		`lower(job.branch) == "Release/1"`:                                       true,
		`upper(repo.name) startsWith "web"`:                                      true,
		`trim(repo.owner) == "evilcorp"`:                                         true,
		`repo.owner + "/" + repo.name == "EVILCORP/WEB-APP"`:                     true,
		`repo.owner + "/" + "WEB-APP" == repo.full_name`:                         true,
		`"EVILCORP/" + repo.name in ["evilcorp/web-app"]`:                        true,
		`join([repo.owner, repo.name], "/") == "evilcorp/WEB-app"`:               true,
		`join(["EVILCORP", "WEB-APP"], "/") == repo.full_name`:                   true,
		`split(repo.full_name, "/")[0] == "EVILCORP"`:                            true,
		`"EVILCORP" in split(repo.full_name, "/")`:                               true,
		`split(repo.full_name, "CORP/") == ["EVIL", "WEB-APP"]`:                  true,
		`trimPrefix(repo.owner, "EVIL") == "corp"`:                               true,
		`trimSuffix(repo.owner, "CORP") == "EVIL"`:                               true,
		`trimSuffix(repo.owner, "evil") == "EVILCORP"`:                           true,
		`trimPrefix(repo.owner, "CORP") == "EVILCORP"`:                           true,
		`replace(repo.name, "WEB-", "the") == "THEAPP"`:                          true,
		`repo.owner[0:4] == "EVIL"`:                                              true,
		`(repo.private ? repo.owner : "x") == "EVILCORP"`:                        true,
		`repo.owner == (repo.private ? "EVILCORP" : "x")`:                        true,
		`(param.tag ?? repo.owner) == "V1"`:                                      true,
		`(param.cpu != nil ? "x" : repo.owner) == "EVILCORP"`:                    true,
		`repo.owner in split("Other,EVILCORP", ",")`:                             true,
		`repo.owner in filter(["EVILCORP", "x"], len(#) > 1)`:                    true,
		`any(["EVILCORP", "x"], repo.owner == #)`:                                true,
		`any(["EVILCORP", "x"], # == repo.owner)`:                                true,
		`all(["EVILCORP", "x"], repo.owner != #)`:                                false,
		`{"EVILCORP": 1}[repo.owner] == 1`:                                       true,
		`repo.owner in {"EVILCORP": true}`:                                       true,
		`repo.owner >= "EVILCORP" and repo.owner <= "EVILCORP"`:                  true,
		`"linux" in labels and "Gpu-A100" in labels`:                             true,
		`has("lINUX", "GPU-a100")`:                                               true,
		`has(lower("LINUX")) and has(upper("gpu-a100"))`:                         true,
		`labels[0] == "Self-Hosted"`:                                             true,
		`first(labels) == "SELF-hosted" and last(labels) == "TAG=v1"`:            true,
		`any(labels, # == "GPU-A100")`:                                           true,
		`any(labels, "GPU-A100" == #)`:                                           true,
		`any(labels, # startsWith "GPU")`:                                        true,
		`any(labels, hasPrefix(#, "GPU"))`:                                       true,
		`any(labels, # matches "^GPU-[A-Z]100$")`:                                true,
		`all(labels, # != "LINUX")`:                                              false,
		`none(labels, # == "LINUX")`:                                             false,
		`one(labels, # endsWith "A100")`:                                         true,
		`count(labels, # contains "GPU") == 1`:                                   true,
		`len(filter(labels, # startsWith "GPU")) == 1`:                           true,
		`filter(labels, # startsWith "GPU") == ["GPU-A100"]`:                     true,
		`"GPU-A100" in filter(labels, # != "LINUX")`:                             true,
		`join(labels, ",") contains "Linux"`:                                     true,
		`join(labels, ",") matches "LINUX,GPU"`:                                  true,
		`join(filter(labels, # != "LINUX"), ",") startsWith "Self-Hosted,GPU"`:   true,
		`repo.name in labels`:                                                    false,
		`upper("Linux") in labels`:                                               true,
		`param.image == "ubuntu-22.04"`:                                          true,
		`param.image in ["UBUNTU-22.04"]`:                                        true,
		`param.image != "ubuntu-22.04"`:                                          false,
		`(param.image ?? "") matches "^ubuntu"`:                                  true,
		`(param.image ?? "") startsWith "UBUNTU"`:                                true,
		`param["image"] == "ubuntu-22.04"`:                                       true,
		`param[trim("image")] == "ubuntu-22.04"`:                                 true,
		`param.tag == "V1"`:                                                      true,
		`param[trim("cpu")] == nil`:                                              true,
		`job.name == "build"`:                                                    false,
		`job.name == "Build"`:                                                    true,
		`job.branch startsWith "release/"`:                                       false,
		`job.branch matches "^Release/" and job.workflow in ["CI"]`:              true,
		`job.branch == "release/1" or job.workflow == "ci"`:                      false,
		`split(job.branch, "/")[0] == "release"`:                                 false,
		`any(split(job.branch, "/"), # == "release")`:                            false,
		`job.branch contains repo.owner or job.name contains lower("B")`:         true,
		`({"Release/1": 1}[job.branch] ?? 0) == 1`:                               true,
		`(repo.owner == "EVILCORP" ? has("LINUX") : false) and has("gpu-a100")`:  true,
		`repo.owner startsWith "Evil" ? false : true`:                            false,
		`(repo.owner ?? "x") == "EVILCORP" and string(repo.owner) == "evilcorp"`: true,
		`len(repo.owner) == 8 and repo.owner[4:] == "CORP" and "CORP" != "corp"`: true,
	} {
		t.Run(condition, func(t *testing.T) {
			s := parse(t, file+condition+"\n")
			for way, d := range map[string]Decision{"by the index": s.Decide(cased, false), "by a scan": s.Decide(cased, true)} {
				if got := d.Outcome == Denied; got != want || strings.Contains(d.Reason, "error") {
					t.Errorf("%s: %s (%s), want it to hold: %v", way, d.Outcome, d.Reason, want)
				}
			}
			if strings.Contains(condition, "run.") {
				return
			}
			// The same in a value.
			s = parse(t, strings.Replace(file, "    deny: no\n    if: |\n      ", "    jobspec: j\n    task: { env: { A: '${{ "+condition+" }}' } }\n", 1))
			if got := s.Decide(cased, false).Task.Env["A"]; got != map[bool]string{true: "true", false: "false"}[want] {
				t.Errorf("in a value it gives %q, want %v", got, want)
			}
		})
	}
}

// A value keeps its case where it is not compared.
func TestAValueKeepsItsCase(t *testing.T) {
	for expression, want := range map[string]string{
		`repo.owner`:                                   "EvilCorp",
		`repo.full_name + "!"`:                         "EvilCorp/Web-App!",
		`split(repo.full_name, "/")[1]`:                "Web-App",
		`trimPrefix(repo.name, "WEB-")`:                "App",
		`trimSuffix(repo.name, "APP")`:                 "Web-",
		`replace(repo.name, "WEB", "My")`:              "My-App",
		`replace(repo.name, "-", "_")`:                 "Web_App",
		`upper(repo.name)`:                             "WEB-APP",
		`param.image ?? "none"`:                        "Ubuntu-22.04",
		`{"EVILCORP": "Gold"}[repo.owner]`:             "Gold",
		`repo.owner == "EVILCORP" ? "A" : "b"`:         "A",
		`first(filter([repo.owner], # == "EVILCORP"))`: "EvilCorp",
	} {
		s := parse(t, `version: 1
labels: { self-hosted: {}, "Image=*": { param: { name: image, type: string, one_of: [Ubuntu-22.04] } } }
rules: [{ name: r, jobspec: j, task: { env: { A: '${{ `+expression+` }}' } } }]
`)
		d := s.Decide(Facts{Labels: []string{"self-hosted", "image=UBUNTU-22.04"}, Repo: Repo{Owner: "EvilCorp", Name: "Web-App", FullName: "EvilCorp/Web-App"}}, false)
		if got := d.Task.Env["A"]; got != want {
			t.Errorf("%s gives %q (%s), want %q", expression, got, d.Reason, want)
		}
	}
}

// The reason shows what was compared: the job's text, and the rule's as it is written.
func TestAReasonShowsTheCaseOfBoth(t *testing.T) {
	s := parse(t, `version: 1
labels: { self-hosted: {} }
rules:
  - { name: a, if: 'repo.owner == "Other"', deny: no }
  - { name: b, if: 'not (repo.owner == "EVILCORP")', deny: no }
  - { name: c, if: 'repo.owner in ["A", "b"]', deny: no }
`)
	var got []string
	for _, step := range s.Decide(Facts{Labels: []string{"self-hosted"}, Repo: Repo{Owner: "EvilCorp"}}, true).Trace {
		got = append(got, step.Why)
	}
	want := []string{`repo.owner is "EvilCorp", not "Other"`, `repo.owner is "EvilCorp"`, `repo.owner is "EvilCorp", none of "A", "b"`}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("reasons are\n%q\nwant\n%q", got, want)
	}
}
