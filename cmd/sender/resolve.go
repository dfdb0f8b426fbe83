// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"netsysrq/auth"
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
