package rules

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"switchyard/rules/internal/yamlfile"
)

// Each § stands before the place of one fault, in the order of the messages,
// and is taken out before the file is read.
func TestFaultsAreReportedAtTheirPlaces(t *testing.T) {
	const rest = "rules: [{ name: r, jobspec: j }]\n" // what a file needs besides
	const top = "version: 1\n" + rest
	for _, tt := range []struct {
		name, src string
		want      []string
	}{
		// The file.
		{"a scalar is no rules file", "§hello\n", []string{`a rules file must be a mapping, not a text`}},
		{"a list is no rules file", "§- a\n", []string{`a rules file must be a mapping, not a list`}},
		{"an empty file says how one begins", "§", []string{`the file is empty: a rules file begins with version: 1`}},
		{"a file of comments is empty", "§# nothing\n\n", []string{`the file is empty: a rules file begins with version: 1`}},
		{"a null is an empty mapping", "§§~\n", []string{`rules is missing: list at least one rule`, `version is missing: a rules file begins with version: 1`}},
		{"version and rules are needed", "§§labels: {}\n", []string{`rules is missing: list at least one rule`, `version is missing: a rules file begins with version: 1`}},
		{"a later version is named", "version: §2\n" + rest, []string{`version "2" is not one that this Switchyard reads: write version: 1`}},
		{"a version is one value", "version: §[1]\n" + rest, []string{`version must be a text, not a list`}},
		{"a second document", top + "---\n§" + top, []string{`a second YAML document: a rules file has only one`}},
		{"a third document", "---\n" + top + "§---\n---\n", []string{`a second YAML document: a rules file has only one`}},
		{"YAML that does not parse", "version: 1\nrules: §[{ name: r }\n", []string{`not YAML: sequence end token ']' not found`}},
		{"a key that is there twice", top + "§rules: []\n", []string{`not YAML: mapping key "rules" already defined at [2:1]`}},
		{"a key that is there twice, once in quotes", top + "§\"rules\": []\n", []string{`not YAML: mapping key "rules" already defined at [2:1]`}},
		{"a tab", "version: 1\nrules:\n§\t- name: r\n", []string{`a tab: YAML is indented by spaces`}},
		{"a NUL", "version: 1\n# é§\x00\n", []string{`byte 0x00 is not text: a rules file is UTF-8`}},
		{"an escape sequence", "version: 1 # §\x1b[2J\n", []string{`byte 0x1b is not text: a rules file is UTF-8`}},
		{"binary junk", "§\x7fELF\x02\x01\x01\x00\x00", []string{`byte 0x7f is not text: a rules file is UTF-8`}},
		{"UTF-16", "§\xff\xfev\x00", []string{`byte 0xff is not text: a rules file is UTF-8`}},

		{"a condition with a comma within braces", "version: 1\nrules: [{ name: r, if: has(\"a\", §\"b\"), jobspec: j }]\n", []string{`not YAML: could not find flow map content: within { } a text with a comma must be in quotes, as in if: 'has("linux", "gpu")'`}},

		// What hides what a rule says.
		{"anchors and aliases", "version: 1\nlabels: { a: §&x {}, b: §*x }\n" + rest, []string{anchors, anchors}},
		{"a merge key", "version: 1\nlabels:\n  a: §&x { priority: 5 }\n  b: { §<<: §*x }\n" + rest, []string{anchors, anchors, anchors}},
		{"an anchor that holds itself", "version: 1\nrules: §&x [§*x]\n", []string{anchors, anchors}},
		{"a bare star is an alias to YAML", "version: 1\nlabels:\n  §*: {}\n" + rest, []string{anchors}},
		{"a tag", "version: §!!int 1\n" + rest, []string{tags}},
		{"a directive", "§%YAML 1.2\n---\n" + top, []string{tags}},

		// Keys.
		{"an unknown key, with the nearest", top + "§lables: {}\n", []string{`unknown key "lables" in a rules file; did you mean labels?`}},
		{"an unknown key with none near", top + "§q: {}\n", []string{`unknown key "q" in a rules file; it takes version, scope, compound, labels, defaults, unroutable, feedback, prices, rules, tests`}},
		{"unknown keys at every level", `version: 1
compound: { prefix: 'y=', §seperator: '/', separator: '/' }
labels:
  "cpu=*":
    param: { name: cpu, type: int, min: 1, §mx: 2, max: 2 }
    §resource: {}
    resources: { §core: 1 }
  gpu:
    devices: [{ name: gpu, §cnt: 2, constraints: [{ §atribute: x, attribute: '${device.model}', value: y }] }]
defaults:
  §maximum: {}
  max: { §cpus: 1 }
rules:
  - name: r
    §when: 'true'
    jobspec: j
    task: { §envs: {} }
    runner: { §groups: 1 }
    affinities: [{ attribute: '${node.class}', value: a, weight: 1, §wieght: 1 }]
`, []string{
			`unknown key "seperator" in compound; did you mean separator?`,
			`unknown key "mx" in param; did you mean max?`,
			`unknown key "resource" in label "cpu=*"; did you mean resources?`,
			`unknown key "core" in label "cpu=*": resources; did you mean cores?`,
			`unknown key "cnt" in device; it takes name, count, constraints`,
			`unknown key "atribute" in constraint; did you mean attribute?`,
			`unknown key "maximum" in defaults; it takes constraints, affinities, devices, resources, node_pool, datacenters, namespace, region, priority, task, runner, debug, max, time_limit`,
			`unknown key "cpus" in max; did you mean cpu?`,
			`unknown key "when" in a rule; it takes name, if, deny, jobspec, dispatch, max, limit, urgency, time_limit, rerun, fallback, overflow, warm, constraints, affinities, devices, resources, node_pool, datacenters, namespace, region, priority, task, runner, debug`,
			`unknown key "envs" in rule: task; did you mean env?`,
			`unknown key "groups" in rule: runner; did you mean group?`,
			`unknown key "wieght" in affinity; did you mean weight?`,
		}},
		{"a key that is nothing", top + "§~: b\n", []string{`a key must be one word, not nothing`}},

		// The vocabulary.
		{"labels that differ in case only", "version: 1\nlabels: { GPU: {}, §gpu: {} }\n" + rest, []string{`label "gpu" is defined twice: labels that differ only in case are the same label`}},
		{"a star in the middle", "version: 1\nlabels: { §'a*b': {} }\n" + rest, []string{`label "a*b": * is allowed only at the end, as in cpu=* or run-*`}},
		{"an empty label", "version: 1\nlabels: { §'': {} }\n" + rest, []string{`a label must not be empty`}},
		{"a label that is too long", "version: 1\nlabels: { §" + strings.Repeat("a", 257) + ": {} }\n" + rest, []string{`label "` + strings.Repeat("a", 60) + `"… must be printable and have at most 256 characters`}},
		{"a label that is a list", "version: 1\nlabels: { gpu: §[] }\n" + rest, []string{`label "gpu" must be a mapping, not a list`}},
		{"labels as a list", "version: 1\nlabels: §[gpu]\n" + rest, []string{`labels must be a mapping, not a list: each label with what it means, labels: { linux: {}, gpu: { devices: [nvidia/gpu] } }`}},
		{"params that say too little", `version: 1
labels:
  gpu: { param: §{ name: gpu, type: int, min: 1, max: 2 } }
  "*": { param: §{ name: any, type: string, pattern: a } }
  "a=*": { param: §§{} }
  "b=*": { param: §{ name: b, type: int } }
  "c=*": { param: { name: §C, type: §number } }
  "d=*": { param: §{ name: d, type: string } }
  "e=*": { param: §{ name: e, type: string, one_of: [x], pattern: x } }
  "f=*": { param: { name: f, type: string, min: §1, one_of: §[] } }
  "g=*": { param: { name: g, type: size, min: §4GB, max: 8GiB, pattern: §x } }
  "h=*": { param: { name: h, type: int, min: 9, max: §8 } }
  "i=*": { param: { name: §h, type: int, min: 1, max: §1.5 } }
  "j=*": { param: { name: j, type: string, pattern: §'a)|(b' } }
  "k=*": { param: §cpu }
` + rest, []string{
			`label "gpu" has a param but leaves nothing open: end its name with *, as in gpu=*`,
			`label "*" stands for any label and has no param`,
			`param needs a name, for expressions to say param.NAME`, `param needs a type: int, size or string`,
			`a param of type int needs min and max: what workflows ask for must be bounded`,
			`param name "C" must be lower case letters, digits and _, a letter first`, `param type "number": want int, size or string`,
			`a param of type string needs one_of or pattern: what workflows ask for must be bounded`,
			`a param of type string needs one_of or pattern: what workflows ask for must be bounded`,
			`a param of type string has no min`, `one_of must list 1 to 1000 texts`,
			`param min: size "4GB" is ambiguous: write 4GiB`, `a param of type size has no pattern`,
			`param max is below its min`,
			`param "h" is defined by another label already`, `param max: "1.5" is not a whole number`,
			"param pattern \"a)|(b\" is not a regular expression: error parsing regexp: unexpected ): `a)|(b`",
			`param must be a mapping, not a text`,
		}},
		{"a compound that says half", "version: 1\ncompound: §{ prefix: 'y=' }\n" + rest, []string{`compound needs a prefix and a separator, such as { prefix: 'yard=', separator: '/' }`}},

		// Rules.
		{"no rules", "version: 1\nrules: §[]\n", []string{`rules is empty: list at least one rule`}},
		{"rules as a mapping", "version: 1\nrules: §{ name: r }\n", []string{`rules must be a list, not a mapping`}},
		{"a rule that is a text", "version: 1\nrules: [§linux]\n", []string{`a rule must be a mapping, not a text`}},
		{"a rule without name and end", "version: 1\nrules:\n  - §§if: 'true'\n", []string{`a rule needs a name`, `a rule needs one of jobspec, dispatch or deny`}},
		{"two ends", "version: 1\nrules: [{ name: r, deny: no, jobspec: §j }]\n", []string{`a rule has one of jobspec, dispatch and deny, not both deny and jobspec`}},
		{"names that are taken or bad", "version: 1\nrules:\n  - { name: r, jobspec: j }\n  - { name: §r, jobspec: j }\n  - { name: §\"\\e[2J\", jobspec: §'${{ 1 }}' }\n", []string{
			`rule r is already defined at line 3`, `rule name "\x1b[2J": write letters, digits, spaces and ._/+:-, at most 128`, `jobspec must be written out, not come from an expression`}},
		{"names that are too long", "version: 1\nrules:\n  - { name: " + strings.Repeat("é", 128) + ", jobspec: j }\n  - { name: §" + strings.Repeat("é", 129) + ", jobspec: §" + strings.Repeat("j", 129) + " }\n", []string{
			fmt.Sprintf(`rule name "%s"…: write letters, digits, spaces and ._/+:-, at most 128`, strings.Repeat("é", 60)),
			fmt.Sprintf(`jobspec: "%s"… is not a valid name of a jobspec`, strings.Repeat("j", 60))}},
		{"a denial that places", "version: 1\nrules: [{ name: r, deny: no, node_pool: §a, max: §{ cpu: 1 } }]\n", []string{
			`a rule that denies places nothing: node_pool has no effect`, `a rule that denies places nothing: max has no effect`}},
		{"a denial with an expression", "version: 1\nrules: [{ name: r, deny: §'not ${{ repo.name }}' }]\n", []string{`deny must be written out, not come from an expression`}},
		{"a dispatch with a placement", "version: 1\nrules: [{ name: r, dispatch: j, namespace: ci, runner: { group: 2 }, priority: §3, task: §{} }]\n", []string{
			`a dispatched Nomad job runs as it is: priority has no effect`, `a dispatched Nomad job runs as it is: task has no effect`}},
		{"a dispatch that is no ID", "version: 1\nrules: [{ name: r, dispatch: §a b }]\n", []string{`dispatch: "a b" is not a valid ID of a Nomad job`}},

		// Values.
		{"values of the wrong kind", `version: 1
defaults:
  node_pool: §[a]
  namespace: §a/b
  priority: §101
  datacenters: §[]
  constraints: §{}
  resources: §8
  task: { env: { §1A: x, B: §{} }, config: { c: §~ } }
  runner: { scope: §team, group: §0 }
rules: [{ name: r, jobspec: j, datacenters: [§'a b'], node_pool:§ , priority: §'' }]
`, []string{
			`defaults: node_pool must be a single value, not a list`,
			`defaults: namespace: "a/b" is not a valid name of a Nomad namespace`,
			`defaults: priority: 101 is not between 1 and 100`,
			`defaults: datacenters must list at least one; ["*"] is any`,
			`defaults: constraints must be a list, not a mapping`,
			`defaults: resources must be a mapping, not a number`,
			`"1A" is not a valid name of an environment variable`,
			`defaults: task env B must be a single value, not a mapping`,
			`defaults: task config c: nothing is not a valid value in a task's config`,
			`defaults: runner scope: "team": want repository, organization or enterprise`,
			`defaults: runner group: 0 is not between 1 and 2147483647`,
			`rule: datacenters: "a b" is not a valid name or pattern of a Nomad datacenter`,
			`rule: node_pool must be a single value, not nothing`,
			`rule: priority must not be empty`,
		}},
		{"sizes", `version: 1
labels:
  a: { resources: { memory: §4GB, disk: §16g, memory_max: §9 } }
  b: { resources: { memory: §99999TiB, cpu: §4 cores, cores: §1.5 } }
  c: { resources: { cpu: 1000, cores: §2 } }
  d: { resources: { cpu: §0, memory: §-1GiB, disk: §1.5GiB } }
  e: { resources: { memory: 4GiB, memory_max: §2GiB } }
  f: { resources: { cores: §5000, memory: §99999999999999999999 } }
defaults: { max: { memory: §'${{ 1 }}' } }
` + rest, []string{
			`label "a": resources memory: size "4GB" is ambiguous: write 4GiB`,
			`label "a": resources disk: size "16g" is ambiguous: write 16GiB`,
			`label "a": resources memory_max: size "9" is too small: Nomad's minimum is 10 MiB`,
			`label "b": resources memory: size "99999TiB" is too large: the maximum is 2147483647 MiB`,
			`label "b": resources cpu: "4 cores" is not a CPU size: write MHz as a whole number, such as 2000; whole cores go to cores`,
			`label "b": resources cores: "1.5" is not a whole number`,
			`label "c": resources sets cpu and cores: a Nomad task has MHz or whole cores, not both`,
			`label "d": resources cpu: 0 is not between 1 and 2147483647`,
			`label "d": resources memory: "-1GiB" is not a size: write a whole number with MiB, GiB or TiB, such as 512MiB`,
			`label "d": resources disk: size "1.5GiB" has an unknown unit: write MiB, GiB or TiB, or a bare number for MiB`,
			`label "e": resources: memory_max is below memory`,
			`label "f": resources cores: 5000 is not between 1 and 4096`,
			`label "f": resources memory: size "99999999999999999999" is too large: the maximum is 2147483647 MiB`,
			`max memory must be written out, not come from an expression`,
		}},
		{"a long list", "version: 1\ndefaults: { devices: §[" + strings.Repeat("gpu,", 201) + "] }\n" + rest, []string{`defaults: devices has 201 entries; the maximum is 200`}},
		{"a constraint of a device that is one of a node", "version: 1\ndefaults: { devices: [{ name: gpu, constraints: [§'${attr.a} = b'] }] }\n" + rest,
			[]string{`attribute "${attr.a}" is not a device attribute: write ${device.attr.NAME}, ${device.model}, ${device.vendor}, ${device.type} or ${device.ids}`}},
		{"devices", "version: 1\nlabels: { a: { devices: [§a b, §{ count: 2 }, { name: gpu, count: §0 }, §[]] } }\n" + rest, []string{
			`device: "a b" is not a valid device: write type, vendor/type or vendor/type/model, such as nvidia/gpu`,
			`a device needs a name, such as nvidia/gpu`, `device count: 0 is not between 1 and 128`, `device must be a mapping, not a list`}},

		{"how runners register", `version: 1
defaults: { runner: { scope: §enterprise, registration: §tokens } }
rules:
  - { name: a, jobspec: j, runner: { scope: §enterprise } }
  - { name: b, jobspec: j, runner: { scope: organization, enterprise: §acme } }
  - { name: c, jobspec: j, runner: { scope: §enterprize, enterprise: §acme/web } }
`, []string{
			`runner scope enterprise needs the enterprise: { scope: enterprise, enterprise: SLUG }, as in github.com/enterprises/SLUG`,
			`defaults: runner registration: "tokens": want jit, token or own; did you mean token?`,
			`runner scope enterprise needs the enterprise: { scope: enterprise, enterprise: SLUG }, as in github.com/enterprises/SLUG`,
			`rule: runner enterprise has no effect: scope is organization`,
			`rule: runner scope: "enterprize": want repository, organization or enterprise; did you mean enterprise?`,
			`rule: runner enterprise: "acme/web" is not a valid slug of an enterprise, as in github.com/enterprises/SLUG`,
		}},
		{"time limits", `version: 1
defaults: { time_limit: §6 }
rules:
  - { name: a, jobspec: j, time_limit: §30s }
  - { name: b, jobspec: j, time_limit: §6d }
  - { name: c, jobspec: j, time_limit: §120h1m }
  - { name: d, deny: no, time_limit: §6h }
  - { name: e, jobspec: j, fallback: [{ after: 5m, §time_limt: 6h, node_pool: a }] }
`, []string{
			`time_limit "6" is not a duration: write it as 90s, 5m or 1h30m`,
			`time_limit "30s" is not between 1m and 120h`,
			`time_limit "6d" is not a duration: write it as 90s, 5m or 1h30m`,
			`time_limit "120h1m" is not between 1m and 120h`,
			`a rule that denies places nothing: time_limit has no effect`,
			`unknown key "time_limt" in a fallback; it takes after, jobspec, constraints, affinities, devices, resources, node_pool, datacenters, namespace, region, priority, task, runner, debug`,
		}},
		{"urgencies and orders", `version: 1
labels: { a: { urgency: §high }, b: { urgency: §-1 } }
defaults: { §urgency: 1 }
rules:
  - { name: a, jobspec: j, urgency: §101, limit: { running: 1, order: §oldest } }
  - { name: b, deny: no, urgency: §5 }
  - { name: c, jobspec: j, limit: { running: 1, order: §'${{ job.branch }}' }, fallback: [{ after: 5m, node_pool: a, §urgency: 3 }] }
`, []string{
			`label "a": urgency: "high" is not a whole number`,
			`label "b": urgency: -1 is not between 0 and 100`,
			`unknown key "urgency" in defaults; it takes constraints, affinities, devices, resources, node_pool, datacenters, namespace, region, priority, task, runner, debug, max, time_limit`,
			`urgency: 101 is not between 0 and 100`,
			`limit order: "oldest": want fair or priority`,
			`a rule that denies places nothing: urgency has no effect`,
			`limit order must be written out, not come from an expression`,
			`unknown key "urgency" in a fallback; it takes after, jobspec, constraints, affinities, devices, resources, node_pool, datacenters, namespace, region, priority, task, runner, debug`,
		}},
		{"prices that are none", "version: 1\nprices: §{ cpu_hour: §free, gib_hour: §-1, device_hour: §1000001, node_pools: { gpu: { cpu_hour: §0.0000001, §per: day }, mac: }, node_classes: §[] }\n" + rest, []string{
			`prices needs a currency, as in { currency: EUR, cpu_hour: 0.04 }`, `prices cpu_hour "free" is not an amount such as 0.04, with at most 6 digits after the point`,
			`prices gib_hour "-1" is not an amount such as 0.04, with at most 6 digits after the point`, `prices device_hour 1000001 exceeds the maximum of 1000000`,
			`prices node_pools "gpu" cpu_hour "0.0000001" is not an amount such as 0.04, with at most 6 digits after the point`,
			`unknown key "per" in prices node_pools "gpu"; it takes cpu_hour, gib_hour, device_hour`,
			`prices node_classes must be a mapping, not a list`}},
		{"a currency that is no word", "version: 1\nprices: { currency: §'€ 5' }\n" + rest, []string{`prices currency "€ 5" is not a word of at most 16 letters`}},
		{"warm runners", `version: 1
rules:
  - { name: a, jobspec: j, warm: §{ when: §Mon-Fry } }
  - { name: b, jobspec: j, warm: { idle: §0, max: §1001, when: §"Mon 7:00-19:00" } }
  - { name: c, jobspec: j, warm: [ { idle: 3, max: §2, when: §Tokyo }, { idle: 1, when: §"Mon 07:00-07:00", labels: §[] } ] }
  - { name: d, jobspec: j, warm: { idle: 1, when: §"07:00-19:00 Asia/Tokio" } }
  - { name: e, jobspec: j, warm: §[] }
  - { name: f, deny: no, warm: §{ idle: 1 } }
  - { name: g, dispatch: x, warm: §{ idle: 1 } }
`, []string{
			`warm needs idle, how many runners wait for a job, as in { idle: 2, max: 6, when: "Mon-Fri 07:00-19:00 Asia/Tokyo" }`,
			`warm when: "Mon-Fry" are not days: write them as Mon-Fri or Sat,Sun`,
			`warm idle: 0 is not between 1 and 1000`,
			`warm max: 1001 is not between 1 and 1000`,
			`warm when: "7:00-19:00" are not hours: write them as 07:00-19:00, or 22:00-06:00 over midnight`,
			`warm max 2 is less than idle 3`,
			`warm when: "Tokyo" is not a schedule: write days, hours and a time zone, as Mon-Fri 07:00-19:00 Asia/Tokyo; days or hours may be left out, and the zone is UTC if it is`,
			`warm when: "07:00-07:00" begin and end at the same time: leave the hours out for the whole day`,
			`warm labels must list 1 to 100 labels`,
			`warm when: "Asia/Tokio" is not a time zone: write one as Europe/Berlin or UTC`,
			`warm must list 1 to 20 entries`,
			`a rule that denies places nothing: warm has no effect`,
			`a dispatched Nomad job runs as it is: warm has no effect`,
		}},
		{"overflows", `version: 1
rules:
  - { name: a, jobspec: j, overflow: { after: §30s, variable: §GITHUB_RUNNER, scope: §repo, to: §ubuntu-latest, back: §'["linux",5]' } }
  - { name: b, jobspec: j, overflow: { after: §25h, variable: §2X, to: §'[]', back: §'""' } }
  - { name: c, jobspec: j, overflow: §{ after: 10m, to: '"u"', back: '"l"' } }
  - { name: d, jobspec: j, overflow: { after: 10m, variable: §LINUX-RUNNER, to: §["u"], back: §'{"group":"x"}', §until: 1m } }
  - { name: e, jobspec: j, overflow: { after: 10m, variable: D, to: '"u"', back: §'["u"]' } }
  - { name: f, deny: no, overflow: §{ after: 10m, variable: F, to: '"u"', back: '"l"' } }
  - { name: g, jobspec: j, overflow: { after: 10m, variable: §'${{ 1 }}', to: '"u"', back: '"l"' } }
`, []string{
			`overflow after "30s" is not between 1m and 24h`,
			`overflow variable: "GITHUB_RUNNER" is not the name of an Actions variable, as GitHub keeps those that start with GITHUB_`,
			`overflow scope: "repo": want repository or organization`,
			`overflow to: "ubuntu-latest": it is read by fromJSON, so write JSON, a text or a list of texts: '"ubuntu-latest"' or '["self-hosted","linux"]'`,
			`overflow back: "[\"linux\",5]": it is read by fromJSON, so write JSON, a text or a list of texts: '"ubuntu-latest"' or '["self-hosted","linux"]'`,
			`overflow after "25h" is not between 1m and 24h`,
			`overflow variable: "2X" is not the name of an Actions variable: write letters, digits and _, without a digit at its start, at most 100`,
			`overflow to: "[]": name 1 to 100 labels`,
			`overflow back: "\"\"": each label is 1 to 256 printable characters`,
			`overflow needs variable, as in { after: 10m, variable: LINUX_RUNNER, to: '"ubuntu-latest"', back: '["self-hosted","linux"]' }`,
			`overflow variable: "LINUX-RUNNER" is not the name of an Actions variable: write letters, digits and _, without a digit at its start, at most 100`,
			`overflow to must be a single value, not a list`,
			`overflow back: "{\"group\":\"x\"}": it is read by fromJSON, so write JSON, a text or a list of texts: '"ubuntu-latest"' or '["self-hosted","linux"]'`,
			`unknown key "until" in overflow; it takes after, variable, scope, to, back`,
			`overflow back is the same as to: write what workflows read while the rule serves their jobs`,
			`a rule that denies places nothing: overflow has no effect`,
			`overflow variable must be written out, not come from an expression`,
		}},
		{"reruns", `version: 1
rules:
  - { name: a, jobspec: j, rerun: §{ times: §0 } }
  - { name: b, jobspec: j, rerun: { when: §[] } }
  - { name: c, jobspec: j, rerun: { when: §drained } }
  - { name: d, jobspec: j, rerun: { when: [drained, §node_last, §drained, preempted], times: §11, §time: 1 } }
  - { name: e, deny: no, rerun: §{ when: [drained] } }
  - { name: f, dispatch: j, rerun: §{ when: [drained] } }
`, []string{
			`rerun needs when, a list with any of node_lost, preempted, drained`,
			`rerun times: 0 is not between 1 and 10`,
			`rerun when is empty: list any of node_lost, preempted, drained, or leave rerun out`,
			`rerun when must be a list, not a text: write [drained]`,
			`rerun when "node_last": want node_lost, preempted, drained; did you mean node_lost?`,
			`rerun when lists drained twice`,
			`rerun times: 11 is not between 1 and 10`,
			`unknown key "time" in rerun; did you mean times?`,
			`a rule that denies places nothing: rerun has no effect`,
			`a dispatched Nomad job runs as it is: rerun has no effect`,
		}},
		{"unroutable and feedback that say half", "version: 1\nunroutable: §{ after: §25h }\nfeedback: §{ after: 1m }\n" + rest, []string{
			`unroutable needs action, as in { after: 10m, action: cancel }`, `unroutable after "25h" is not between 1s and 24h`, `feedback needs a kind: check_run or commit_status`}},
		{"unroutable and feedback", `version: 1
unroutable: { after: §0s, action: §cancle }
feedback: { kind: §check-run, §afer: 1m }
` + rest, []string{
			`unroutable after "0s" is not between 1s and 24h`, `unroutable action: "cancle": want cancel; did you mean cancel?`,
			`feedback kind: "check-run": want check_run or commit_status; did you mean check_run?`, `unknown key "afer" in feedback; did you mean after?`,
		}},

		// Expressions: the place is that of the mistake within them.
		{"in a plain text", `version: 1
rules:
  - { name: a, jobspec: j, if: not repo.§privat }
  - name: b
    jobspec: j
    if: not  repo.private and §nope
`, []string{`if: repo has no field privat`, `if: unknown name nope`}},
		{"in quotes, and after wide letters", `version: 1
rules:
  - { name: 中文, jobspec: j, if: '"gpu" in labels and §x' }
  - { name: é, jobspec: j, if: "has('é', '中') and §x" }
`, []string{`if: unknown name x`, `if: unknown name x`}},
		{"in a | text", `version: 1
rules:
  - name: a
    jobspec: j
    if: |

      has("a")
        and §x
  - name: b
    jobspec: j
    if: |2-
        has("b")
       and §x
  - { name: c, jobspec: j, if: §y }
`, []string{`if: unknown name x`, `if: unknown name x`, `if: unknown name y`}},
		{"folded and escaped texts hide the place, and say so", `version: 1
rules:
  - name: a
    jobspec: j
    if: §>
      has("a") and

      x
  - { name: b, jobspec: j, if: §"has(\"b\") and x" }
  - { name: c, jobspec: j, if: §'has(''c'') and x' }
  - name: d
    jobspec: j
    if: §has("d")
      and x
  - name: e
    jobspec: j
    if: >-
      has("e") and §y
  - { name: f, jobspec: j, if: §z }
`, []string{
			`if: unknown name x (line 2, column 1 of the expression; a plain, quoted or | text shows the place)`,
			`if: unknown name x (line 1, column 14 of the expression; a plain, quoted or | text shows the place)`,
			`if: unknown name x (line 1, column 14 of the expression; a plain, quoted or | text shows the place)`,
			`if: unknown name x (line 1, column 14 of the expression; a plain, quoted or | text shows the place)`,
			`if: unknown name y`,
			`if: unknown name z`,
		}},
		{"with the line ends of Windows", strings.ReplaceAll("version: 1\nlabels: { a: { priority: §'1\n\n  2' } }\nrules:\n  - name: r\n    jobspec: j\n    if: |\n      true and\n        §x\n", "\n", "\r\n"),
			[]string{`label "a": priority: "1\n2" is not a whole number`, `if: unknown name x`}},
		{"in templates", `version: 1
labels:
  "cpu=*":
    param: { name: cpu, type: int, min: 1, max: 8 }
    resources: { cores: '${{ 1 }}${{ param.§cpus }}' }
  a: { constraints: ['${meta.a}  =  ${{ param.§cpus }}', { attribute: '${meta.b}', value: '  ${{ §x }}' }, '${meta.c} = §${{ "}}"'] }
  b: { task: { env: { A: "é ${{ job.§title }}" }, config: { a: [{ b: '${{ 1 +§ }}' }] } } }
  c: { node_pool: '${{ §now() }}', priority: '§${{ 1' }
  d: { constraints: [§'${meta.${{ job.name }}} = x', '${attr.cpu.arch} = ${meta.§${{ job.name }}}'] }
` + rest, []string{
			`label "cpu=*": resources cores: unknown param "cpus"; did you mean cpu?`,
			`constraint on ${meta.a}: unknown param "cpus"; did you mean cpu?`,
			`constraint on ${meta.b}: unknown name x`,
			`constraint on ${meta.c}: ${{ is not closed by }}`,
			`label "b": task env A: job has no field title`,
			`label "b": task config a.b: unexpected token EOF`,
			`label "c": node_pool: there is no function "now"; there are abs, all, any, ceil, count, exactly, filter, first, float, floor, has, hasAny, hasPrefix, hasSuffix, indexOf, int, join, last, lastIndexOf, len, lower, max, min, none, one, only, replace, round, split, string, trim, trimPrefix, trimSuffix, upper`,
			`label "c": priority: ${{ is not closed by }}`,
			`constraint "${meta.${{ job.name }}} = x": the attribute must be written out, not come from an expression`,
			`constraint on ${attr.cpu.arch}: an expression is not allowed within ${…}: write out what Nomad interpolates`,
		}},
		{"names that stand for nothing", `version: 1
scope: has(§self-hosted)
labels:
  "cpu=*": { param: { name: cpu, type: int, min: 1, max: 8 }, resources: { cores: '${{ has(§gpu) ? 1 : param.cpu }}' } }
  "zone=*": { param: { name: zone, type: string, one_of: [a] } }
  x: { node_pool: 'a-${{ string(§pool) }}' }
defaults: { task: { env: { A: '${{ join(§lables, ",") }}' } } }
rules:
  - { name: a, jobspec: j, if: has(§gpu) }
  - { name: b, jobspec: j, if: 'hasAny("linux", §gpu)' }
  - { name: c, jobspec: j, if: 'only("self-hosted", §ubuntu-22.04)' }
  - { name: d, jobspec: j, if: 'exactly("self-hosted", §gpu.a100)' }
  - { name: e, jobspec: j, if: '"linux" in labels and §gpu in labels' }
  - { name: f, jobspec: j, if: 'any(labels, # == §gpu)' }
  - { name: g, jobspec: j, if: 'none(labels, # startsWith §gpu)' }
  - { name: h, jobspec: j, if: 'any(labels, # in ["a", §gpu-b])' }
  - { name: i, jobspec: j, if: 'count(filter(labels, # == §gpu)) > 0' }
  - { name: j, jobspec: j, if: 'len(§label) > 1' }
  - { name: k, jobspec: j, if: 'join(§lables, ",") contains "x"' }
  - { name: l, jobspec: j, if: 'split(§rep.name, "-")[0] == "x"' }
  - { name: m, jobspec: j, if: 'string(§params.cpu) == "8"' }
  - { name: n, jobspec: j, if: 'replace(job.name, §x, "y") == "x"' }
  - { name: o, jobspec: j, if: 'repo.owner == §acme-inc' }
  - { name: p, jobspec: j, if: 'repo.visibility in [§public]' }
  - { name: q, jobspec: j, if: 'repo.owner in §owners' }
  - { name: r, jobspec: j, if: '§has == nil' }
  - { name: s, jobspec: j, if: 'has(param.§cpuu)' }
  - { name: t, jobspec: j, if: 'has(job.§title)' }
  - { name: u, jobspec: j, if: 'has(lower(§gpu))' }
  - { name: v, jobspec: j, if: 'has(repo.private ? §gpu : "b")' }
  - { name: w, jobspec: j, if: '(param.zone ?? §tokyo) == "a"' }
  - { name: x, jobspec: j, if: 'hasPrefix(job.branch, §release)' }
  - { name: y, jobspec: j, if: 'repo?.§ownr == "x"' }
  - { name: y2, jobspec: j, if: 'repo.private or param[§"zzz"] == 1' }
  - { name: z, jobspec: j, if: 'has("a") and (§nope or not nope)', limit: { running: 1 } }
`, []string{
			`scope: unknown name self: a label must be in quotes: has("self-hosted")`,
			`label "cpu=*": resources cores: unknown name gpu: a label must be in quotes: has("gpu")`,
			`label "x": node_pool: unknown name pool: a text must be in quotes: "pool"`,
			`defaults: task env A: unknown name lables; did you mean labels?`,
			`if: unknown name gpu: a label must be in quotes: has("gpu")`,
			`if: unknown name gpu: a label must be in quotes: hasAny("gpu")`,
			`if: unknown name ubuntu: a label must be in quotes: only("ubuntu-22.04")`,
			`if: unknown name gpu: a label must be in quotes: exactly("gpu.a100")`,
			`if: unknown name gpu: a text must be in quotes: "gpu"`,
			`if: unknown name gpu: a text must be in quotes: "gpu"`,
			`if: unknown name gpu: a text must be in quotes: "gpu"`,
			`if: unknown name gpu: a text must be in quotes: "gpu-b"`,
			`if: unknown name gpu: a text must be in quotes: "gpu"`,
			`if: unknown name label; did you mean labels?`,
			`if: unknown name lables; did you mean labels?`,
			`if: unknown name rep; did you mean repo?`,
			`if: unknown name params; did you mean param?`,
			`if: unknown name x: a text must be in quotes: "x"`,
			`if: unknown name acme: a text must be in quotes: "acme-inc"`,
			`if: unknown name public: a text must be in quotes: "public"`,
			`if: unknown name owners: a text must be in quotes: "owners"`,
			`if: has is a function: write has(…)`,
			`if: unknown param "cpuu"; did you mean cpu?`,
			`if: job has no field title`,
			`if: unknown name gpu: a text must be in quotes: "gpu"`,
			`if: unknown name gpu`,
			`if: unknown name tokyo: a text must be in quotes: "tokyo"`,
			`if: unknown name release: a text must be in quotes: "release"`,
			`if: repo has no field ownr`,
			`if: unknown param "zzz"`,
			`if: unknown name nope`,
		}},
		{"what a function does not take", `version: 1
labels:
  "cpu=*": { param: { name: cpu, type: int, min: 1, max: 8 } }
  "zone=*": { param: { name: zone, type: string, one_of: [a] } }
rules:
  - { name: a, jobspec: j, if: '§has()' }
  - { name: b, jobspec: j, if: 'not §hasAny()' }
  - { name: c, jobspec: j, if: '"a" in labels or §only()' }
  - { name: d, jobspec: j, if: '§exactly()' }
  - { name: e, jobspec: j, if: 'has(§8)' }
  - { name: f, jobspec: j, if: 'has("a", §["b"])' }
  - { name: g, jobspec: j, if: 'hasAny(§labels)' }
  - { name: h, jobspec: j, if: 'has(param.§cpu)' }
  - { name: i, jobspec: j, if: 'has(§nil)' }
  - { name: j, jobspec: j, if: 'has(§repo)' }
  - { name: k, jobspec: j, if: 'has(job.§attempt)' }
  - { name: l, jobspec: j, if: '§lower() == "a"' }
  - { name: m, jobspec: j, if: '§lower("a", "b") == "a"' }
  - { name: n, jobspec: j, if: '§split(job.branch)[0] == "a"' }
  - { name: o, jobspec: j, if: 'lower(param.§cpu) == "a"' }
  - { name: p, jobspec: j, if: 'has("a", string(has("b", repo.§own)))' }
  - { name: q, jobspec: j, if: 'has(param.zone) and has(string(param.cpu)) and has("zone=" + repo.name)' }
`, []string{
			`if: has asks for no label: write has("linux")`, `if: hasAny asks for no label: write hasAny("linux")`, `if: only asks for no label: write only("linux")`, `if: exactly asks for no label: write exactly("linux")`,
			`if: has takes labels, each a text: write has("8")`, `if: has takes labels, each a text: write has("linux")`, `if: hasAny takes labels, each a text: write hasAny("linux")`,
			`if: has takes labels, each a text: write has("linux")`, `if: has takes labels, each a text: write has("linux")`, `if: has takes labels, each a text: write has("linux")`,
			`if: has takes labels, each a text: write has("linux")`,
			`if: not enough arguments to call lower`, `if: too many arguments to call lower`, `if: not enough arguments to call split`,
			`if: cannot use int as argument (type string) to call lower`, `if: repo has no field own`,
		}},
		{"values of another type", `version: 1
labels:
  "cpu=*": { param: { name: cpu, type: int, min: 1, max: 8 }, resources: { cores: '${{ param.cpu == §"8" ? 4 : 2 }}' } }
  "memory=*": { param: { name: memory, type: size, min: 1GiB, max: 8GiB } }
  "zone=*": { param: { name: zone, type: string, one_of: [a] } }
rules:
  - { name: a, jobspec: j, if: 'param.cpu == §"8"' }
  - { name: b, jobspec: j, if: '§"8" != param.cpu' }
  - { name: c, jobspec: j, if: 'param.memory > §"4GiB"' }
  - { name: d, jobspec: j, if: 'param.cpu in [4, §"8"]' }
  - { name: e, jobspec: j, if: '(param.cpu ?? 1) > §"4"' }
  - { name: f, jobspec: j, if: 'param.cpu == §"many"' }
  - { name: g, jobspec: j, if: 'param.zone == §1' }
  - { name: h, jobspec: j, if: 'param.zone > §1' }
  - { name: i, jobspec: j, if: 'param.cpu startsWith §"8"' }
  - { name: j, jobspec: j, if: 'not (param.cpu matches §"^8")' }
  - { name: k, jobspec: j, if: 'param.cpu == §true' }
  - { name: l, jobspec: j, if: 'repo.private == §"true"' }
  - { name: m, jobspec: j, if: 'repo.fork != §1' }
  - { name: n, jobspec: j, if: 'job.attempt == §"2"' }
  - { name: o, jobspec: j, if: 'len(labels) == §"2"' }
  - { name: p, jobspec: j, if: 'repo.owner == §5' }
  - { name: q, jobspec: j, if: 'has("a") and §param.cpu' }
  - { name: r, jobspec: j, if: 'not §repo.owner or true' }
  - { name: s, jobspec: j, if: 'param.cpu §in labels' }
  - { name: s2, jobspec: j, if: '(param.cpu ?? §"1") == "1"' }
  - { name: s3, jobspec: j, if: 'has("gpu") == §"true"' }
  - { name: t, jobspec: j, if: 'param.zone §+ 1 == 2' }
  - { name: u, jobspec: j, if: 'param.cpu == nil or param.cpu == 8 or param.zone in ["a"] or param.memory > 4096 or (param.cpu ?? 1.5) > 2' }
`, []string{
			`label "cpu=*": resources cores: param.cpu is a number: write 8`,
			`if: param.cpu is a number: write 8`, `if: param.cpu is a number: write 8`, `if: param.memory is a number of MiB: write 4096`, `if: param.cpu is a number: write 8`,
			`if: param.cpu ?? 1 is a number: write 4`, `if: param.cpu is a number: never "many"`, `if: param.zone is a text: write "1"`, `if: param.zone is a text: never 1`,
			`if: param.cpu is a number: compare it by ==, < and the like`, `if: param.cpu is a number: compare it by ==, < and the like`, `if: param.cpu is a number: never true`,
			`if: repo.private is true or false: write repo.private, or not repo.private`, `if: repo.fork is true or false: write repo.fork, or not repo.fork`,
			`if: job.attempt is a number: write 2`, `if: len(labels) is a number: write 2`, `if: repo.owner is a text: write "5"`,
			`if: param.cpu is a number, not true or false: compare it with one`, `if: repo.owner is a text, not true or false: compare it with one, within brackets: not (repo.owner == …)`,
			`if: cannot use int as type string in array`, `if: param.cpu is a number, and "1" is a text: the value after ?? must have the same type`, `if: has("gpu") is true or false: write has("gpu"), or not has("gpu")`, `if: invalid operation: + (mismatched types string and int)`,
		}},
		{"conditions that are none", `version: 1
scope: §'${{ has("self-hosted") }}'
rules:
  - { name: a, jobspec: j, if: §'${{ has("a") }}' }
  - { name: b, jobspec: j, if: '§repo.name' }
  - { name: c, jobspec: j, if: '§1 + 1' }
  - { name: d, jobspec: j, if: 'has(§1)' }
  - { name: e, jobspec: j, if: §'' }
  - { name: f, jobspec: j, if: §[a] }
  - { name: g, jobspec: j, if: 'param.§cpu' }
  - { name: h, jobspec: j, if: '§now() == nil' }
  - { name: i, jobspec: j, if: 'job.name §matches "("' }
  - { name: j, jobspec: j, if: '§` + strings.Repeat("a", 4097) + `' }
  - { name: k, jobspec: j, if: 'true` + strings.Repeat(" or true", 250) + ` §or true' }
`, []string{
			`scope is an expression already: leave ${{ and }} out`,
			`if is an expression already: leave ${{ and }} out`,
			`if: expected bool, but got string`,
			`if: expected bool, but got int`,
			`if: has takes labels, each a text: write has("1")`,
			`if must not be empty`,
			`if must be a text, not a list: write one text, with and between its parts`,
			`if: unknown param "cpu": no label has a param`,
			`if: there is no function "now"; there are abs, all, any, ceil, count, exactly, filter, first, float, floor, has, hasAny, hasPrefix, hasSuffix, indexOf, int, join, last, lastIndexOf, len, lower, max, min, none, one, only, replace, round, split, string, trim, trimPrefix, trimSuffix, upper`,
			"if: error parsing regexp: missing closing ): `(`",
			`if: the expression has 4097 bytes; the maximum is 4096`,
			`if: compilation failed: expression exceeds maximum allowed nodes`,
		}},
		{"a param is no condition by itself", `version: 1
labels: { "cpu=*": { param: { name: cpu, type: int, min: 1, max: 2 } } }
rules: [{ name: r, jobspec: j, if: §param.cpu }]
`, []string{`if: expected bool, but got int`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkFaults(t, tt.src, tt.want)
		})
	}
}

