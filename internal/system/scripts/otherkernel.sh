#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# otherkernel.sh ROOT: a hook of mmdebstrap, while apt still knows what there is.
# Downloads the newest kernel but the one that is installed, and what builds
# modules for it, to ROOT/other.
set -euo pipefail

root=$1
release=$(basename "$root"/usr/lib/modules/*)
series=$(cut -d. -f1-2 <<<"$release").
other=$(chroot "$root" apt-cache search --names-only '^linux-headers-[0-9].*-cloud-amd64$' |
	awk '{ sub(/^linux-headers-/, "", $1); print $1 }' |
	awk -v series="$series" -v installed="$release" 'index($1, series) == 1 && $1 != installed' |
	sort -V | tail -n 1)
if [[ -z $other ]]; then
	echo "there is no other kernel than $release" >&2
	exit 1
fi
chroot "$root" apt-get clean
chroot "$root" apt-get -qq install -y --download-only "linux-image-$other" "linux-headers-$other"
mkdir "$root/other"
mv "$root"/var/cache/apt/archives/*.deb "$root/other/"
echo "$other" >"$root/other/release"
