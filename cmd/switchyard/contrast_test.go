package main

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"testing"
)

// All that is read on a page has a contrast of 4.5 to what is behind it, in
// light and in dark (WCAG 2.2, 1.4.3); the mark of the focus and the edges of fields have 3 (1.4.11).
func TestTheColoursCanBeRead(t *testing.T) {
	css, err := os.ReadFile("../../router/web/assets/app.css")
	must(t, err)
	table := map[string][2]float64{} // relative luminance, light and dark
	for _, m := range regexp.MustCompile(`--([a-z-]+): light-dark\(#([0-9a-f]{6}), #([0-9a-f]{6})\)`).FindAllSubmatch(css, -1) {
		table[string(m[1])] = [2]float64{luminance(string(m[2])), luminance(string(m[3]))}
	}
	if len(table) < 12 {
		t.Fatalf("the table has %d colours", len(table))
	}
	want := func(front, back string, least float64) {
		for i, scheme := range []string{"light", "dark"} {
			a, b := table[front][i], table[back][i]
			if c := (max(a, b) + .05) / (min(a, b) + .05); c < least {
				t.Errorf("%s: --%s on --%s has a contrast of %.2f, want %.1f", scheme, front, back, c, least)
			}
		}
	}
	for _, back := range []string{"bg", "card", "raised"} {
		for _, front := range []string{"text", "soft", "accent", "good", "busy", "wait", "bad"} {
			want(front, back, 4.5)
		}
		want("focus", back, 3)
	}
	want("edge", "bg", 3)
	want("edge", "card", 3)
	want("accent-text", "accent", 4.5)
}

// luminance is the relative luminance of a colour of six hexadecimal digits.
func luminance(hex string) float64 {
	var rgb [3]int
	if _, err := fmt.Sscanf(hex, "%02x%02x%02x", &rgb[0], &rgb[1], &rgb[2]); err != nil {
		panic(err)
	}
	var l float64
	for i, share := range []float64{.2126, .7152, .0722} {
		c := float64(rgb[i]) / 255
		if c <= .04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+.055)/1.055, 2.4)
		}
		l += share * c
	}
	return l
}
