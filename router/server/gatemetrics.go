package server

import "github.com/prometheus/client_golang/prometheus"

// gateMetrics show the connections of gates.
type gateMetrics []*gate

var (
	connectionsOpen   = prometheus.NewDesc("switchyard_connections", "Connections that a listener has open.", []string{"listener"}, nil)
	connectionsClosed = prometheus.NewDesc("switchyard_connections_closed_total", "Connections that were closed for others, as their clients kept them waiting.", []string{"listener"}, nil)
)

// Describe implements prometheus.Collector.
func (m gateMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- connectionsOpen
	ch <- connectionsClosed
}

// Collect implements prometheus.Collector.
func (m gateMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, g := range m {
		g.mu.Lock()
		open, evicted := len(g.open), g.evicted
		g.mu.Unlock()
		ch <- prometheus.MustNewConstMetric(connectionsOpen, prometheus.GaugeValue, float64(open), g.name)
		ch <- prometheus.MustNewConstMetric(connectionsClosed, prometheus.CounterValue, float64(evicted), g.name)
	}
}
