#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# kernel.sh VERSION CACHE: gets a Debian kernel and what builds modules for it.
#
#	CACHE/VERSION/PACKAGE-VERSION/
#		kernel.json    what Go reads
#		root/          the packages, unpacked; for kernels whose compiler the host
#		               does not have, a whole small Debian to build in
#
# The last line on standard output is that folder. It appears under its name
# only when it is complete.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=apt.sh
. "$(dirname "$0")/apt.sh"

version=$1
cache=$2
case $version in
5.10) from=(bullseye bullseye-security) system= ;;
6.1) from=(bookworm bookworm-security) system= ;;
6.12) from=(trixie trixie-security) system=trixie ;;
7.2) from=(sid) system=sid ;;
*)
	echo "no kernel $version is known here" >&2
	exit 2
	;;
esac

suites "$cache/apt/$version" "${from[@]}"
kernel=(linux-image-cloud-amd64 linux-headers-cloud-amd64)
target=$cache/$version/$(candidate "${kernel[0]}")
if [[ -e $target/kernel.json ]]; then
	echo "$target"
	exit
fi
case $(basename "$target") in
"$version".*) ;;
*)
	echo "the mirror's kernel is $(basename "$target"), not a $version" >&2
	exit 1
	;;
esac
rm -rf "$target" "$target".new.*
new=$target.new.$$
root=$new/root
mkdir -p "$root"
trap 'rm -rf "$new"' EXIT

all=$(needs "${kernel[@]}")
# With a digit: the others are empty.
mapfile -t packages < <(grep -E '^linux-(base|image|headers|kbuild|binary|modules)-[0-9]' <<<"$all" | grep -v -- '-unsigned$' | sort -u)
compiler=$(grep -oE 'gcc-[0-9]+' <<<"$all" | sort -V | tail -n 1)
libelf=$(grep -E '^libelf1' <<<"$all" | head -n 1)

if [[ -n $system ]]; then
	echo "making a small $system in $root" >&2
	if ! timeout 1500 debootstrap --variant=minbase --include="$compiler,$libelf,make" \
		"$system" "$root" "$(mirror)" >"$cache/$version/debootstrap.log" 2>&1 </dev/null; then
		tail -n 20 "$cache/$version/debootstrap.log" >&2
		exit 1
	fi
	rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,locale,man}
else
	compiler=gcc-12
fi
unpack "$root" "${packages[@]}"

# depmod looks in /lib only, where older packages have their modules.
[[ -e $root/lib ]] || ln -s usr/lib "$root/lib"
release=$(basename "$root"/lib/modules/*)
headers=/usr/src/linux-headers-$release
modules=/lib/modules/$release
# In /boot, or from 7.2 on beside the modules.
vmlinuz=/boot/vmlinuz-$release
[[ -e $root$vmlinuz ]] || vmlinuz=$modules/vmlinuz
depmod -b "$root" "$release"

# With a vmlinux, make wants to write BTF, which needs one more tool.
rm -f "$root$headers/vmlinux"
if [[ -z $system ]]; then
	# What is unpacked lies elsewhere than where it would be installed, and is
	# to be built with a compiler of the host.
	sed -i "s|/usr/src/|$target/root/usr/src/|g" "$root$headers/Makefile"
	sed -i -E "s/(gcc|x86_64-linux-gnu-gcc)-[0-9]+/$compiler/g" "$root$headers/.kernelvariables"
fi
printf '{"release": "%s", "vmlinuz": "root%s", "modules": "root%s", "headers": "%s", "chroot": %s}\n' \
	"$release" "$vmlinuz" "$modules" "$headers" "$([[ -n $system ]] && echo true || echo false)" >"$new/kernel.json"
mv "$new" "$target"
echo "$target"
