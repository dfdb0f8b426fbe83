// SPDX-License-Identifier: GPL-2.0-only

// Package hosts reads the operator's list of hosts, hosts.toml, and says whom
// a name, a pattern or a group on the command line means.
//
//	[defaults]
//	port = 9                          # for every host
//	key = "master.key"                # beside hosts.toml; ~/ is the home directory
//
//	[groups.db]
//	port = 99                         # for the hosts of the group
//	hosts = ["db3", "db4"]            # members that need no table of their own
//
//	[hosts.db1]
//	address = "192.0.2.7"             # or addresses = ["192.0.2.7", "2001:db8::7"]
//	groups = ["db"]
//
//	[hosts.web1]
//	name = "web1.example.org"         # the name it was enrolled under, if another
//
// What a host does not set, its groups do, and else the defaults. Two groups
// of a host that disagree are an error, and so is an unknown setting: a typing
// mistake must not send a packet elsewhere.
package hosts
