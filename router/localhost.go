package router

import (
	"net"
	"net/netip"
	"strings"
)

// LocalHost reports whether a Host header is localhost or an IP address, which no
// other site's name can be.
func LocalHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(host, "localhost")
}
