#!/usr/bin/env bash
# Builds dist/wherry_VERSION_ARCH.deb and dist/wherry-docker_VERSION_all.deb from bin/ with dpkg-deb alone.
# usage: VERSION=x.y.z deb.sh
set -euo pipefail
cd "$(dirname "$0")/.."
: "${VERSION:?}"
version=${VERSION/-/\~} # 0.1.0-dev sorts before 0.1.0
arch=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p dist

pack() { # pack NAME ARCH: from packaging/deb/NAME.* and $stage/NAME
	local name=$1 script
	mkdir -p "$stage/$name/DEBIAN" "$stage/$name/usr/share/doc/$name"
	install -m 644 packaging/deb/copyright "$stage/$name/usr/share/doc/$name/copyright"
	gzip -9nc CHANGELOG.md >"$stage/$name/usr/share/doc/$name/changelog.gz"
	for script in postinst prerm postrm; do
		[ ! -e "packaging/deb/$name.$script" ] || install -m 755 "packaging/deb/$name.$script" "$stage/$name/DEBIAN/$script"
	done
	sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$2/" \
		-e "s/@SIZE@/$(du -sk --apparent-size "$stage/$name" | cut -f1)/" "packaging/deb/$name.control" >"$stage/$name/DEBIAN/control"
	find "$stage/$name" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
	dpkg-deb --root-owner-group -Zxz --build "$stage/$name" "dist/${name}_${version}_$2.deb"
}

DESTDIR=$stage/wherry PREFIX=/usr packaging/install.sh install
pack wherry "$arch"

mkdir -p "$stage/wherry-docker/usr/bin" "$stage/wherry-docker/usr/lib/systemd/system/wherry.socket.d"
ln -s wherry "$stage/wherry-docker/usr/bin/docker"
install -m 644 packaging/systemd/docker.conf "$stage/wherry-docker/usr/lib/systemd/system/wherry.socket.d/docker.conf"
pack wherry-docker all
