#!/usr/bin/env bash
# Starts and stops the daemon of one checkout, apart from any that is installed: its own socket, roots and bridge, all
# named after the checkout's path, so that several checkouts can be up at once. usage: up.sh up|down|env
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
bin=$top/bin
key=$(printf %s "$top" | cksum | cut -d' ' -f1)
key=$(printf '%06x' $((key & 0xffffff)))
run=/run/wherry-up-$key # short, for unix sockets end at 107 bytes
data=$top/.up
bridge=wup-$key
socket=$run/wherry.sock
pidfile=$run/wherryd.pid
export DOCKER_HOST=unix://$socket
unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH DOCKER_API_VERSION || true

die() { echo "$*" >&2; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || die "make $1 needs root: an engine makes namespaces, mounts and network links"; }

# pid of the daemon, or nothing; a stale pid file of another process does not count.
daemon() {
	local pid
	pid=$(cat "$pidfile" 2>/dev/null) || return 0
	case $(readlink "/proc/$pid/exe" 2>/dev/null) in
	*/wherryd | */wherryd' (deleted)') echo "$pid" ;;
	esac
}

# helpers lists the processes that carry our exec root in their command line.
helpers() {
	local d
	for d in /proc/[0-9]*; do
		if tr '\0' '\n' 2>/dev/null <"$d/cmdline" | grep -qxF -e "$run/exec" -e "--exec-root=$run/exec"; then echo "${d#/proc/}"; fi
	done
}

answers() { "$bin/wherry" version >/dev/null 2>&1; }

wait_for() { # wait_for SECONDS COMMAND...
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.1
	done
}

gone() { [ -z "$(daemon)" ]; }
no_helpers() { [ -z "$(helpers)" ]; }

start_daemon() {
	mkdir -p "$run" "$data"
	setsid "$bin/wherryd" -H "unix://$socket" --data-root "$data/data" --exec-root "$run/exec" --pidfile "$pidfile" \
		--bridge "$bridge" --config-file "$data/daemon.json" </dev/null >>"$data/wherryd.log" 2>&1 &
	local child=$!
	ready() { answers || ! kill -0 "$child" 2>/dev/null; }
	wait_for 60 ready || true
	if ! answers; then
		tail -n 20 "$data/wherryd.log" >&2
		die "the daemon did not come up; its log is $data/wherryd.log"
	fi
}

stop_daemon() {
	local pid
	pid=$(daemon)
	[ -n "$pid" ] || return 0
	kill -TERM "$pid"
	wait_for 60 gone || { echo "the daemon does not stop; killing it" >&2; kill -KILL "$pid"; wait_for 10 gone; }
}

up() {
	need_root up
	[ -e "$data/daemon.json" ] || { mkdir -p "$data"; echo '{}' >"$data/daemon.json"; }
	stop_daemon # containers go on running; the new daemon finds them
	start_daemon
	echo
	"$bin/wherry" run --rm hello
	cat <<-EOF

		The daemon of this checkout is up (log: ${data#"$top"/}/wherryd.log). To talk to it from this shell:

		    export PATH=$bin:\$PATH DOCKER_HOST=$DOCKER_HOST

		then for example

		    wherry ps -a
		    wherry run --rm hello

		\`make registry\` serves real images (busybox, debian, nginx, redis) on loopback for the tour in README.md.
		The stock docker command works with the same DOCKER_HOST. \`make down\` removes everything again.
	EOF
}

remove_all() {
	local ids
	ids=$("$bin/wherry" ps -aq --no-trunc) || return 1
	# shellcheck disable=SC2086 # one word per id
	[ -z "$ids" ] || "$bin/wherry" rm -fv $ids >/dev/null
	ids=$("$bin/wherry" network ls -q --no-trunc --filter type=custom) || return 1
	# shellcheck disable=SC2086
	[ -z "$ids" ] || "$bin/wherry" network rm $ids >/dev/null
}

down() {
	need_root down
	if [ ! -d "$data" ] && [ ! -d "$run" ]; then
		echo "nothing is up"
		return
	fi
	if [ -x "$bin/wherryd" ]; then
		# A daemon that was killed left its containers running: only a daemon removes them properly.
		answers || start_daemon
		remove_all || echo "some containers or networks could not be removed" >&2
	fi
	stop_daemon
	if ! wait_for 15 no_helpers; then
		echo "helpers did not end by themselves: $(helpers | tr '\n' ' ')" >&2
		# shellcheck disable=SC2046
		kill -KILL $(helpers) 2>/dev/null || true
	fi
	local mount left=0
	while read -r mount; do
		echo "still mounted: $mount" >&2
		umount -l "$mount" || true
		left=1
	done < <(awk -v a="$run/" -v b="$data/" 'index($5, a) == 1 || index($5, b) == 1 {print $5}' /proc/self/mountinfo | sort -r)
	if [ -e "/sys/class/net/$bridge" ]; then
		echo "still there: bridge $bridge" >&2
		ip link del "$bridge" 2>/dev/null || true
		left=1
	fi
	rm -rf "$run" "$data"
	[ $left = 0 ] || die "something had to be cleaned up by hand: that is a bug, please report it"
	echo "down: nothing is left"
}

case ${1:-} in
up) up ;;
down) down ;;
env) echo "export PATH=$bin:\$PATH DOCKER_HOST=$DOCKER_HOST" ;;
*) die "usage: up.sh up|down|env" ;;
esac
