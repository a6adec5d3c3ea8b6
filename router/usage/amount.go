package usage

import (
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"switchyard/router"
	"switchyard/rules"
)

// An Amount is a number of hours, minutes or money, in millionths. In JSON it is a number with
// at most six digits after the point.
type Amount int64

// String writes the amount with at most six digits after the point.
func (a Amount) String() string {
	text := strconv.FormatInt(int64(a/1e6), 10)
	if part := a % 1e6; part != 0 {
		text += "." + strings.TrimRight(fmt.Sprintf("%06d", part), "0")
	}
	return text
}

// Cents writes the amount with two digits after the point, rounded half up.
func (a Amount) Cents() string {
	c := (a + 5000) / 10_000
	return fmt.Sprintf("%d.%02d", c/100, c%100)
}

// MarshalJSON implements json.Marshaler.
func (a Amount) MarshalJSON() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (a *Amount) UnmarshalJSON(b []byte) error {
	r, ok := new(big.Rat).SetString(string(b))
	if !ok || r.Sign() < 0 {
		return fmt.Errorf("%s is no amount", b)
	}
	*a = rounded(new(big.Int).Mul(r.Num(), big.NewInt(1e6)), r.Denom())
	return nil
}

// rounded returns n / d, rounded half up.
func rounded(n, d *big.Int) Amount {
	twice := new(big.Int).Lsh(n, 1)
	q := twice.Add(twice, d).Quo(twice, new(big.Int).Lsh(d, 1))
	if !q.IsInt64() {
		return math.MaxInt64
	}
	return Amount(q.Int64())
}

// A sum is one of products, and exact.
type sum struct{ high, low uint64 }

func (s *sum) add(x, y uint64) {
	high, low := bits.Mul64(x, y)
	var carry uint64
	s.low, carry = bits.Add64(s.low, low, 0)
	s.high, _ = bits.Add64(s.high, high, carry)
}

func (s sum) int() *big.Int {
	n := new(big.Int).SetUint64(s.high)
	return n.Lsh(n, 64).Add(n, new(big.Int).SetUint64(s.low))
}

// reserved is what runners reserved, and its price.
type reserved struct {
	cpu, memory, devices             sum // × milliseconds: thousandths, MiB, devices
	cpuCost, memoryCost, devicesCost sum // the same × the price of an hour
}

func (r *reserved) add(a *router.Asked, held time.Duration, p rules.Price) {
	ms := uint64(held.Milliseconds())
	r.cpu.add(uint64(a.MilliCPU), ms)
	r.memory.add(uint64(a.MemoryMB), ms)
	r.devices.add(uint64(a.Devices), ms)
	r.cpuCost.add(uint64(a.MilliCPU)*ms, p.CPU)
	r.memoryCost.add(uint64(a.MemoryMB)*ms, p.Memory)
	r.devicesCost.add(uint64(a.Devices)*ms, p.Device)
}

const msPerHour = 3_600_000

// report rounds what was reserved, each sum once.
func (r *reserved) report() Reserved {
	hours := func(s sum, unit int64) Amount {
		return rounded(s.int().Mul(s.int(), big.NewInt(1e6)), big.NewInt(unit*msPerHour))
	}
	return Reserved{CPUHours: hours(r.cpu, 1000), GiBHours: hours(r.memory, 1024), DeviceHours: hours(r.devices, 1), Cost: costOf(r)}
}

// costOf rounds the cost of all that was reserved once.
func costOf(all ...*reserved) Amount {
	n := new(big.Int)
	for _, r := range all {
		for _, part := range []struct {
			cost sum
			by   int64 // to make it one of 1000 × 1024 × milliseconds
		}{{r.cpuCost, 1024}, {r.memoryCost, 1000}, {r.devicesCost, 1000 * 1024}} {
			n.Add(n, new(big.Int).Mul(part.cost.int(), big.NewInt(part.by)))
		}
	}
	return rounded(n, big.NewInt(1000*1024*msPerHour))
}

func minutes(ms uint64) Amount {
	return rounded(new(big.Int).Mul(new(big.Int).SetUint64(ms), big.NewInt(1e6)), big.NewInt(60_000))
}

// spent is what jobs and unused runners spent.
type spent struct {
	jobs, notRun, unsized, runners int
	queued, ran                    uint64 // milliseconds
	reserved, wasted               reserved
}

func (s *spent) add(u *router.Used, p rules.Price) {
	if u.Reserved && u.Asked.Unsized {
		s.unsized++
	}
	if u.Unused {
		s.runners++
		s.wasted.add(u.Asked, u.Held, p)
		return
	}
	s.jobs++
	if !u.Started {
		s.notRun++
	}
	s.queued += uint64(u.Queued.Milliseconds())
	s.ran += uint64(u.Held.Milliseconds())
	if u.Reserved {
		s.reserved.add(u.Asked, u.Held, p)
	}
}

// A queue counts how long jobs waited, in bands whose ends are at most 1/32 apart.
type queue struct {
	jobs  int
	bands []uint32
}

func (q *queue) add(waited time.Duration) {
	ms, band := uint64(waited.Milliseconds()), 0
	if shift := bits.Len64(ms) - 6; shift > 0 {
		band = 32*shift + int(ms>>shift)
	} else {
		band = int(ms)
	}
	if more := band + 1 - len(q.bands); more > 0 {
		q.bands = append(q.bands, make([]uint32, more)...)
	}
	q.jobs++
	q.bands[band]++
}

// quantile returns how long so many percent of the jobs waited at most, up to 1/32 more than
// exactly; 0 without jobs.
func (q *queue) quantile(percent int) time.Duration {
	rank := (q.jobs-1)*percent/100 + 1 // as on the page Now
	for band, jobs := range q.bands {
		if rank -= int(jobs); rank <= 0 {
			ms := uint64(band)
			if band >= 64 {
				shift := band/32 - 1
				ms = uint64(band-32*shift+1)<<shift - 1
			}
			return time.Duration(ms) * time.Millisecond
		}
	}
	return 0
}
