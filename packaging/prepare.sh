#!/usr/bin/env bash
# Installs what tests, fixtures and benchmarks need, or says exactly what is missing.
# usage: prepare.sh tests|fixtures|bench
#
# docker.io, docker-registry and what goes with them are unpacked into a cache instead of installed, where they are
# missing: installing them would start services and change the firewall of the machine.
set -euo pipefail

what=${1:-tests}
cache=${WHERRY_FIXTURES:-${XDG_CACHE_HOME:-$HOME/.cache}/wherry-fixtures}
tools=$cache/tools

# program=package pairs; a program found in PATH needs no package.
fixtures="busybox=busybox-static debootstrap=debootstrap zstd=zstd mount=mount"
tests="$fixtures ip=iproute2 curl=curl jq=jq script=bsdutils socat=socat nsenter=util-linux mkfs.ext4=e2fsprogs losetup=mount ps=procps openssl=openssl nft=nftables shellcheck=shellcheck podman=podman crun=crun dmsetup=dmsetup systemctl=systemd dbus-daemon=dbus-daemon"
unpacked="docker=docker.io docker-registry=docker-registry dockerd=docker.io containerd=containerd runc=runc"

case $what in
fixtures) need="$fixtures" unpacked="docker-registry=docker-registry" ;;
tests) need="$tests" ;;
bench) need="$tests iptables=iptables cc=build-essential" ;;
*) echo "usage: prepare.sh tests|fixtures|bench" >&2; exit 2 ;;
esac

have() { PATH=$PATH:/usr/sbin:/sbin:$tools/usr/bin:$tools/usr/sbin command -v "$1" >/dev/null 2>&1; }

# A busybox in PATH is not enough: the images need the static one.
static_busybox() { [ -x /bin/busybox ] && ! ldd /bin/busybox 2>/dev/null | grep -q '=>'; }

words() { printf '%s ' "$@" | tr '\n' ' '; } # lines as one line

missing() { # missing PAIRS...: the packages whose program is not there
	local pair
	for pair in "$@"; do
		if [ "${pair%%=*}" = busybox ]; then static_busybox || echo busybox-static
		else have "${pair%%=*}" || echo "${pair#*=}"; fi
	done | sort -u
}

# shellcheck disable=SC2086 # the lists are words
install=$(missing $need)
# shellcheck disable=SC2086
unpack=$(missing $unpacked)
[ -n "$install$unpack" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing, please install (Debian's package names): $(words "$install" "$unpack")" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
echo "installing: $(words "$install" "$unpack")"
# One unreachable third-party source must not stop us; what counts is whether the packages come.
apt-get update -qq || echo "apt-get update had errors; going on with what it got" >&2
if [ -n "$install" ]; then
	# shellcheck disable=SC2086
	apt-get install -y -qq --no-install-recommends $install >/dev/null
fi
if [ -n "$unpack" ]; then
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	chmod 755 "$tmp"
	mkdir -p "$tools"
	# shellcheck disable=SC2086
	(cd "$tmp" && apt-get download -qq $unpack && for deb in *.deb; do dpkg-deb -x "$deb" "$tools"; done)
fi

# shellcheck disable=SC2086
left=$(missing $need $unpacked)
if [ -n "$left" ]; then
	echo "still missing after the installation: $(words "$left")" >&2
	exit 1
fi
