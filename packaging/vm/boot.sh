#!/usr/bin/env bash
# Boots Debian's kernel in qemu and runs a script there as root: what the host has is there too, at the same place and
# read-only, but for /tmp, which is an empty disk, and /run; all changes are lost. Prints what the script prints, and
# ends with its status; 124 when the time is up, 125 if the guest did not boot.
# usage: boot.sh [-t SECONDS] [-k WORDS] DIRECTORY
#   the guest sees the directory as /lane, writable, and runs /lane/run with bash; -k adds to the kernel's command line
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

limit=600 words=''
while getopts t:k: option; do
	case $option in t) limit=$OPTARG ;; k) words=$OPTARG ;; *) exit 2 ;; esac
done
shift $((OPTIND - 1))
lane=$(realpath "${1:?usage: boot.sh [-t SECONDS] DIRECTORY}")
cache=$("$here/setup.sh") || exit

rm -f "$lane/status"
cp "$here/init" "$lane/init"
# The kernel asks modprobe for what it misses.
printf '#!/bin/busybox sh\nexec /bin/busybox modprobe "$@"\n' >"$lane/modprobe"
chmod 755 "$lane/modprobe"
{
	printf 'export WHERRY_VM=%q WHERRY_FIXTURES=%q HOME=%q TERM=dumb\n' \
		"$cache" "$(realpath -m "${WHERRY_FIXTURES:-${XDG_CACHE_HOME:-$HOME/.cache}/wherry-fixtures}")" "$HOME"
	printf 'export PATH=%q\n' "$PATH:/usr/sbin:/sbin"
} >"$lane/environment"

tmp=$(mktemp -d)
qemu='' reader=''
# shellcheck disable=SC2317 # called by the trap
clean() {
	if [ -n "$qemu" ]; then # timeout passes the signal on
		kill "$qemu" 2>/dev/null || true
		wait "$qemu" || true
	fi
	[ -z "$reader" ] || kill "$reader" 2>/dev/null || true
	rm -rf "$tmp"
}
trap clean EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
mkfifo "$tmp/out"
truncate -s 4G "$tmp/disk"
mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1 "$tmp/disk"

# KVM without these modules is somebody else's, on which Debian's kernel may not run.
accel=(-accel "tcg,thread=multi" -cpu max)
if [ -w /dev/kvm ] && { [ -d /sys/module/kvm_intel ] || [ -d /sys/module/kvm_amd ]; }; then accel=(-accel kvm -cpu host); fi
kernel=$(echo "$cache"/kernel/boot/vmlinuz-*)

cat "$tmp/out" &
reader=$!
timeout -k 5 "$limit" qemu-system-x86_64 -M pc "${accel[@]}" -m 3072 -smp 2 -nodefaults -no-user-config -display none -no-reboot \
	-kernel "$kernel" -initrd "$cache/initrd" \
	-append "console=ttyS0 quiet loglevel=4 panic=-1 random.trust_cpu=on mitigations=off $words" \
	-fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap -device virtio-9p-pci,fsdev=host,mount_tag=host \
	-fsdev "local,id=lane,path=$lane,security_model=none,multidevs=remap" -device virtio-9p-pci,fsdev=lane,mount_tag=lane \
	-drive "file=$tmp/disk,format=raw,if=none,id=disk,cache=unsafe" -device virtio-blk-pci,drive=disk \
	-device virtio-serial-pci -chardev file,id=out,path=/proc/self/fd/1,append=on -device virtserialport,chardev=out \
	-serial "file:$tmp/console" </dev/null >"$tmp/out" &
qemu=$!
status=0
wait "$qemu" || status=$?
qemu=''
wait "$reader" || true
reader=''
if [ -f "$lane/status" ]; then exit "$(cat "$lane/status")"; fi
if [ "$status" = 124 ] || [ "$status" = 137 ]; then echo "boot.sh: the time is up ($limit s)" >&2; exit 124; fi
echo "boot.sh: the guest ended early (qemu: $status); its console:" >&2
tail -n 20 "$tmp/console" >&2
exit 125
