// SPDX-License-Identifier: GPL-2.0-only

// Package lookup finds the addresses that a host's packets go to.
package lookup

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Family is which addresses count.
type Family uint8

// Families of addresses.
const (
	Any Family = iota
	IPv4
	IPv6
)

// lookups bounds how many names are asked for at once: each takes a socket.
var lookups = make(chan struct{}, 32)

// Addresses returns each address of the family that is given, and of each name
// the first one of each family. The error of a name that cannot be found is a
// *net.DNSError.
func Addresses(ctx context.Context, names []string, port uint16, family Family, timeout time.Duration) ([]netip.AddrPort, error) {
	var addrs []netip.AddrPort
	for _, name := range names {
		found, err := find(ctx, name, timeout)
		if err != nil {
			return nil, err
		}
		for _, ip := range first(found, family) {
			if a := netip.AddrPortFrom(ip, port); !slices.Contains(addrs, a) {
				addrs = append(addrs, a)
			}
		}
	}
	if len(addrs) == 0 {
		version := "IPv4"
		if family == IPv6 {
			version = "IPv6"
		}
		return nil, fmt.Errorf("%s has no %s address", names[0], version)
	}
	return addrs, nil
}

// find returns an address as it is, or else those that a name has.
func find(ctx context.Context, name string, timeout time.Duration) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{ip}, nil
	}
	select {
	case lookups <- struct{}{}:
		defer func() { <-lookups }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	return found, nil
}

// first returns the first address of each family that counts.
func first(found []netip.Addr, family Family) (addrs []netip.Addr) {
	var have4, have6 bool
	for _, ip := range found {
		ip = ip.Unmap()
		have := &have6
		if ip.Is4() {
			have = &have4
		}
		if *have || ip.Is4() && family == IPv6 || ip.Is6() && family == IPv4 {
			continue
		}
		*have = true
		addrs = append(addrs, ip)
	}
	return addrs
}
