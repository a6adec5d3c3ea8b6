package cond

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"switchyard/rules/internal/words"
)

// LeastMiB is the least memory and ephemeral disk that Nomad takes
// (MinResources and EphemeralDisk.Validate in nomad/structs, Nomad 2.0).
const LeastMiB = 10

// MostMiB bounds sizes to what fits Nomad's 32-bit MB fields.
const MostMiB = math.MaxInt32

// ParseSize reads a size such as "512", "512MiB", "16GiB" or "1TiB", in any
// case, and returns MiB, which is what Nomad calls MB. A bare number is MiB. It
// fails on sizes under 10 MiB (Nomad's least), on fractions, on decimal units
// ("GB", "G"), which are ambiguous, and on sizes over 2^31-1 MiB.
func ParseSize(s string) (mib int, err error) {
	digits, unit := splitNumber(s)
	if digits == "" {
		return 0, fmt.Errorf("%s is not a size: write a whole number with MiB, GiB or TiB, such as 512MiB", words.Quote(s))
	}
	factor := 0
	switch strings.ToLower(unit) {
	case "", "mib":
		factor = 1
	case "gib":
		factor = 1 << 10
	case "tib":
		factor = 1 << 20
	case "m", "mb", "g", "gb", "t", "tb":
		letter := strings.ToUpper(unit[:1])
		return 0, fmt.Errorf("size %s is ambiguous: write %s%siB", words.Quote(s), digits, letter)
	default:
		return 0, fmt.Errorf("size %s has an unknown unit: write MiB, GiB or TiB, or a bare number for MiB", words.Quote(s))
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > MostMiB/int64(factor) {
		return 0, fmt.Errorf("size %s is too large: the maximum is %d MiB", words.Quote(s), MostMiB)
	}
	if n*int64(factor) < LeastMiB {
		return 0, fmt.Errorf("size %s is too small: Nomad's minimum is %d MiB", words.Quote(s), LeastMiB)
	}
	return int(n) * factor, nil
}

// ParseMHz reads a CPU share: a bare number of MHz, or one with the unit.
func ParseMHz(s string) (int, error) {
	digits, unit := splitNumber(s)
	if digits == "" || (unit != "" && !strings.EqualFold(unit, "mhz")) {
		return 0, fmt.Errorf("%s is not a CPU size: write MHz as a whole number, such as 2000; whole cores go to cores", words.Quote(s))
	}
	return ParseWhole(digits)
}

// ParseWhole reads a whole number of decimal digits.
func ParseWhole(s string) (int, error) {
	digits, rest := splitNumber(strings.TrimPrefix(s, "-"))
	if digits == "" || rest != "" {
		return 0, fmt.Errorf("%s is not a whole number", words.Quote(s))
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s is too large", words.Quote(s))
	}
	return int(n), nil
}

// splitNumber splits leading decimal digits from what follows them.
func splitNumber(s string) (digits, rest string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return s[:i], s[i:]
}

// FormatMiB writes the shortest form that ParseSize reads back.
func FormatMiB(mib int) string {
	switch {
	case mib >= 1<<20 && mib%(1<<20) == 0:
		return strconv.Itoa(mib>>20) + "TiB"
	case mib >= 1<<10 && mib%(1<<10) == 0:
		return strconv.Itoa(mib>>10) + "GiB"
	default:
		return strconv.Itoa(mib) + "MiB"
	}
}