func TestAFaultNamesItsRule(t *testing.T) {
	_, err := Parse("f.yaml", []byte(`version: 1
labels: { a: { q: 1 } }
rules:
  - { name: a, jobspec: j }
  - { q: 1, name: b, jobspec: j, if: nope }
  - { name: [], q: 1, jobspec: j }
`))
	var ds Diagnostics
	if !errors.As(err, &ds) {
		t.Fatal(err)
	}
	var got []string
	for _, d := range ds {
		got = append(got, fmt.Sprintf("%d %q", d.Line, d.Rule))
	}
	same(t, []string{`2 ""`, `5 "b"`, `5 "b"`, `6 ""`, `6 ""`}, got, "rules of the faults")
}

const (
	anchors = `anchors, aliases and merge keys are not supported: write the value out, and a text that begins with * or & in quotes`
	tags    = `YAML tags and directives are not supported: leave it out`
)

// checkFaults checks that a file has these faults at the places that are marked.
func checkFaults(t *testing.T, marked string, messages []string) {
	t.Helper()
	got, want := faults(t, marked, messages)
	same(t, want, got, "faults")
}

// faults reads a file with its marks taken out, and returns what was said of it
// and what should have been.
func faults(t *testing.T, marked string, messages []string) (got, want []string) {
	t.Helper()
	src := strings.ReplaceAll(marked, "§", "")
	for i := 0; strings.Contains(marked, "§"); i++ {
		before, after, _ := strings.Cut(marked, "§")
		marked = before + after
		line := strings.Count(before, "\n") + 1
		column := utf8.RuneCountInString(before[strings.LastIndex(before, "\n")+1:]) + 1
		message := "no message"
		if i < len(messages) {
			message = messages[i]
		}
		want = append(want, fmt.Sprintf("f.yaml:%d:%d: %s", line, column, message))
	}
	_, err := Parse("f.yaml", []byte(src))
	var ds Diagnostics
	if err != nil && !errors.As(err, &ds) {
		t.Fatalf("Parse returned a %T", err)
	}
	for _, d := range ds {
		got = append(got, d.String())
	}
	return got, want
}

