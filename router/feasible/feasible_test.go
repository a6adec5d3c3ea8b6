package feasible

import (
	"testing"

	"github.com/hashicorp/nomad/api"
)

func TestDeviceAttributesCompare(t *testing.T) {
	d := &api.NodeDeviceResource{
		Vendor: "nvidia", Type: "gpu", Name: "L4", Instances: []*api.NodeDevice{{ID: "uuid-1"}, {ID: "uuid-2"}},
		Attributes: map[string]*api.Attribute{
			"memory": {IntVal: new(int64(24)), Unit: "GiB"}, "power": {FloatVal: new(72.5), Unit: "W"}, "clock": {IntVal: new(int64(2040)), Unit: "MHz"},
			"cores": {IntVal: new(int64(7424))}, "driver": {StringVal: new("560.35.3")}, "ecc": {BoolVal: new(true)},
		},
	}
	for _, c := range []struct {
		l, operand, r string
		want          bool
	}{
		{"${device.attr.memory}", "=", "24 GiB", true},
		{"${device.attr.memory}", ">=", "24576 MiB", true},
		{"${device.attr.memory}", ">", "25 GB", true},
		{"${device.attr.memory}", ">", "26 GB", false},
		{"${device.attr.memory}", ">", "20", false}, // a unit and none do not compare
		{"${device.attr.memory}", "!=", "20", false},
		{"${device.attr.memory}", ">=", "20 W", false},
		{"${device.attr.power}", "<", "0.1 kW", true},
		{"${device.attr.clock}", ">=", "2 GHz", true},
		{"${device.attr.cores}", ">", "7000.5", true},
		{"${device.attr.cores}", "is", "7424", true},
		{"${device.attr.cores}", ">", "many", false},
		{"${device.attr.driver}", "version", ">= 550, < 570", true},
		{"${device.attr.driver}", "semver", ">= 570.0.0", false},
		{"${device.attr.driver}", "regexp", "^560", true},
		{"${device.attr.ecc}", "=", "true", true},
		{"${device.attr.ecc}", "not", "false", true},
		{"${device.attr.no_such}", "!=", "x", true},
		{"${device.attr.no_such}", "=", "x", false},
		{"${device.attr.no_such}", "is_not_set", "", true},
		{"${device.attr.memory}", "is_set", "", true},
		{"${device.model}", "=", "L4", true},
		{"${device.vendor}", "set_contains_any", "amd,nvidia", true},
		{"${device.type}", "set_contains", "gpu,fpga", false},
		{"${device.ids}", "set_contains", "uuid-2", true},
	} {
		if got := deviceHolds(c.operand, deviceAttribute(d, c.l), deviceAttribute(d, c.r)); got != c.want {
			t.Errorf("%s %s %s = %t, want %t", c.l, c.operand, c.r, got, c.want)
		}
	}
}

func TestDatacenterPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "dc1", true},
		{"*", "", true},
		{"", "dc1", false},
		{"dc1", "dc1", true},
		{"dc1", "dc12", false},
		{"dc*", "dc12", true},
		{"*-a", "tokyo-a", true},
		{"*-a", "tokyo-ab", false},
		{"t*k*-a", "tokyo-a", true},
		{"t*k*k*", "tokyo-a", false},
		{"a*a", "a", false},
		{"dc?", "dc1", false},
	} {
		if got := InDatacenters([]string{c.pattern}, c.name); got != c.want {
			t.Errorf("InDatacenters(%q, %q) = %t, want %t", c.pattern, c.name, got, c.want)
		}
	}
}
