#!/usr/bin/env bash
# What CI requires of the source. usage: check.sh [lint|vuln]
# Tools that are not part of the Go distribution are used where they are installed, and named where they are not.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
failed=0

step() { # step NAME COMMAND...: run, show output only on failure
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then
		echo "ok      $name"
	else
		failed=1
		printf '%s\n' "$out"
		echo "FAILED  $name"
	fi
}

optional() { # optional PROGRAM COMMAND...: the same, if the program is there
	local program=$1
	shift
	if command -v "$program" >/dev/null; then step "$program" "$@"; else echo "absent  $program"; fi
}

# empty COMMAND...: succeeds if the command prints nothing
# shellcheck disable=SC2317 # called through step
empty() {
	local out
	out=$("$@") || return
	[ -z "$out" ] || { echo "$out"; return 1; }
}

mapfile -t sources < <(git ls-files '*.go')
mapfile -t scripts < <(git ls-files '*.sh' .ci/run packaging/vm/init)

lint() {
	optional golangci-lint golangci-lint run ./...
	optional shellcheck shellcheck -x "${scripts[@]}"
}

case ${1:-all} in
lint) lint ;;
vuln) optional govulncheck govulncheck ./... ;;
all)
	step gofmt empty gofmt -l "${sources[@]}"
	step 'mod tidy' go mod tidy -diff
	step 'mod verify' go mod verify
	step vet go vet ./...
	step archtest go test ./internal/archtest
	lint
	;;
*) echo "usage: check.sh [lint|vuln]" >&2; exit 2 ;;
esac
exit "$failed"