// What the YAML library would take minutes for, or all of the stack, is refused
// before it sees it, with a fault that says so.
func TestHostileFilesAreRefusedQuickly(t *testing.T) {
	const top = "version: 1\nrules: [{ name: r, jobspec: j }]\n"
	for _, tt := range []struct{ name, src, want string }{
		{"a file that is too large", strings.Repeat("# a\n", yamlfile.MaxBytes/4) + "a", "f.yaml:1:1: the file has 4194305 bytes; a rules file has at most 4194304"},
		{"lists within lists", "a: " + strings.Repeat("[", 100_000), "f.yaml:1:67: more than 64 brackets, marks or mappings within each other"},
		{"mappings within mappings", strings.Repeat("{a: ", 50_000), "f.yaml:1:257: more than 64 brackets, marks or mappings within each other"},
		{"dashes within dashes", strings.Repeat("- ", 100_000), "f.yaml:1:129: more than 64 brackets, marks or mappings within each other"},
		{"question marks within question marks", strings.Repeat("? ", 100_000), "f.yaml:1:129: more than 64 brackets, marks or mappings within each other"},
		{"keys within keys on one line", strings.Repeat("a: ", 60_000), "f.yaml:1:193: more than 64 brackets, marks or mappings within each other"},
		{"keys within keys", nested(65), "f.yaml:65:65: more than 64 brackets, marks or mappings within each other"},
		{"dashes below each other", "version: 1\nrules:\n" + strings.Repeat("- x\n", 100_000), "f.yaml:10004:1: more than 10000 entries in one list"},
		{"dashes below each other in a list", "rules:\n  - name: x\n    datacenters:\n" + strings.Repeat("    - x\n", 20_000), "f.yaml:10005:5: more than 10000 entries in one list"},
		{"words and marks", strings.Repeat("- [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z, a, b, c, d, e]\n", 9999), "f.yaml:5781:73: too many YAML tokens: the maximum is 600000 in all, and above 50000 one for every 3 bytes"},
		{"a mapping of many keys", strings.Repeat("a:\n", 60_000), "f.yaml:10001:1: more than 10000 entries within one mapping or pair of brackets"},
		{"a mapping in braces of many keys", "{" + strings.Repeat("1,", 100_000), "f.yaml:1:20003: more than 10000 entries within one mapping or pair of brackets"},
		{"empty lines", "a: |\n" + strings.Repeat("\n ", 100_000), "f.yaml:102:1: more than 100 empty lines in a row"},
		{"documents", strings.Repeat("---\n", 50_000), "f.yaml:2:1: a second YAML document: a rules file has only one"},
		{"tabs in quotes", "a: \"" + strings.Repeat("\tb", 100_000), "f.yaml:1:5: a tab: YAML is indented by spaces"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _ := faults(t, tt.src, nil)
			same(t, []string{tt.want}, got, "faults")
		})
	}
	t.Run("a byte order mark takes no place", func(t *testing.T) {
		if got, _ := faults(t, "\ufefflables: {}\n"+top, nil); len(got) != 1 || !strings.HasPrefix(got[0], "f.yaml:1:1: ") {
			t.Errorf("faults = %q, want one at 1:1", got)
		}
	})
	t.Run("many brackets that are text are fine", func(t *testing.T) {
		if got, _ := faults(t, "# "+strings.Repeat("[", 1000)+"\n"+top+"scope: 'job.name != \""+strings.Repeat("{", 1000)+"\"'\n", nil); got != nil {
			t.Errorf("faults = %q, want none", got)
		}
	})
}

func nested(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

// A pattern that is just not too deep by itself is too deep with its anchors.
func TestAPatternThatIsTooDeepOnlyWhenWholeIsAFault(t *testing.T) {
	for depth := 995; depth <= 1001; depth++ {
		src := "version: 1\nlabels:\n  'a=*': { param: { name: a, type: string, pattern: '" +
			strings.Repeat("(", depth) + "a" + strings.Repeat(")", depth) + "' } }\nrules: [{ name: x, deny: y }]\n"
		if set, err := Parse("deep.yaml", []byte(src)); (set == nil) != (err != nil) || err != nil && !strings.Contains(err.Error(), "deep.yaml:3:53: param pattern") {
			t.Errorf("depth %d: %v, want a rules set or a fault at the pattern", depth, err)
		}
	}
}
