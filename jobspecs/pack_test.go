package jobspecs_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/nomad/api"
)

// packed are the jobspecs of the pack: when each is rendered, and which variable of the pack
// gives one of its own, unless it has the same name.
var packed = map[string]struct {
	when      string
	variables map[string]string
}{
	"switchyard":      {`lt (var "replicas" . | int) 2`, nil},
	"switchyard-ha":   {`ge (var "replicas" . | int) 2`, nil},
	"postgres-sample": {`var "postgres" .`, nil},
	"registry-mirror": {`var "registry_mirror" .`, map[string]string{"remote": "registry_remote", "port": "registry_port", "keep": "registry_keep"}},
	"actions-cache":   {`var "actions_cache" .`, map[string]string{"url": "actions_cache_url", "port": "actions_cache_port", "keep_days": "actions_cache_keep_days"}},
}

// templateOf makes a template of the pack from a jobspec: the variables of the pack are the
// defaults of its own.
func templateOf(t *testing.T, name string) string {
	t.Helper()
	of := packed[name]
	src := text(t, name+".nomad.hcl")
	head := regexp.MustCompile(`(?m)^(variable|job) `).FindStringIndex(src)
	src = src[head[0]:]
	if strings.Contains(src, "[[") {
		t.Fatalf("%s has the delimiter of templates", name)
	}
	src = regexp.MustCompile(`(?ms)^variable "(\w+)" \{$.*?^\}$`).ReplaceAllStringFunc(src, func(block string) string {
		own := regexp.MustCompile(`"(\w+)"`).FindStringSubmatch(block)[1]
		from := own
		if renamed := of.variables[own]; renamed != "" {
			from = renamed
		}
		return regexp.MustCompile(`(?m)^  default     = .*$`).ReplaceAllLiteralString(block, fmt.Sprintf(`  default     = [[ var %q . | toJson ]]`, from))
	})
	src = regexp.MustCompile(`(?m)^job "[\w-]+" \{$`).ReplaceAllStringFunc(src, func(line string) string { return line + `[[ template "place" . ]]` })
	return fmt.Sprintf("[[- /* Made of %s.nomad.hcl by go test ./jobspecs -update. */ -]]\n[[- if %s -]]\n%s[[ end -]]\n", name, of.when, src)
}

func TestThePackIsMadeOfTheJobspecs(t *testing.T) {
	for name := range packed {
		file := filepath.Join("pack", "templates", name+".nomad.tpl")
		want := templateOf(t, name)
		if *update {
			put(t, file, want, 0o644)
			continue
		}
		if d := cmp.Diff(want, text(t, file)); d != "" {
			t.Errorf("%s is old; go test ./jobspecs -update makes it again (-want +got):\n%s", file, d)
		}
	}
	files, err := filepath.Glob("pack/templates/*.nomad.tpl")
	if err != nil || len(files) != len(packed) {
		t.Errorf("templates %v, %v; want those of %v", files, err, slices.Sorted(maps.Keys(packed)))
	}
}

// A packVariable is a variable of the pack.
type packVariable struct {
	description string
	value       any // its default
}

