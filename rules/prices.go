package rules

import (
	"regexp"
	"strconv"

	"github.com/goccy/go-yaml/ast"

	"switchyard/rules/internal/words"
)

// Prices says what runners cost.
type Prices struct {
	Currency string // "": there are no prices
	price
	classes, pools map[string]price
}

// A Price is what an hour of each resource costs, in millionths of the currency's unit.
type Price struct{ CPU, Memory, Device uint64 }

// A price is one section of prices; nil: it says nothing of the resource.
type price struct{ cpu, memory, device *uint64 }

// Prices returns the prices of the rules.
func (s *Set) Prices() Prices { return s.prices }

// At returns the prices on nodes of a class and a pool, each "" if it is not known. Each
// price is that of the class, else that of the pool, else the one for all nodes, else 0.
func (p Prices) At(class, pool string) Price {
	sections := []price{p.classes[class], p.pools[pool], p.price}
	first := func(of func(price) *uint64) uint64 {
		for _, s := range sections {
			if v := of(s); v != nil {
				return *v
			}
		}
		return 0
	}
	return Price{
		CPU:    first(func(s price) *uint64 { return s.cpu }),
		Memory: first(func(s price) *uint64 { return s.memory }),
		Device: first(func(s price) *uint64 { return s.device }),
	}
}

var (
	currencyWord = regexp.MustCompile(`^\p{L}{1,16}$`)
	moneyText    = regexp.MustCompile(`^([0-9]{1,7})(?:\.([0-9]{1,6}))?$`)
)

const maxPrice = 1_000_000 // of the currency's unit, for an hour

// prices reads what runners cost.
func (r *loader) prices(n ast.Node) {
	f := r.Fields(n, "prices", "currency", "cpu_hour", "gib_hour", "device_hour", "node_classes", "node_pools")
	if f == nil {
		return
	}
	p := &r.set.prices
	if v, ok := f["currency"]; !ok {
		r.Fault(n, "prices needs a currency, as in { currency: EUR, cpu_hour: 0.04 }")
	} else if text, ok := r.Text(v, "prices currency"); ok {
		if p.Currency = text; !currencyWord.MatchString(text) {
			r.Fault(v, "prices currency %s is not a word of at most 16 letters", words.Quote(text))
		}
	}
	p.price = r.price(f, "prices")
	p.classes = r.pricesOf(f["node_classes"], "prices node_classes")
	p.pools = r.pricesOf(f["node_pools"], "prices node_pools")
}

// pricesOf reads prices by name.
func (r *loader) pricesOf(n ast.Node, what string) map[string]price {
	if n == nil {
		return nil
	}
	all := map[string]price{}
	for _, p := range r.Pairs(n, what) {
		of := what + " " + words.Quote(p.Key)
		if f := r.Fields(p.Value, of, "cpu_hour", "gib_hour", "device_hour"); f != nil {
			all[p.Key] = r.price(f, of)
		}
	}
	return all
}

func (r *loader) price(f map[string]ast.Node, what string) (p price) {
	for key, at := range map[string]**uint64{"cpu_hour": &p.cpu, "gib_hour": &p.memory, "device_hour": &p.device} {
		if v, ok := f[key]; ok {
			*at = r.money(v, what+" "+key)
		}
	}
	return p
}

// money reads an amount, in millionths.
func (r *loader) money(n ast.Node, what string) *uint64 {
	text, ok := r.Text(n, what)
	if !ok {
		return nil
	}
	parts := moneyText.FindStringSubmatch(text)
	if parts == nil {
		r.Fault(n, "%s %s is not an amount such as 0.04, with at most 6 digits after the point", what, words.Quote(text))
		return nil
	}
	whole, _ := strconv.ParseUint(parts[1], 10, 64)
	part, _ := strconv.ParseUint((parts[2] + "000000")[:6], 10, 64)
	if whole > maxPrice {
		r.Fault(n, "%s %s exceeds the maximum of %d", what, text, maxPrice)
		return nil
	}
	amount := 1_000_000*whole + part
	return &amount
}
