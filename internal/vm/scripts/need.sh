#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# For scripts that install the Debian packages they need: need says what for,
# install_missing does it.

PATH=$PATH:/usr/sbin:/sbin
missing=()

# need PACKAGE FILE...: each FILE is a command or a path.
need() {
	local package=$1 file
	shift
	for file; do
		if [[ $file == /* ]]; then
			[[ -e $file ]] && continue
		elif command -v "$file" >/dev/null; then
			continue
		fi
		missing+=("$package")
		return
	done
}

install_missing() {
	((${#missing[@]} > 0)) || return 0
	if ((EUID != 0)); then
		echo "these Debian packages are missing: ${missing[*]}" >&2
		echo "hint: run it as root, or apt-get install ${missing[*]}" >&2
		return 1
	fi
	local log network=(-o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 -o Acquire::Retries=2)
	log=$(mktemp)
	echo "installing ${missing[*]}" >&2
	export DEBIAN_FRONTEND=noninteractive
	if ! { timeout 180 apt-get "${network[@]}" -q update &&
		timeout 900 apt-get "${network[@]}" -q install -y --no-install-recommends "${missing[@]}"; } </dev/null >"$log" 2>&1; then
		cat "$log" >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
	missing=()
}
