// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"netsysrq/auth"
	"netsysrq/internal/fleet"
	"netsysrq/internal/fleet/hosts"
	"netsysrq/internal/fleet/lookup"
)

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
	family := lookup.Any
	switch {
	case o.ipv4:
		family = lookup.IPv4
	case o.ipv6:
		family = lookup.IPv6
	}
	addrs, err := lookup.Addresses(ctx, names, port, family, o.timeout)
	if _, unknown := errors.AsType[*net.DNSError](err); unknown {
		return nil, &failure{exitError, err, "--address ADDR says where to send without asking for the name, and so does the list of hosts"}
	}
	return addrs, err
}

// find looks up the hosts that the list does not have, before any of several is
// stopped: a name that is not found is rather a mistake in the command line
// than a host. What a listed one has no address for is its own problem.
func (s *session) find(ctx context.Context) error {
	if !s.many || s.o.rehearse || !auth.Destructive(s.o.steps) {
		return nil
	}
	errs := make([]error, len(s.hosts))
	fleet.Each(ctx, len(s.hosts), len(s.hosts), 0, func(i int) bool {
		h := s.hosts[i]
		if h.Listed {
			return true
		}
		var addrs []netip.AddrPort
		if addrs, errs[i] = resolve(ctx, s.o, h); errs[i] == nil {
			for _, a := range addrs {
				h.Addresses = append(h.Addresses, a.Addr().String())
			}
		}
		return true
	})
	for _, err := range errs {
		if err != nil {
			return &failure{exitError, fmt.Errorf("nothing was sent to any host: %w", err),
				"leave the name out, or give the host an address in the list of hosts: netsysrq help hosts"}
		}
	}
	return nil
}
