#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# debs.sh STATUS TARGET: downloads what has to be installed for a node of a cluster
# where the file STATUS (/var/lib/dpkg/status) says what is installed already.
# TARGET appears under its name only when it is complete.
set -euo pipefail

status=$1
target=$2
new=$target.new.$$
rm -rf "$target".new.*
mkdir -p "$new/partial"
trap 'rm -rf "$new"' EXIT

options=(
	-o Dir::State::status="$status" -o Dir::State::extended_states=/dev/null -o Dir::Cache::archives="$new"
	-o Debug::NoLocking=1 -o APT::Sandbox::User=root -o APT::Install-Recommends=false
	-o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 -o Acquire::Retries=2
)
packages=(corosync pacemaker pacemaker-cli-utils pacemaker-resource-agents resource-agents)
timeout 600 apt-get "${options[@]}" -q -y --download-only install "${packages[@]}" >"$new/log" 2>&1 || {
	tail -n 20 "$new/log" >&2
	exit 1
}
rm -r "$new/partial" "$new/log"
rm -rf "$target"
mv "$new" "$target"
echo "$target"
