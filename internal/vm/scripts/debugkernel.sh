#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# debugkernel.sh CACHE: builds Debian's 6.1 with the kernel's own checks:
# tinyconfig and debugkernel.config, which stands beside this file.
#
#	CACHE/debug/PACKAGE-VERSION/
#		kernel.json          what Go reads, as of kernel.sh
#		root/usr/src/linux   what is needed of the tree to build modules
#
# The last line on standard output is that folder. It appears under its name
# only when it is complete. The compiler takes 15 minutes of CPU time; a build that
# was interrupted goes on where it stood.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=apt.sh
. "$here/apt.sh"
# shellcheck source-path=SCRIPTDIR source=need.sh
. "$here/need.sh"

cache=$1
fragment=$here/debugkernel.config
mkdir -p "$cache/debug"

need gcc-12 gcc-12
need make make
need libc6-dev /usr/include/stdio.h
need libelf-dev /usr/include/gelf.h
need flex flex
need bison bison
need bc bc
need perl perl
need kmod depmod
need xz-utils xz
install_missing

# Of a caller that was killed, the compiler may still run: wait for it.
exec {lock}>"$cache/debug/lock"
flock "$lock"

suites "$cache/apt/debug" bookworm bookworm-security
version=$(candidate linux-source-6.1)
target=$cache/debug/$version
if [[ -e $target/kernel.json ]]; then
	echo "$target"
	exit
fi
work=$target.work
root=$work/root
src=$root/usr/src/linux
if [[ ! -e $src/Makefile ]]; then
	rm -rf "$work" "$target"
	mkdir -p "$root/usr/src" "$root/boot"
	unpack "$work/package" linux-source-6.1
	mkdir "$src.new"
	tar -xf "$work"/package/usr/src/linux-source-6.1.tar.xz -C "$src.new" --strip-components=1
	mv "$src.new" "$src"
	rm -rf "$work/package"
fi

log=$work/make.log
build() { # build TARGET...: in the tree, with the compiler that BuildModule uses
	if ! nice -n 19 make -C "$src" -j"$(nproc)" CC=gcc-12 HOSTCC=gcc-12 "$@" >>"$log" 2>&1 </dev/null; then
		tail -n 30 "$log" >&2
		exit 1
	fi
}
: >"$log"
if ! cmp -s "$fragment" "$work/fragment"; then
	build tinyconfig
	(cd "$src" && scripts/kconfig/merge_config.sh -m .config "$fragment") >>"$log" 2>&1
	build olddefconfig
	cp "$fragment" "$work/fragment"
fi
if lost=$(grep -E '^(# )?CONFIG_' "$fragment" | grep -vxFf "$src/.config"); then
	printf 'the kernel would not have:\n%s\n' "$lost" >&2
	rm -f "$work/fragment"
	exit 1
fi
echo "building Linux $version with checks, log in $log" >&2
build bzImage modules
release=$(cat "$src/include/config/kernel.release")
cp "$src/arch/x86/boot/bzImage" "$root/boot/vmlinuz-$release"
build modules_install INSTALL_MOD_PATH="$root"
rm -f "$root/lib/modules/$release/build" "$root/lib/modules/$release/source"
depmod -b "$root" "$release"

# Modules need no more of the tree than what Debian packages as headers.
keep() { # keep FOLDER NAME...: remove the other folders in it
	local folder=$1 name but=()
	shift
	for name; do
		but+=(! -name "$name")
	done
	find "$folder" -mindepth 1 -maxdepth 1 \( -type d -o -name 'vmlinux*' -o -name '.tmp_vmlinux*' \) "${but[@]}" -exec rm -rf {} +
}
keep "$src" arch include scripts tools
keep "$src/arch" x86
keep "$src/tools" build include lib objtool scripts
printf '{"release": "%s", "vmlinuz": "root/boot/vmlinuz-%s", "modules": "root/lib/modules/%s", "headers": "/usr/src/linux", "chroot": false}\n' \
	"$release" "$release" "$release" >"$work/kernel.json"
mv "$work" "$target"
echo "$target"
