#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# deps.sh: installs the Debian packages that the bench needs on the host, if
# something of theirs is missing.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=need.sh
. "$here/need.sh"

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

install_missing
