#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# image.sh SUITE TARGET: makes a small Debian that a machine can be booted from.
#
#	TARGET/root.raw   its file system, ext4, sparse
#	TARGET/vmlinuz    its kernel
#	TARGET/modules/   those of its modules that the devices of a machine need, by
#	                  the order to load them
#	TARGET/other/     the packages of another kernel, which is not installed
#	TARGET/image.json what Go reads
#
# TARGET appears under its name only when it is complete. It is the Debian that
# an administrator has, with a cloud kernel and everything that our packages
# depend on, since a guest has no network to get it from; nothing in it is ours.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../vm/scripts/apt.sh
. "$here/../../vm/scripts/apt.sh"

suite=$1
target=$2
if ((EUID != 0)); then
	echo "only root can make a Debian" >&2
	exit 1
fi

packages=(
	systemd systemd-sysv dbus udev kmod procps iproute2
	# What holds our rules, and what fights over them.
	iptables nftables ufw firewalld conntrack
	# Modules: built by dkms, signed where openssl is.
	linux-image-cloud-amd64 linux-headers-cloud-amd64 dkms gcc make libc6-dev libxtables-dev pkgconf openssl mokutil
	# What Ansible installs packages with.
	python3-apt
)

sources=()
for s in "$suite" "$suite-updates" "$suite-security"; do
	kind=
	[[ $s != *-security ]] || kind=-security
	if uri=$(mirror $kind); then
		sources+=("deb $uri $s main")
	fi
done
if ((${#sources[@]} == 0)); then
	echo "the host's apt sources name no Debian mirror" >&2
	exit 1
fi

new=$target.new.$$
root=$new/root
rm -rf --one-file-system "$target".new.*
mkdir -p "$new"
trap 'rm -rf "$new"' EXIT

# The machine is booted with an initrd of the bench: Debian's own would only
# take time here, and with every boot.
export INITRD=No
if ! timeout 1200 unshare -m mmdebstrap --mode=root --format=directory --variant=minbase \
	--include="$(IFS=,; echo "${packages[*]}")" \
	--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "2"' \
	--aptopt='Acquire::http::Timeout "30"' --aptopt='Acquire::https::Timeout "30"' \
	--dpkgopt=force-unsafe-io --customize-hook="bash '$here/otherkernel.sh' \"\$1\"" \
	"$suite" "$root" "${sources[@]}" >"$new/log" 2>&1 </dev/null; then
	tail -n 20 "$new/log" >&2
	exit 1
fi

# The options above were for this script. An administrator's are Debian's.
rm -f "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap

echo web1 >"$root/etc/hostname"
printf '127.0.0.1\tlocalhost\n127.0.1.1\tweb1\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
# Without one it would be a first boot, which enables every unit there is.
printf '%s' "$suite" | md5sum | cut -c 1-32 >"$root/etc/machine-id"
mkdir -p "$root/var/log/journal"
# Neighbours are static: the question for one could be what a test loses.
cat >"$root/etc/systemd/network/10-eth0.network" <<'END'
[Match]
Name=eth0

[Network]
Address=192.0.2.2/24
Address=2001:db8::2/64
Gateway=192.0.2.1
Gateway=2001:db8::1
IPv6AcceptRA=no
IPv6DuplicateAddressDetection=0
LinkLocalAddressing=no

[Neighbor]
Address=192.0.2.1
LinkLayerAddress=02:00:00:00:00:01

[Neighbor]
Address=2001:db8::1
LinkLayerAddress=02:00:00:00:00:01
END
inside() { chroot "$root" "$@" >>"$new/log" 2>&1; }
inside systemctl enable systemd-networkd.service
# Each is there for the tests that enable it.
inside systemctl disable ufw.service firewalld.service nftables.service
# What would run at some time of day, which a machine that was saved and resumed
# takes for now.
inside systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
# It looks for LVM's snapshots, for seconds.
inside systemctl mask e2scrub_reap.service

release=$(basename "$root"/usr/lib/modules/*)
cp "$root/boot/vmlinuz-$release" "$new/vmlinuz"
# In the order to load them, and unpacked: what loads them is small.
mkdir "$new/modules"
n=10
while read -r file; do
	name=$(basename "$file")
	to=$new/modules/$n-${name%%.*}.ko
	case $file in
	*.xz) xz -dc "$file" >"$to" ;;
	*) cp "$file" "$to" ;;
	esac
	n=$((n + 1))
done < <(for m in virtio_pci virtio_blk virtio_net virtio_console; do
	modprobe -d "$root" -S "$release" --show-depends "$m"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }')

mv "$root/other" "$new/other"
other=$(cat "$new/other/release")
# What xz has made small takes an emulator a minute to unpack.
for deb in "$new"/other/*.deb; do
	dpkg-deb --raw-extract "$deb" "$new/unpacked"
	dpkg-deb -Zzstd -z1 --build "$new/unpacked" "$deb" >>"$new/log"
	rm -rf "$new/unpacked"
done

rm -rf "$root"/var/cache/apt/*.bin "$root"/var/log/{apt,dpkg.log,bootstrap.log,alternatives.log}
truncate -s 4G "$new/root.raw"
# No work is left to the kernel's own time; the time of day is no file's.
mkfs.ext4 -q -F -L root -E lazy_itable_init=0,lazy_journal_init=0 -J size=16 -d "$root" "$new/root.raw"
rm -rf "$root"
printf '{"Kernel": "%s", "Other": "%s"}\n' "$release" "$other" >"$new/image.json"
rm -rf "$target"
mv "$new" "$target"
echo "$target"