// packVariables reads the variables of a file of HCL.
func packVariables(t *testing.T, file string) map[string]packVariable {
	t.Helper()
	parsed, diags := hclsyntax.ParseConfig([]byte(text(t, file)), file, hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	all := map[string]packVariable{}
	for _, b := range parsed.Body.(*hclsyntax.Body).Blocks {
		if b.Type != "variable" {
			continue
		}
		get := func(name string) (v any) {
			a := b.Body.Attributes[name]
			if a == nil {
				t.Fatalf("%s: variable %s has no %s", file, b.Labels[0], name)
			}
			value, diags := a.Expr.Value(nil)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			switch value.Type().FriendlyName() {
			case "string":
				return value.AsString()
			case "bool":
				return value.True()
			case "number":
				n, _ := value.AsBigFloat().Float64()
				return n
			}
			if value.LengthInt() > 0 {
				t.Fatalf("%s: %s of variable %s is not read here", file, name, b.Labels[0])
			}
			return []any{}
		}
		description, _ := get("description").(string)
		all[b.Labels[0]] = packVariable{description, get("default")}
	}
	return all
}

func TestEachVariableOfThePackIsDocumentedAndUsed(t *testing.T) {
	of := packVariables(t, "pack/variables.hcl")
	readme, used := text(t, "pack/README.md"), text(t, "pack/templates/_helpers.tpl")
	for name := range packed {
		tpl := text(t, filepath.Join("pack", "templates", name+".nomad.tpl"))
		used += tpl
		for own, v := range packVariables(t, name+".nomad.hcl") {
			from := own
			if renamed := packed[name].variables[own]; renamed != "" {
				from = renamed
			}
			p, ok := of[from]
			if !ok {
				t.Errorf("the pack lacks %s, for %s of %s", from, own, name)
			}
			differ := name == "switchyard-ha" && (own == "replicas" || own == "port") // 1 and 8080 are for one alone
			if d := cmp.Diff(v.value, p.value); d != "" && !differ {
				t.Errorf("%s has another default than %s of %s (-jobspec +pack):\n%s", from, own, name, d)
			}
		}
	}
	for name, v := range of {
		value, _ := json.Marshal(v.value)
		if row := fmt.Sprintf("| `%s` | `%s` | %s |", name, value, v.description); !strings.Contains(readme, row+"\n") {
			t.Errorf("README.md of the pack lacks the row\n%s", row)
		}
		if !strings.Contains(used, fmt.Sprintf("var %q .", name)) {
			t.Errorf("nothing uses %s", name)
		}
	}
}

// renderPack renders the pack as nomad-pack does, as far as the pack's templates ask for that.
func renderPack(t *testing.T, set map[string]any) map[string]string {
	t.Helper()
	values := map[string]any{}
	for name, v := range packVariables(t, "pack/variables.hcl") {
		values[name] = v.value
	}
	maps.Copy(values, set)
	tpl := template.New("").Delims("[[", "]]").Funcs(template.FuncMap{
		"var": func(name string, _ any) (any, error) {
			v, ok := values[name]
			if !ok {
				return nil, fmt.Errorf("no variable %s", name)
			}
			return v, nil
		},
		"toJson": func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
		"int": func(v any) int {
			n, _ := v.(float64)
			return int(n)
		},
	})
	files, err := filepath.Glob("pack/templates/*.tpl")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "pack/outputs.tpl") {
		if _, err := tpl.New(file).Parse(text(t, file)); err != nil {
			t.Fatal(err)
		}
	}
	rendered := map[string]string{}
	for _, file := range append(files, "pack/outputs.tpl") {
		var b bytes.Buffer
		if err := tpl.ExecuteTemplate(&b, file, nil); err != nil {
			t.Fatal(err)
		}
		if name := strings.TrimSuffix(filepath.Base(file), ".nomad.tpl"); strings.TrimSpace(b.String()) != "" {
			rendered[name] = b.String()
		}
	}
	return rendered
}

// packCases are variables of the pack, and the jobs that it then has.
var packCases = []struct {
	name string
	set  map[string]any
	jobs []string
}{
	{"alone", nil, []string{"switchyard"}},
	{"replicas, and all else", map[string]any{
		"replicas": 3.0, "image": "ghcr.io/acme/switchyard:1.2.0", "public_url": "https://ci.example.com", "port": 0.0, "tags": []any{"traefik.enable=true", "a=\"b\""},
		"distinct_hosts": false, "db": "postgres://switchyard@10.0.0.5:5432/switchyard", "sslmode": "disable", "postgres": true,
		"registry_mirror": true, "registry_remote": "https://ghcr.io", "registry_port": 5001.0, "registry_keep": "24h",
		"actions_cache": true, "actions_cache_url": "https://cache.example.com", "actions_cache_port": 3001.0, "actions_cache_keep_days": 7.0,
		"namespace": "default", "node_pool": "all",
	}, []string{"actions-cache", "postgres-sample", "registry-mirror", "switchyard-ha"}},
}

