#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# deps.sh: installs the Debian packages that the install tests need on the host,
# if something of theirs is missing.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../vm/scripts/need.sh
. "$here/../../vm/scripts/need.sh"

need qemu-system-x86 qemu-system-x86_64
need qemu-utils qemu-img
need mmdebstrap mmdebstrap
need debian-archive-keyring /usr/share/keyrings/debian-archive-keyring.gpg
need e2fsprogs mkfs.ext4
need kmod modprobe
need xz-utils xz
need zstd zstd
need ansible-core ansible-playbook

install_missing
