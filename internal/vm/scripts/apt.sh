#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Debian packages of any suite, without a change to the system: each set of
# suites has sources, lists and an empty dpkg status in a folder of its own.
# Everything comes from the mirror that the host itself uses.

# Downloads are bounded: a connection that stalls, and each command as a whole.
network=(-o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 -o Acquire::Retries=2 -o Acquire::Languages=none)

# archive SUITE: the address of the archive that the host's sources name for it.
archive() {
	# shellcheck disable=SC2016 # apt fills these in
	apt-get indextargets --format '$(CREATED_BY) $(RELEASE) $(COMPONENT) $(REPO_URI)' |
		awk -v suite="$1" '$1 == "Packages" && $2 == suite && $3 == "main" { print $4; exit }'
}

# mirror: the address of the main archive; mirror -security: of the other one.
mirror() {
	local codename uri
	# shellcheck source=/dev/null
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	uri=$(archive "$codename${1:-}")
	[[ -n $uri ]] || return 1
	echo "$uri"
}

# suites FOLDER SUITE...: make FOLDER the place of these suites, and apt its options.
suites() {
	local folder=$1 suite kind uri
	shift
	mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
	: >"$folder/status"
	: >"$folder/sources.list"
	for suite; do
		kind=
		[[ $suite != *-security ]] || kind=-security
		if uri=$(mirror $kind); then
			echo "deb $uri $suite main" >>"$folder/sources.list"
		fi
	done
	if [[ ! -s $folder/sources.list ]]; then
		echo "the host's apt sources name no Debian mirror" >&2
		return 1
	fi
	apt=("${network[@]}" -o "Dir::Etc::SourceList=$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o "Dir::State::status=$folder/status"
		-o APT::Sandbox::User=root)
	timeout 180 apt-get "${apt[@]}" -qq update
}

# candidate PACKAGE: the version that would be downloaded.
candidate() {
	apt-cache "${apt[@]}" policy "$1" | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'
}

# needs PACKAGE...: they and all that they depend on, by name.
needs() {
	apt-cache "${apt[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
		--no-replaces --no-enhances "$@" | grep -E '^[a-z0-9]'
}

# unpack FOLDER PACKAGE...: download, and unpack without installing.
unpack() {
	local folder=$1 debs file
	shift
	debs=$(mktemp -d)
	mkdir -p "$folder"
	if ! (cd "$debs" && timeout 600 apt-get "${apt[@]}" -qq download "$@"); then
		rm -rf "$debs"
		return 1
	fi
	for file in "$debs"/*.deb; do
		dpkg -x "$file" "$folder"
	done
	rm -rf "$debs"
}
