package nomadsim

import (
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/nomad/api"
)

// LargeFleet returns n nodes as large organizations have them: ten kinds of machines in
// three datacenters and four pools, with as much to say about each as real nodes have, some
// 3 kB in a listing with resources and 7 kB alone. Of each hundred one is down, one
// ineligible and one draining. Every call returns the same.
func LargeFleet(n int) []*api.Node {
	kinds := []Machine{ // of each twenty
		{Name: "linux", Kernel: "linux", Arch: "amd64", Cores: 16, MemoryMB: 64 << 10, Pool: "ci"},
		{Name: "linux", Kernel: "linux", Arch: "amd64", Cores: 16, MemoryMB: 64 << 10, Pool: "ci"},
		{Name: "linux", Kernel: "linux", Arch: "amd64", Cores: 16, MemoryMB: 64 << 10, Pool: "ci"},
		{Name: "linux", Kernel: "linux", Arch: "amd64", Cores: 32, MemoryMB: 128 << 10, Class: "large", Pool: "ci"},
		{Name: "linux", Kernel: "linux", Arch: "amd64", Cores: 32, MemoryMB: 128 << 10, Class: "large", Pool: "ci"},
		{Name: "spot", Kernel: "linux", Arch: "amd64", Cores: 16, MemoryMB: 64 << 10, Class: "spot", Pool: "ci"},
		{Name: "spot", Kernel: "linux", Arch: "amd64", Cores: 16, MemoryMB: 64 << 10, Class: "spot", Pool: "ci"},
		{Name: "spot", Kernel: "linux", Arch: "arm64", Cores: 16, MemoryMB: 32 << 10, Class: "spot", Pool: "ci"},
		{Name: "arm", Kernel: "linux", Arch: "arm64", Cores: 32, MemoryMB: 64 << 10, Pool: "ci"},
		{Name: "arm", Kernel: "linux", Arch: "arm64", Cores: 32, MemoryMB: 64 << 10, Pool: "ci"},
		{Name: "arm", Kernel: "linux", Arch: "arm64", Cores: 64, MemoryMB: 128 << 10, Class: "large", Pool: "ci"},
		{Name: "gpu", Kernel: "linux", Arch: "amd64", Cores: 48, MemoryMB: 192 << 10, Class: "gpu", Pool: "gpu", GPUs: 4},
		{Name: "apps", Kernel: "linux", Arch: "amd64", Cores: 16, MemoryMB: 64 << 10},
		{Name: "apps", Kernel: "linux", Arch: "amd64", Cores: 16, MemoryMB: 64 << 10},
		{Name: "apps", Kernel: "linux", Arch: "amd64", Cores: 32, MemoryMB: 128 << 10},
		{Name: "apps", Kernel: "linux", Arch: "amd64", Cores: 32, MemoryMB: 128 << 10},
		{Name: "mac", Kernel: "darwin", Arch: "arm64", Cores: 10, MemoryMB: 32 << 10, Class: "mini", Pool: "macs"},
		{Name: "mac", Kernel: "darwin", Arch: "arm64", Cores: 12, MemoryMB: 64 << 10, Class: "studio", Pool: "macs"},
		{Name: "windows", Kernel: "windows", Arch: "amd64", Cores: 16, MemoryMB: 64 << 10, Pool: "ci"},
		{Name: "windows", Kernel: "windows", Arch: "amd64", Cores: 16, MemoryMB: 64 << 10, Pool: "ci"},
	}
	nodes := make([]*api.Node, n)
	for i := range nodes {
		m := kinds[i%len(kinds)]
		m.Name = fmt.Sprintf("%s-%05d", m.Name, i)
		m.Datacenter = []string{"tokyo", "osaka", "frankfurt"}[i/len(kinds)%3]
		m.Meta = map[string]string{"zone": fmt.Sprintf("%s-%d", m.Datacenter, i/60%3), "rack": fmt.Sprintf("r%02d", i/60%20), "team": "build", "image": "2026-11"}
		nodes[i] = detailed(NewNode(m), i)
		switch i % 100 {
		case 17:
			nodes[i].Status = "down"
		case 43:
			nodes[i].SchedulingEligibility = "ineligible"
		case 69:
			nodes[i].Drain, nodes[i].SchedulingEligibility = true, "ineligible"
		}
	}
	return nodes
}

