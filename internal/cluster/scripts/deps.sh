#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# deps.sh: installs the Debian packages that the cluster test needs on the host,
# if something of theirs is missing, and starts nothing of them.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../vm/scripts/need.sh
. "$here/../../vm/scripts/need.sh"

need iproute2 ip
need util-linux unshare nsenter
need corosync corosync
need pacemaker pacemakerd
need pacemaker-cli-utils crm_mon cibadmin
need resource-agents /usr/lib/ocf/lib/heartbeat/ocf-shellfuncs
need pacemaker-resource-agents /usr/lib/ocf/resource.d/pacemaker/Dummy
need libxml2-utils xmllint
need fence-agents /usr/share/cluster/relaxng/metadata.rng

# This host is to be no node of a cluster.
policy=/usr/sbin/policy-rc.d
if ((${#missing[@]} > 0 && EUID == 0)) && [[ ! -e $policy ]]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	trap 'rm -f "$policy"' EXIT
	chmod 755 "$policy"
fi
install_missing
