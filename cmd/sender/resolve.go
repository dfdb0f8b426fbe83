// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// resolve says where packets go: the first address of each family.
func resolve(ctx context.Context, o *options) ([]netip.AddrPort, error) {
	name := o.host
	if o.address != "" {
		name = o.address
	}
	var found []netip.Addr
	if ip, err := netip.ParseAddr(name); err == nil {
		found = []netip.Addr{ip}
	} else {
		ctx, cancel := context.WithTimeout(ctx, o.timeout)
		defer cancel()
		if found, err = net.DefaultResolver.LookupNetIP(ctx, "ip", name); err != nil {
			return nil, &failure{exitError, fmt.Errorf("find %s: %w", name, err), "--address ADDR says where to send without asking for the name"}
		}
	}
	var addrs []netip.AddrPort
	var have4, have6 bool
	for _, ip := range found {
		ip = ip.Unmap()
		have := &have6
		if ip.Is4() {
			have = &have4
		}
		if *have || ip.Is4() && o.ipv6 || ip.Is6() && o.ipv4 {
			continue
		}
		*have = true
		addrs = append(addrs, netip.AddrPortFrom(ip, o.port))
	}
	if len(addrs) == 0 {
		family := "IPv4"
		if o.ipv6 {
			family = "IPv6"
		}
		return nil, &failure{exitError, fmt.Errorf("%s has no %s address", name, family), ""}
	}
	return addrs, nil
}
