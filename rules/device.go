package rules

import (
	"fmt"
	"slices"
	"strings"
)

// includes reports whether each device that the name narrow asks for is one that
// wide asks for, too: gpu includes nvidia/gpu, and that nvidia/gpu/A100
// (https://developer.hashicorp.com/nomad/docs/job-specification/device, read 2026-11).
func includes(wide, narrow string) bool {
	w, n := deviceParts(wide), deviceParts(narrow)
	for i := range w {
		if w[i] != "" && w[i] != n[i] {
			return false
		}
	}
	return wide != narrow
}

// deviceParts returns the type, vendor and model of a device's name, "" for any.
func deviceParts(name string) [3]string {
	switch p := strings.Split(name, "/"); len(p) {
	case 1:
		return [3]string{p[0]}
	case 2:
		return [3]string{p[1], p[0]}
	default:
		return [3]string{p[1], p[0], strings.Join(p[2:], "/")}
	}
}

// A deviceBy names a device and whose layer asks for it.
type deviceBy struct{ name, from string }

const alsoWide = ", which is " // in From, between a device's own and those that include it

// narrowed asks once for devices that are meant by several: of two of which one includes the other
// the narrower, with the constraints of both and the larger count. Where several narrower ones are
// there, they count together. Those of one list are meant to be several: by says whose each is.
func narrowed(devices []Device, by []deviceBy) []Device {
	apart := func(a, b Device) bool {
		return slices.ContainsFunc(by, func(x deviceBy) bool { return x.name == a.Name && slices.Contains(by, deviceBy{b.Name, x.from}) })
	}
	covers := func(wide, narrow Device) bool { return includes(wide.Name, narrow.Name) && !apart(wide, narrow) }
	drop := map[int]bool{}
	for i := range devices {
		wide := devices[i]
		var narrower []*Device
		count := 0
		for j := range devices {
			if !covers(wide, devices[j]) {
				continue
			}
			// Not those that are dropped themselves: what they include is included, too.
			if slices.ContainsFunc(devices, func(d Device) bool { return covers(devices[j], d) }) {
				continue
			}
			narrower = append(narrower, &devices[j])
			count += devices[j].Count
		}
		if narrower == nil {
			continue
		}
		drop[i] = true
		if count < wide.Count {
			narrower[0].Count += wide.Count - count
		}
		for _, n := range narrower {
			n.From += fmt.Sprintf("%s%s of %s too", alsoWide, wide.Name, wide.From)
			for _, c := range wide.Constraints {
				n.Constraints = addConstraint(n.Constraints, c)
			}
		}
	}
	list := devices[:0]
	for i, d := range devices {
		if !drop[i] {
			list = append(list, d)
		}
	}
	return list
}

// known returns the constraints of a device, and those that its name implies.
func (d *Device) known() []Constraint {
	list := make([]Constraint, 0, len(d.Constraints)+3)
	p := deviceParts(d.Name)
	from, _, _ := strings.Cut(d.From, alsoWide)
	for i, attribute := range []string{"${device.type}", "${device.vendor}", "${device.model}"} {
		if p[i] != "" {
			list = append(list, Constraint{attribute, "=", p[i], from})
		}
	}
	return append(list, d.Constraints...)
}
