package rules

import (
	"strings"
	"testing"
)

func TestAPriceIsThatOfTheClassElseOfThePoolElseOfAll(t *testing.T) {
	p := parse(t, `version: 1
prices:
  currency: Thaler
  cpu_hour: 0.5
  gib_hour: 12.000001
  node_classes: { large: { cpu_hour: 1 }, free: { cpu_hour: 0 } }
  node_pools: { gpu: { cpu_hour: '2', device_hour: 1000000 } }
rules: [{ name: r, jobspec: docker-linux }]
`).Prices()
	if p.Currency != "Thaler" {
		t.Errorf("currency %q", p.Currency)
	}
	for _, tt := range []struct {
		class, pool string
		want        Price
	}{
		{"", "", Price{CPU: 500_000, Memory: 12_000_001}},
		{"small", "default", Price{CPU: 500_000, Memory: 12_000_001}},
		{"large", "default", Price{CPU: 1_000_000, Memory: 12_000_001}},
		{"small", "gpu", Price{CPU: 2_000_000, Memory: 12_000_001, Device: 1e12}},
		{"free", "gpu", Price{Memory: 12_000_001, Device: 1e12}},
	} {
		if got := p.At(tt.class, tt.pool); got != tt.want {
			t.Errorf("At(%q, %q) = %+v, want %+v", tt.class, tt.pool, got, tt.want)
		}
	}
	if got := parse(t, "version: 1\nrules: [{ name: r, jobspec: docker-linux }]").Prices(); got.Currency != "" || got.At("a", "b") != (Price{}) {
		t.Errorf("without prices: %+v", got)
	}
}

func TestPricesStandInOneFile(t *testing.T) {
	prices := "version: 1\nprices: { currency: EUR }\nrules: [{ name: %, jobspec: docker-linux }]\n"
	_, err := Load(t.Context(), File{"a.yaml", []byte(strings.ReplaceAll(prices, "%", "a"))}, File{"b.yaml", []byte(strings.ReplaceAll(prices, "%", "b"))})
	if want := "b.yaml:2:9: prices is already defined at a.yaml:2:9: define it in one file only"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
