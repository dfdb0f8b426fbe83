#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# ccheck.sh: holds the kernel module against the kernel's own tools, as of 6.1:
# sparse (make C=2) and gcc with W=1, where every warning counts, and
# checkpatch.pl --strict. Prints what they find; exits with 1 if that is
# anything but the exceptions below.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=apt.sh
. "$here/apt.sh"
# shellcheck source-path=SCRIPTDIR source=need.sh
. "$here/need.sh"
module=$here/../../../kmod-fallback
cache=${NETSYSRQ_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/netsysrq}

# What checkpatch.pl may say: a type of message, and a pattern for the line of
# the source that it may be said of.
exceptions=(
	# Code in the kernel's tree is for one version. This is for 5.10 to 7.2.
	'LINUX_VERSION_CODE	^#(el)?if LINUX_VERSION_CODE '
	# It takes KERNEL_VERSION(...), on the right, for a constant on the left.
	'CONSTANT_COMPARISON	^#(el)?if LINUX_VERSION_CODE '
)

excepted() { # excepted TYPE LINE
	local e
	for e in "${exceptions[@]}"; do
		if [[ $1 == "${e%%$'\t'*}" && $2 =~ ${e#*$'\t'} ]]; then
			return 0
		fi
	done
	return 1
}

need sparse sparse
need perl perl
install_missing
"$here/deps.sh"

mkdir -p "$cache/locks" "$cache/kernels"
exec {lock}>"$cache/locks/kernel-6.1" # as of Kernel in kernel.go
flock "$lock"
kernels=("$cache"/kernels/6.1/*/kernel.json)
if [[ -e ${kernels[0]} ]]; then
	kernel=$(dirname "${kernels[-1]}")
else
	kernel=$("$here/kernel.sh" 6.1 "$cache/kernels" | tail -n 1)
fi

# checkpatch.pl is in the kernel's source only, of which it needs three files.
checkpatch=$cache/checkpatch
if [[ ! -e $checkpatch/checkpatch.pl ]]; then
	new=$(mktemp -d)
	trap 'rm -rf "$new"' EXIT
	suites "$cache/kernels/apt/6.1" bookworm bookworm-security
	unpack "$new" linux-source-6.1
	tar -xf "$new"/usr/src/linux-source-6.1.tar.xz -C "$new" --strip-components=2 \
		linux-source-6.1/scripts/{checkpatch.pl,spelling.txt,const_structs.checkpatch}
	mkdir -p "$checkpatch"
	mv "$new"/{spelling.txt,const_structs.checkpatch,checkpatch.pl} "$checkpatch"
	rm -rf "$new"
fi
flock -u "$lock"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0

cp -r "$module" "$tmp/module"
headers=$(echo "$kernel"/root/usr/src/linux-headers-*-cloud-amd64)
make() { command make "$@" 2>&1 | sed "s;$tmp/module/;;"; }
if ! make -C "$headers" M="$tmp/module" C=2 W=1 KCFLAGS=-Werror modules >"$tmp/make.log" 2>&1; then
	cat "$tmp/make.log"
	failed=1
elif grep -E '\b(warning|error):' "$tmp/make.log" | grep -v 'differs from the one used to build the kernel'; then
	failed=1
fi
# A sparse that was not called finds nothing either.
checked=$(grep -c '^  CHECK ' "$tmp/make.log" || true)
objects=$(find "$tmp/module" -maxdepth 1 -name '*.o' ! -name 'xt_NETSYSRQ*' | wc -l)
if ((failed == 0 && (objects == 0 || checked != objects))); then
	echo "sparse was called for $checked of $objects files"
	failed=1
fi

cd "$module"
status=0
perl "$checkpatch/checkpatch.pl" --no-tree --strict --file --terse --show-types --color=never ./*.c ./*.h >"$tmp/checkpatch.log" 2>&1 || status=$?
found=$(sed -nE 's/^total: ([0-9]+) errors, ([0-9]+) warnings, ([0-9]+) checks,.*/\1+\2+\3/p' "$tmp/checkpatch.log" | paste -sd +)
told=0
while IFS= read -r finding; do
	if [[ $finding =~ ^([^:]+):([0-9]+):\ (ERROR|WARNING|CHECK):([A-Z0-9_]+): ]]; then
		told=$((told + 1))
		line=$(sed -n "${BASH_REMATCH[2]}p" "${BASH_REMATCH[1]}")
		if excepted "${BASH_REMATCH[4]}" "$line"; then
			continue
		fi
	elif [[ $finding == total:* || -z $finding ]]; then
		continue
	fi
	echo "$finding"
	failed=1
done <"$tmp/checkpatch.log"
# It ends with 1 if it found anything, and leaves a total if that is little.
if ((status > 1 || told != ${found:-0})); then
	cat "$tmp/checkpatch.log"
	echo "checkpatch.pl ended with $status and told of $told findings"
	failed=1
fi
exit "$failed"