// checkPack checks what a Nomad makes of the jobs of a case.
func checkPack(t *testing.T, client *api.Client, name string, set map[string]any, rendered map[string]string) {
	t.Helper()
	src := rendered[name]
	var job api.Job
	if err := json.Unmarshal(parse(t, client, []byte(src)), &job); err != nil {
		t.Fatal(err)
	}
	if len(set) == 0 {
		if d := cmp.Diff(parsed(t, client, name), &job); d != "" {
			t.Errorf("%s of the pack is not that of the jobspec (-jobspec +pack):\n%s", name, d)
		}
	} else if *job.NodePool != "all" {
		t.Errorf("%s is in the node pool %s", name, *job.NodePool)
	}
	answer, _, err := client.Jobs().Validate(&job, nil)
	if err != nil || answer.Error != "" || answer.Warnings != "" {
		t.Errorf("%s: %v\n%+v", name, err, answer)
	}
	if name != "switchyard-ha" {
		return
	}
	group := job.TaskGroups[0]
	task := group.Tasks[0]
	if *group.Count != 3 || job.Constraints[1].RTarget != "false" || len(group.Networks[0].ReservedPorts) != 0 || !cmp.Equal(group.Services[0].Tags, []string{"traefik.enable=true", `a="b"`}) ||
		task.Env["PGSSLMODE"] != "disable" || task.Env["SWITCHYARD_DB"] != "postgres://switchyard@10.0.0.5:5432/switchyard" || task.Env["SWITCHYARD_PUBLIC_URL"] != "https://ci.example.com" ||
		task.Config["image"] != "ghcr.io/acme/switchyard:1.2.0" {
		t.Errorf("the variables have no effect: %+v, %+v", group, task)
	}
}

func TestNomadTakesThePack(t *testing.T) {
	client := agent(t)
	for _, test := range packCases {
		t.Run(test.name, func(t *testing.T) {
			rendered := renderPack(t, test.set)
			if len(rendered["outputs.tpl"]) == 0 {
				t.Error("it says nothing in the end")
			}
			delete(rendered, "outputs.tpl")
			if d := cmp.Diff(test.jobs, slices.Sorted(maps.Keys(rendered))); d != "" {
				t.Fatalf("jobs (-want +got):\n%s", d)
			}
			for _, name := range test.jobs {
				checkPack(t, client, name, test.set, rendered)
			}
		})
	}
}

func TestNomadPackRendersThePack(t *testing.T) {
	command, err := exec.LookPath("nomad-pack")
	if err != nil {
		t.Skip("needs nomad-pack on PATH")
	}
	client := agent(t)
	for _, test := range packCases {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			args := []string{"render", "./pack", "--render-output-template", "--auto-approve", "--to-dir", dir}
			for name, value := range test.set {
				text, ok := value.(string)
				if !ok {
					b, err := json.Marshal(value)
					if err != nil {
						t.Fatal(err)
					}
					text = string(b)
				}
				args = append(args, "--var", name+"="+text)
			}
			cmd := exec.Command(command, args...)
			cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "NOMAD_ADDR="+client.Address(), "TERM=dumb", "NO_COLOR=1")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			rendered := map[string]string{}
			err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				if name, ok := strings.CutSuffix(filepath.Base(path), ".nomad"); ok && err == nil {
					rendered[name] = text(t, path)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.jobs, slices.Sorted(maps.Keys(rendered))); d != "" {
				t.Fatalf("jobs (-want +got):\n%s", d)
			}
			for _, name := range test.jobs {
				checkPack(t, client, name, test.set, rendered)
			}
		})
	}
}
