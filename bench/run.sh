#!/usr/bin/env bash
# Measures Wherry beside Debian's dockerd on this machine, both on the same image: back to back, and after quiet; its
# runtime beside Debian's runc and crun; and its command line beside the kernel's own floor.
# Everything it starts has roots, sockets and bridges of its own, and is removed at the end.
# usage: run.sh [options of bench/engines]
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "benchmarks start two engines, which needs root" >&2; exit 1; }
packaging/prepare.sh bench
cache=${WHERRY_FIXTURES:-${XDG_CACHE_HOME:-$HOME/.cache}/wherry-fixtures}
export PATH=$PWD/bin:$PATH:/usr/sbin:/sbin:$cache/tools/usr/bin:$cache/tools/usr/sbin
unset DOCKER_HOST DOCKER_CONTEXT

dir=$(mktemp -d /tmp/wb-XXXXXX)
key=${dir##*-}
theirs=wbd$key ours=wbw$key
dockerd_pid='' wherryd_pid='' registry_pid=''
started=0

stop() { # stop PID: TERM, and wait
	[ -n "$1" ] || return 0
	kill -TERM "$1" 2>/dev/null || return 0
	for _ in $(seq 300); do kill -0 "$1" 2>/dev/null || return 0; sleep 0.1; done
	kill -KILL "$1" 2>/dev/null || true
}
cleanup() {
	trap - EXIT
	for s in dockerd wherry; do
		[ -S "$dir/$s.sock" ] || continue
		ids=$(docker -H "unix://$dir/$s.sock" ps -aq 2>/dev/null) || true
		# shellcheck disable=SC2086
		[ -z "$ids" ] || docker -H "unix://$dir/$s.sock" rm -fv $ids >/dev/null 2>&1 || true
	done
	stop "$wherryd_pid"
	stop "$dockerd_pid"
	stop "$registry_pid"
	for link in "$theirs" "$ours"; do ip link del "$link" 2>/dev/null || true; done
	[ "$started" = 0 ] || rm -rf "/run/$theirs" "/run/$ours"
	awk -v d="$dir/" 'index($5, d) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r m; do umount -l "$m"; done
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

await() { # await SECONDS COMMAND...
	local n=$(($1 * 10))
	shift
	until "$@" >/dev/null 2>&1; do
		n=$((n - 1))
		[ $n -gt 0 ] || { echo "timed out: $*" >&2; tail -n 5 "$dir"/*.log >&2; exit 1; }
		sleep 0.1
	done
}

# An image registry on a port of its own.
make-images >/dev/null
make-images serve 127.0.0.1:0 >"$dir/registry.log" 2>&1 &
registry_pid=$!
await 20 grep -q 'plain HTTP' "$dir/registry.log"
registry=$(grep -o '127\.0\.0\.1:[0-9]*' "$dir/registry.log" | head -n 1)

# Bridges in subnets that nothing on this machine uses.
subnet() { # subnet N: the first free 10.N.x
	local x
	for x in $(seq 0 16 240); do ip -4 route show | grep -q "10\.$1\.$x\." || { echo "10.$1.$x"; return; }; done
}
ip link add "$theirs" type bridge
ip addr add "$(subnet 251).1/24" dev "$theirs"
ip link set "$theirs" up
started=1
# Its own NAT rules would stay behind and cost it time; without them both engines do the same for a container.
dockerd -H "unix://$dir/dockerd.sock" --data-root "$dir/dockerd" --exec-root "/run/$theirs" --pidfile "$dir/dockerd.pid" \
	--bridge "$theirs" --iptables="${BENCH_IPTABLES:-false}" --ip6tables=false >"$dir/dockerd.log" 2>&1 &
dockerd_pid=$!
echo "{}" >"$dir/daemon.json"
wherryd -H "unix://$dir/wherry.sock" --data-root "$dir/wherry" --exec-root "/run/$ours" --pidfile "$dir/wherry.pid" \
	--bridge "$ours" --bip "$(subnet 252).1/24" --config-file "$dir/daemon.json" >"$dir/wherry.log" 2>&1 &
wherryd_pid=$!
for s in dockerd wherry; do
	await 60 docker -H "unix://$dir/$s.sock" version
	docker -H "unix://$dir/$s.sock" pull -q "$registry/busybox" >/dev/null
	docker -H "unix://$dir/$s.sock" tag "$registry/busybox" busybox
done

export BENCH_WHERRY_MATCH="--exec-root /run/$ours" BENCH_DOCKERD_MATCH="/run/$theirs/"
engines() { go run ./bench/engines -registry "$registry" "$@" "dockerd=$dir/dockerd.sock" "wherry=$dir/wherry.sock"; }

echo "== back to back"
engines "$@"
echo
echo "== after 300 ms of quiet"
engines -gap 300ms -only run,run-none,start,exec,stop "$@"
echo
echo "== start of the command line"
go run ./bench/startup "$PWD/bin/wherry"

go build -o "$dir/command" ./bench/command
cc -O2 -o "$dir/floor" bench/floor/floor.c
ours_line="wherry -H unix://$dir/wherry.sock run --rm busybox true"
lines() { "$dir/command" -floor "$dir/floor" -scratch "$dir" "$@" "wherry=$ours_line" "dockerd=docker -H unix://$dir/dockerd.sock run --rm busybox true"; }
echo
echo "== whole command lines and the kernel's floor, back to back"
lines -block 10 -n 6
echo
echo "== the same by turns"
lines
echo
echo "== the same after 300 ms of quiet"
lines -gap 300ms -n 30
echo
echo "== 1,000 in a row"
"$dir/command" -sustained 1000 "wherry=$ours_line"
echo
echo "== create, start and delete of a bundle"
# A measure of its own, with nothing of an engine in it.
go run ./bench/runtimes crun=crun runc=runc wherry=wherry-runtime
echo
echo "== where the time of wherry run goes (medians)"
wherry -H "unix://$dir/wherry.sock" events --timing --since 0s >"$dir/timing" 2>/dev/null &
events_pid=$!
for _ in $(seq 50); do $ours_line; done
sleep 1
kill "$events_pid"
go run ./bench/phases <"$dir/timing"
