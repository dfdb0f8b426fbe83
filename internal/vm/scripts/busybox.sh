#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# busybox.sh CACHE: gets the static busybox of the host's own release. The last
# line on standard output is its path.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=apt.sh
. "$(dirname "$0")/apt.sh"

cache=$1
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
suites "$cache/apt/$codename" "$codename"
target=$cache/busybox/$(candidate busybox-static)
if [[ ! -e $target ]]; then
	new=$(mktemp -d)
	trap 'rm -rf "$new"' EXIT
	unpack "$new" busybox-static
	mkdir -p "$cache/busybox"
	find "$new" -path '*/bin/busybox' -exec cp {} "$cache/busybox.new" \;
	mv "$cache/busybox.new" "$target"
fi
echo "$target"
