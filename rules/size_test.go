package rules

import (
	"strings"
	"testing"

	"switchyard/rules/internal/cond"
)

func TestParseSize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int
		err  string
	}{
		{in: "10", want: 10},
		{in: "512", want: 512},
		{in: "512MiB", want: 512},
		{in: "16GiB", want: 16 << 10},
		{in: "16gib", want: 16 << 10},
		{in: "1TiB", want: 1 << 20},
		{in: "007GiB", want: 7 << 10},
		{in: "2147483647", want: 1<<31 - 1},
		{in: "2047TiB", want: 2047 << 20},
		{in: "9", err: `size "9" is too small: Nomad's minimum is 10 MiB`},
		{in: "0GiB", err: `size "0GiB" is too small: Nomad's minimum is 10 MiB`},
		{in: "2147483648", err: `size "2147483648" is too large: the maximum is 2147483647 MiB`},
		{in: "2048TiB", err: `size "2048TiB" is too large: the maximum is 2147483647 MiB`},
		{in: "18446744073709551617GiB", err: `size "18446744073709551617GiB" is too large: the maximum is 2147483647 MiB`},
		{in: "16GB", err: `size "16GB" is ambiguous: write 16GiB`},
		{in: "16g", err: `size "16g" is ambiguous: write 16GiB`},
		{in: "1t", err: `size "1t" is ambiguous: write 1TiB`},
		{in: "512M", err: `size "512M" is ambiguous: write 512MiB`},
		{in: "16 GiB", err: `size "16 GiB" has an unknown unit: write MiB, GiB or TiB, or a bare number for MiB`},
		{in: "1.5GiB", err: `size "1.5GiB" has an unknown unit: write MiB, GiB or TiB, or a bare number for MiB`},
		{in: "512KiB", err: `size "512KiB" has an unknown unit: write MiB, GiB or TiB, or a bare number for MiB`},
		{in: "", err: `"" is not a size: write a whole number with MiB, GiB or TiB, such as 512MiB`},
		{in: "-1GiB", err: `"-1GiB" is not a size: write a whole number with MiB, GiB or TiB, such as 512MiB`},
		{in: "٤GiB", err: `"٤GiB" is not a size: write a whole number with MiB, GiB or TiB, such as 512MiB`},
		{in: "big\n", err: `"big\n" is not a size: write a whole number with MiB, GiB or TiB, such as 512MiB`},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := cond.ParseSize(tt.in)
			said := ""
			if err != nil {
				said = err.Error()
			}
			if got != tt.want || said != tt.err {
				t.Errorf("cond.ParseSize(%q) = %d, %q; want %d, %q", tt.in, got, said, tt.want, tt.err)
			}
		})
	}
}

func TestCPUShares(t *testing.T) {
	for in, want := range map[string]int{"2000": 2000, "2000MHz": 2000, "1mhz": 1} {
		if got, err := cpuShares(in); got != want || err != nil {
			t.Errorf("cpuShares(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"0", "-1", "2GHz", "4 cores", "1.5", "", "99999999999"} {
		if got, err := cpuShares(in); err == nil {
			t.Errorf("cpuShares(%q) = %d, want an error", in, got)
		}
	}
}

func TestExcerpt(t *testing.T) {
	long := strings.Repeat("x", 200)
	for _, tt := range []struct {
		name, src    string
		line, column int
		want         string
	}{
		{"points at the place", "a: 1\nb: nope\n", 2, 4, "    2 | b: nope\n      |    ^\n"},
		{"points past the end of a line", "a:\n", 1, 3, "    1 | a:\n      |   ^\n"},
		{"takes wide letters for two cells", "日本: x\n", 1, 5, "    1 | 日本: x\n      |       ^\n"},
		{"takes a combining mark for none", "e\u0301: x\n", 1, 5, "    1 | e\u0301: x\n      |    ^\n"},
		{"lets nothing unprintable through", "a\x1b[2J\t\x07\u202e\xffb\n", 1, 10, "    1 | a·[2J ···b\n      |          ^\n"},
		{"cuts a long line around the place", long + "y" + long, 1, 201, "    1 | …" + long[:60] + "y" + long[:40] + "…\n      |  " + strings.Repeat(" ", 60) + "^\n"},
		{"takes Windows' line ends", "a\r\nb\r\n", 1, 1, "    1 | a\n      | ^\n"},
		{"shows nothing of a line that is not there", "a\n", 7, 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Diagnostic{Line: tt.line, Column: tt.column}.Excerpt([]byte(tt.src))
			if got != tt.want {
				t.Errorf("Excerpt =\n%q\nwant\n%q", got, tt.want)
			}
		})
	}
}
