#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# deps.sh: installs the Debian packages that the bench needs on the host, if
# something of theirs is missing.
set -euo pipefail

missing=()
need() { # need PACKAGE FILE: FILE is a command or a path
	if [[ $2 == /* ]]; then
		[[ -e $2 ]] || missing+=("$1")
	elif ! command -v "$2" >/dev/null; then
		missing+=("$1")
	fi
}

PATH=$PATH:/usr/sbin:/sbin
need qemu-system-x86 qemu-system-x86_64
need debootstrap debootstrap
need gcc-12 gcc-12
need make make
need libc6-dev /usr/include/stdio.h
need libelf1 /usr/lib/x86_64-linux-gnu/libelf.so.1
need kmod depmod
need xz-utils xz
need e2fsprogs mkfs.ext4
need iproute2 ip
need iptables iptables-legacy
need util-linux unshare

if ((${#missing[@]} == 0)); then
	exit 0
fi
if ((EUID != 0)); then
	echo "these Debian packages are missing: ${missing[*]}" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
network=(-o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 -o Acquire::Retries=2)
timeout 180 apt-get "${network[@]}" -qq update </dev/null
timeout 900 apt-get "${network[@]}" -qq install -y --no-install-recommends "${missing[@]}" </dev/null >&2
