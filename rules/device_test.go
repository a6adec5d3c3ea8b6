package rules

import (
	"strings"
	"testing"
)

// Two labels that may mean the same device ask for one.
func TestADeviceThatAnotherIncludesIsAskedForOnce(t *testing.T) {
	s := parse(t, `version: 1
labels:
  self-hosted: {}
  linux: {}
  any: { devices: [gpu] }
  gpu: { devices: [nvidia/gpu] }
  amd: { devices: [amd/gpu] }
  fpga: { devices: [fpga] }
  a100: { devices: [nvidia/gpu/A100] }
  t4: { devices: [nvidia/gpu/T4] }
  h100: { devices: [{ name: nvidia/gpu, constraints: ["${device.model} = H100"] }] }
  big: { devices: [{ name: nvidia/gpu, constraints: ["${device.attr.memory} >= 40 GiB"] }] }
  pair: { devices: [nvidia/gpu, nvidia/gpu/A100] }
  "gpus=*": { param: { name: gpus, type: int, min: 1, max: 8 }, devices: [{ name: nvidia/gpu, count: '${{ param.gpus }}' }] }
rules:
  - { name: ml, if: 'has("linux") and repo.name == "ml"', jobspec: j, devices: [{ name: nvidia/gpu, count: 2 }] }
  - { name: linux, if: has("linux"), jobspec: j }
`)
	for labels, want := range map[string][]string{
		"gpu":              {"1 × nvidia/gpu"},
		"gpu a100":         {"1 × nvidia/gpu/A100"},
		"a100 gpu":         {"1 × nvidia/gpu/A100"},
		"any gpu":          {"1 × nvidia/gpu"},
		"any gpu a100":     {"1 × nvidia/gpu/A100"},
		"any amd":          {"1 × amd/gpu"},
		"gpu amd":          {"1 × nvidia/gpu", "1 × amd/gpu"},
		"any fpga":         {"1 × gpu", "1 × fpga"},
		"a100 t4":          {"1 × nvidia/gpu/A100", "1 × nvidia/gpu/T4"},
		"gpu a100 t4":      {"1 × nvidia/gpu/A100", "1 × nvidia/gpu/T4"},
		"gpus=2 a100 t4":   {"1 × nvidia/gpu/A100", "1 × nvidia/gpu/T4"},
		"gpus=4 a100 t4":   {"3 × nvidia/gpu/A100", "1 × nvidia/gpu/T4"},
		"gpus=4 a100":      {"4 × nvidia/gpu/A100"},
		"gpus=4 gpu":       {"4 × nvidia/gpu"},
		"gpu h100":         {"1 × nvidia/gpu (${device.model} = H100)"},
		"gpus=3 h100":      {"3 × nvidia/gpu (${device.model} = H100)"},
		"big a100":         {"1 × nvidia/gpu/A100 (${device.attr.memory} >= 40 GiB)"},
		"any big h100":     {"1 × nvidia/gpu (${device.model} = H100) (${device.attr.memory} >= 40 GiB)"},
		"amd gpu any a100": {"1 × amd/gpu", "1 × nvidia/gpu/A100"},
		"pair":             {"1 × nvidia/gpu", "1 × nvidia/gpu/A100"},
		"pair gpu a100":    {"1 × nvidia/gpu", "1 × nvidia/gpu/A100"},
		"any pair":         {"1 × nvidia/gpu", "1 × nvidia/gpu/A100"},
		"a100 h100":        {"no device nvidia/gpu/A100 can satisfy both ${device.model} = A100 (label a100) and ${device.model} = H100 (label h100)"},
	} {
		d := s.Decide(job(append([]string{"linux"}, strings.Fields(labels)...)...), false)
		var got []string
		for _, dev := range d.Devices {
			got = append(got, showDevice(dev))
		}
		if d.Outcome != Routed {
			got = []string{d.Reason[strings.Index(d.Reason, "no device"):]}
		}
		same(t, want, got, "%s", labels)
	}
	f := job("linux", "a100")
	f.Repo.Name = "ml"
	if d := s.Decide(f, false); len(d.Devices) != 1 || showDevice(d.Devices[0]) != "2 × nvidia/gpu/A100" || d.Devices[0].From != "label a100, which is nvidia/gpu of rule ml too" {
		t.Errorf("with a rule that asks for two: %+v", d.Devices)
	}
}
