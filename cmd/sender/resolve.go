// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"netsysrq/auth"
	"netsysrq/internal/fleet/hosts"
)

// lookups bounds how many names are asked for at once: each takes a socket.
var lookups = make(chan struct{}, 32)

// resolve says where a host's packets go: to each address that the list of
// hosts has, or else to the first one of each family that its name has.
func resolve(ctx context.Context, o *options, h *hosts.Host) ([]netip.AddrPort, error) {
	names := h.Addresses
	switch {
	case o.address != "":
		names = []string{o.address}
	case len(names) == 0:
		names = []string{h.Enrolled}
	}
	port := h.Port
	switch {
	case o.portSet:
		port = o.port
	case port == 0:
		port = auth.Port
	}
	var addrs []netip.AddrPort
	for _, name := range names {
		found, err := lookUp(ctx, o, name)
		if err != nil {
			return nil, err
		}
		for _, ip := range found {
			if a := netip.AddrPortFrom(ip, port); !slices.Contains(addrs, a) {
				addrs = append(addrs, a)
			}
		}
	}
	if len(addrs) == 0 {
		family := "IPv4"
		if o.ipv6 {
			family = "IPv6"
		}
		return nil, &failure{exitError, fmt.Errorf("%s has no %s address", names[0], family), ""}
	}
	return addrs, nil
}

// lookUp returns an address as it is, or else the first of each family that a
// name has.
func lookUp(ctx context.Context, o *options, name string) (addrs []netip.Addr, err error) {
	var found []netip.Addr
	if ip, err := netip.ParseAddr(name); err == nil {
		found = []netip.Addr{ip}
	} else {
		select {
		case lookups <- struct{}{}:
			defer func() { <-lookups }()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		ctx, cancel := context.WithTimeout(ctx, o.timeout)
		defer cancel()
		if found, err = net.DefaultResolver.LookupNetIP(ctx, "ip", name); err != nil {
			return nil, &failure{exitError, fmt.Errorf("find %s: %w", name, err), "--address ADDR says where to send without asking for the name, and so does the list of hosts"}
		}
	}
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
		addrs = append(addrs, ip)
	}
	return addrs, nil
}