// detailed adds what real nodes also say of themselves, and few constraints are about.
func detailed(n *api.Node, i int) *api.Node {
	address := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()
	n.HTTPAddr = address + ":4646"
	own := func(what string) string { return uuid.NewSHA1(uuid.Nil, []byte(what+n.Name)).String() }
	for name, value := range map[string]string{
		"unique.hostname": n.Name + "." + n.Datacenter + ".example.com", "unique.network.ip-address": address, "unique.consul.name": n.Name,
		"unique.storage.volume": "/dev/nvme0n1p1", "unique.storage.bytestotal": "536870912000", "unique.storage.bytesfree": strconv.Itoa(412_000_000_000 + i*4096),
		"unique.platform.aws.instance-id": "i-" + own("instance")[:17], "unique.platform.aws.local-ipv4": address, "unique.platform.aws.hostname": "ip-" + address,
		"unique.platform.aws.local-hostname": "ip-" + address + ".internal", "unique.platform.aws.mac": "0a:" + own("mac")[:8], "unique.platform.aws.ami-id": "ami-0" + own("image")[:16],
		"unique.cgroup.mountpoint": "/sys/fs/cgroup", "unique.advertise.address": n.HTTPAddr,
		"consul.version": "1.22.1", "consul.sku": "oss", "consul.revision": "c0a2b3d4", "consul.datacenter": n.Datacenter, "consul.server": "false", "consul.ft.namespaces": "false",
		"consul.connect": "true", "consul.grpc": "8502", "consul.partition": "default", "consul.dns.port": "8600", "consul.dns.addr": "127.0.0.1",
		"cpu.frequency": strconv.Itoa(mhz), "cpu.modelname": "AMD EPYC 9R14", "cpu.reservablecores": n.Attributes["cpu.numcores"], "cpu.usablecompute": n.Attributes["cpu.totalcompute"],
		"cpu.frequency.performance": strconv.Itoa(mhz), "cpu.numcores.performance": n.Attributes["cpu.numcores"], "cpu.arch.level": "v4", "numa.node.count": "1",
		"numa.node0.cores": "0-" + n.Attributes["cpu.numcores"], "kernel.version": "6.12.57-cloud", "kernel.landlock": "v6", "os.version": "13.2", "os.cgroups.version": "2",
		"os.build": "20261101.1", "memory.totalbytes": strconv.FormatInt(n.NodeResources.Memory.MemoryMB<<20, 10), "nomad.revision": "0d0b6c5a1f6b1c2d3e4f5a6b7c8d9e0f1a2b3c4d",
		"nomad.service_discovery": "true", "nomad.bridge.hairpin_mode": "false", "nomad.advertise.address": "", "vault.accessible": "true", "vault.version": "1.21.0", "vault.cluster_name": "vault-" + n.Datacenter,
		"platform.aws.placement.availability-zone": n.Meta["zone"], "platform.aws.instance-type": "m8." + n.Attributes["cpu.numcores"], "platform.aws.instance-life-cycle": "on-demand",
		"plugins.cni.version.bridge": "v1.8.0", "plugins.cni.version.dhcp": "v1.8.0", "plugins.cni.version.firewall": "v1.8.0", "plugins.cni.version.host-local": "v1.8.0",
		"plugins.cni.version.ipvlan": "v1.8.0", "plugins.cni.version.loopback": "v1.8.0", "plugins.cni.version.macvlan": "v1.8.0", "plugins.cni.version.portmap": "v1.8.0",
		"plugins.cni.version.ptp": "v1.8.0", "plugins.cni.version.sbr": "v1.8.0", "plugins.cni.version.static": "v1.8.0", "plugins.cni.version.tuning": "v1.8.0", "plugins.cni.version.vlan": "v1.8.0",
	} {
		if value != "" {
			n.Attributes[name] = value
		}
	}
	n.Links = map[string]string{"consul": n.Datacenter + "." + n.Name, "aws.ec2": n.Meta["zone"] + "." + own("instance")}
	for _, name := range []string{"exec", "java", "qemu"} { // not there, as Nomad also says
		n.Drivers[name] = &api.DriverInfo{HealthDescription: "Driver " + name + " is not detected"}
	}
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Second)
	for name, driver := range n.Drivers {
		driver.UpdateTime = at
		if driver.Detected {
			driver.Attributes = map[string]string{"driver." + name: "1", "driver." + name + ".version": "28.5.2"}
		}
		if name == "docker" {
			maps.Copy(driver.Attributes, map[string]string{
				"driver.docker.bridge_ip": "172.17.0.1", "driver.docker.os_type": "linux", "driver.docker.privileged.enabled": "true",
				"driver.docker.runtimes": "io.containerd.runc.v2,runc", "driver.docker.volumes.enabled": "true",
			})
		}
	}
	r := n.NodeResources
	r.MinDynamicPort, r.MaxDynamicPort = 20_000, 32_000
	for _, device := range []string{"lo", "ens5", "docker0", "nomad", "lo-6", "ens5-6", "docker0-6", "nomad-6", "ens6"} { // and node networks, which package api does not know
		r.Networks = append(r.Networks, &api.NetworkResource{Mode: "host", Device: device, CIDR: address + "/32", IP: address, MBits: new(1000)})
	}
	for j := range 5 {
		n.Events = append(n.Events, &api.NodeEvent{Message: "Node heartbeat missed", Subsystem: "Cluster", Timestamp: at.Add(time.Duration(j) * time.Hour), CreateIndex: uint64(j)})
	}
	return n
}
