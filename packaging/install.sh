#!/usr/bin/env bash
# Installs what is in bin/, or removes it. usage: [PREFIX=/usr/local] [DESTDIR=] [DOCKER=1] install.sh install|uninstall
#
# DOCKER=1 adds the name docker for the command line, and /run/docker.sock beside the engine's own socket.
# Only an installation into the running system (no DESTDIR) makes the group and tells systemd.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${PREFIX:-/usr/local}
dest=${DESTDIR:-}
root=$dest$prefix
bindir=$root/bin
units=$root/lib/systemd/system
bash_dir=$root/share/bash-completion/completions
if [ "$prefix" = /usr ]; then zsh_dir=$root/share/zsh/vendor-completions; else zsh_dir=$root/share/zsh/site-functions; fi
fish_dir=$root/share/fish/vendor_completions.d

live() { [ -z "$dest" ]; }
booted() { [ -d /run/systemd/system ]; }

install_docker_name() {
	if [ -e "$bindir/docker" ] && [ "$(readlink "$bindir/docker")" != wherry ]; then
		echo "$bindir/docker exists and is not ours; it stays" >&2
		return 1
	fi
	ln -sfn wherry "$bindir/docker"
	install -d "$units/wherry.socket.d"
	install -m 644 packaging/systemd/docker.conf "$units/wherry.socket.d/docker.conf"
}

install_all() {
	install -d "$bindir" "$units" "$bash_dir" "$zsh_dir" "$fish_dir" "$dest/etc/wherry"
	install -m 755 bin/wherry bin/wherryd bin/wherry-runtime "$bindir/"
	local unit
	for unit in wherry.service wherry.socket; do
		sed "s,@BINDIR@,$prefix/bin,g" "packaging/systemd/$unit" >"$units/$unit"
		chmod 644 "$units/$unit"
	done
	bin/wherry completion bash >"$bash_dir/wherry"
	bin/wherry completion zsh >"$zsh_dir/_wherry"
	bin/wherry completion fish >"$fish_dir/wherry.fish"
	chmod 644 "$bash_dir/wherry" "$zsh_dir/_wherry" "$fish_dir/wherry.fish"
	[ "${DOCKER:-}" != 1 ] || install_docker_name
	live || return 0
	getent group wherry >/dev/null || groupadd --system wherry
	if booted; then systemctl daemon-reload; fi
	echo "installed below $prefix. Next:"
	if booted; then echo "    systemctl enable --now wherry.socket wherry.service"; else echo "    $prefix/bin/wherryd &"; fi
	echo "    wherry run --rm hello"
	echo "Members of the group wherry may use the socket without root; that makes them as powerful as root."
}

uninstall_all() {
	if live && booted; then systemctl disable --now wherry.service wherry.socket 2>/dev/null || true; fi
	[ "$(readlink "$bindir/docker" 2>/dev/null)" != wherry ] || rm -f "$bindir/docker"
	rm -f "$bindir/wherry" "$bindir/wherryd" "$bindir/wherry-runtime" \
		"$units/wherry.service" "$units/wherry.socket" "$units/wherry.socket.d/docker.conf" \
		"$bash_dir/wherry" "$zsh_dir/_wherry" "$fish_dir/wherry.fish"
	rmdir "$units/wherry.socket.d" "$dest/etc/wherry" 2>/dev/null || true
	live || return 0
	if booted; then systemctl daemon-reload; fi
	echo "removed. Containers, images and volumes are still in /var/lib/wherry."
}

case ${1:-} in
install) install_all ;;
uninstall) uninstall_all ;;
*) echo "usage: install.sh install|uninstall" >&2; exit 2 ;;
esac
