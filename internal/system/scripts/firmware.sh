#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# firmware.sh SUITE TARGET: what a server with Secure Boot boots, as Debian signs it.
#
#	TARGET/code.fd, vars.fd   UEFI for QEMU, and its variables: Microsoft's keys
#	                          are enrolled and Secure Boot is on
#	TARGET/shim.efi, mm.efi   shim and its MOK manager
#	TARGET/grub.efi           GRUB
#
# TARGET appears under its name only when it is complete.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../../vm/scripts/apt.sh
. "$(dirname "$0")/../../vm/scripts/apt.sh"

suite=$1
target=$2
new=$target.new.$$
rm -rf "$target".new.*
mkdir -p "$new"
trap 'rm -rf "$new"' EXIT

suites "$new/apt" "$suite" "$suite-updates" "$suite-security"
unpack "$new/root" ovmf shim-signed shim-helpers-amd64-signed grub-efi-amd64-signed
cp "$new/root/usr/share/OVMF/OVMF_CODE_4M.secboot.fd" "$new/code.fd"
cp "$new/root/usr/share/OVMF/OVMF_VARS_4M.ms.fd" "$new/vars.fd"
cp "$new/root/usr/lib/shim/shimx64.efi.signed" "$new/shim.efi"
cp "$new/root/usr/lib/shim/mmx64.efi.signed" "$new/mm.efi"
cp "$new/root/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" "$new/grub.efi"
rm -rf "$new/root" "$new/apt"
rm -rf "$target"
mv "$new" "$target"
echo "$target"
