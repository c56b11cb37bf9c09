#!/usr/bin/env bash
# Runs the tests of the runtime, the supervisor and the life of containers in a virtual machine whose kernel has cgroup
# v2 alone, with AppArmor. Where no such machine can be had it says so in one line and succeeds. Needs `make static`.
# usage: tests.sh [SCRIPT]   with a SCRIPT, that runs in the guest instead, with the same programs in /lane; with SELinux
#   if its name says so, as that of selinux.sh does
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
GO=${GO:-go}

lane=$(mktemp -d) guest=''
# shellcheck disable=SC2317 # called by the trap
clean() {
	if [ -n "$guest" ]; then
		kill "$guest" 2>/dev/null || true
		wait "$guest" || true
	fi
	rm -rf "$lane"
}
trap clean EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

status=0
cache=$("$here/setup.sh") || status=$?
case $status in
0) ;;
3) exit 0 ;; # it has said why
*) exit "$status" ;;
esac

bin/make-images >/dev/null # the guest finds them in the cache
cp -r bin "$lane/bin"
packages=$($GO list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}' ./ocirun/... ./supervisor/... ./engine/check ./daemon/apparmor ./integration)
while read -r package dir; do
	name=$lane/tests/${package#*/*/*/}
	mkdir -p "$name"
	$GO test -c -o "$name/program.test" "$package"
	[ ! -d "$dir/testdata" ] || cp -r "$dir/testdata" "$name/"
done <<<"$packages"
cp "$cache/policy" "$lane/policy"

run() { # run SCRIPT WORDS: a guest with WORDS on its kernel's command line
	local status=0
	cp "$1" "$lane/run"
	"$here/boot.sh" -t "${WHERRY_VM_SECONDS:-1800}" -k "$2" "$lane" &
	guest=$!
	wait "$guest" || status=$?
	guest=''
	return "$status"
}
selinux="security=selinux selinux=1"
case ${1-} in
'')
	run "$here/guest.sh" '' || status=$?
	;;
*selinux*) run "$1" "$selinux" || status=$? ;;
*) run "$1" '' || status=$? ;;
esac
exit "$status"
