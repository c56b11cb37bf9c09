#!/usr/bin/env bash
# Makes what boot.sh needs in the cache and prints the directory: Debian's kernel with its modules, unpacked and not
# installed, and an initial RAM disk. Only qemu, busybox and e2fsprogs are installed on this machine, where missing.
# Exits with 3 and one line on stderr where that cannot be had.
set -euo pipefail
cd "$(dirname "$0")"

cannot() { echo "test-v2: NOT RUN, for there can be no machine with cgroup v2 here: $*" >&2; exit 3; }

[ "$(uname -m)" = x86_64 ] || cannot "it is for x86_64, this is $(uname -m)"
[ "$(id -u)" = 0 ] || cannot "it needs root"
[ -n "$(command -v apt-get)" ] || cannot "it takes a kernel from Debian, and here is no apt-get"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/wherry-vm
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9

export DEBIAN_FRONTEND=noninteractive
updated=
update() { [ -n "$updated" ] || apt-get update -qq >&2 || echo "apt-get update had errors; going on with what it got" >&2; updated=1; }

install=()
command -v qemu-system-x86_64 >/dev/null || install+=(qemu-system-x86)
command -v mke2fs >/dev/null || install+=(e2fsprogs)
[ -x /bin/busybox ] && ! ldd /bin/busybox 2>/dev/null | grep -q '=>' || install+=(busybox-static)
if [ ${#install[@]} -gt 0 ]; then
	echo "installing: ${install[*]}" >&2
	update
	apt-get install -y -qq --no-install-recommends "${install[@]}" >/dev/null || cannot "no ${install[*]} could be installed"
fi

# unpack PACKAGE DIRECTORY: download a package and unpack it there, at once or not at all.
unpack() {
	local tmp=$cache/new
	rm -rf "$tmp"
	mkdir -p "$tmp/tree"
	chmod 755 "$tmp"
	(cd "$tmp" && apt-get download -qq "$1" >/dev/null 2>&1) || { rm -rf "$tmp"; return 1; }
	dpkg-deb -x "$tmp"/*.deb "$tmp/tree"
	mv "$tmp/tree" "$2"
	rm -rf "$tmp"
}

if [ ! -d "$cache/kernel" ]; then
	echo "unpacking Debian's kernel into $cache" >&2
	update
	package=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
	unpack "${package:-linux-image-amd64}" "$cache/kernel" || cannot "no package linux-image-amd64 could be downloaded"
fi
if [ ! -d "$cache/apparmor" ]; then
	update
	unpack apparmor "$cache/apparmor" || cannot "no package apparmor could be downloaded"
fi
if [ ! -d "$cache/secilc" ]; then
	update
	unpack secilc "$cache/secilc" || cannot "no package secilc could be downloaded"
fi
"$cache/secilc/usr/bin/secilc" -c 30 -o "$cache/policy" -f /dev/null selinux.cil

version=$(basename "$cache"/kernel/lib/modules/*)
modules=lib/modules/$version
[ -f "$cache/kernel/$modules/modules.dep" ] || busybox depmod -b "$cache/kernel" "$version"

# The initial RAM disk has busybox, init, and the modules that init needs to reach the host's files.
ram=$(mktemp -d)
trap 'rm -rf "$ram"' EXIT
mkdir -p "$ram"/{bin,dev,proc,sys,host,new,overlay} "$ram/$modules"
cp /bin/busybox "$ram/bin/"
install -m 755 init "$ram/init"
for module in virtio_pci virtio_blk virtio_console 9pnet_virtio 9p overlay ext4; do
	sed -n "s#^\(.*/$module\.ko[.xz]*\): *#\1 #p" "$cache/kernel/$modules/modules.dep"
done | tr ' ' '\n' | sort -u | while read -r file; do
	[ -z "$file" ] || install -D -m 644 "$cache/kernel/$modules/$file" "$ram/$modules/$file"
done
busybox depmod -b "$ram" "$version"
(cd "$ram" && find . | busybox cpio -o -H newc 2>/dev/null) >"$cache/initrd.new"
mv "$cache/initrd.new" "$cache/initrd"
echo "$cache"
