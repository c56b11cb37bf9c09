#!/usr/bin/env bash
# Packs what is in bin/ as a tarball in dist/ and writes checksums of everything there. The same source, Go version
# and VERSION give the same bytes: files are sorted, stamped with the commit's date and owned by root.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${VERSION:?}"
name=wherry-$VERSION-linux-$(go env GOARCH)
stamp=@$(git log -1 --format=%ct)
mkdir -p dist
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="$stamp" --transform "s,^,$name/," \
	-cf - bin/wherry bin/wherryd bin/wherry-runtime README.md LICENSE CHANGELOG.md packaging/systemd |
	gzip -9n >"dist/$name.tar.gz"
go version -m bin/wherry bin/wherryd bin/wherry-runtime >"dist/$name.modules.txt"
(cd dist && sha256sum -- *.tar.gz *.deb *.modules.txt >SHA256SUMS)
cat dist/SHA256SUMS
