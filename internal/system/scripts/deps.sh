#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# deps.sh: installs the Debian packages that the install tests need on the host,
# if something of theirs is missing.
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
need qemu-utils qemu-img
need mmdebstrap mmdebstrap
need debian-archive-keyring /usr/share/keyrings/debian-archive-keyring.gpg
need e2fsprogs mkfs.ext4
need kmod modprobe
need xz-utils xz
need zstd zstd

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
