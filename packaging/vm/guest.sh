#!/usr/bin/env bash
# What tests.sh runs in the guest. Without KVM everything is ten times slower here than on the host, so it is a choice:
# what meets control groups, AppArmor and an older kernel.
set -uo pipefail
cp -r /lane/bin /lane/tests /tmp/ # programs start faster from a disk than over the bridge to the host
export WHERRY_BIN=/tmp/bin WHERRY_TEST_RUNTIME=/tmp/bin/wherry-runtime
failed=0

# tests PACKAGE FLAGS...: run its tests, print what go test prints of those that ended, and how many there were.
tests() {
	local package=$1 began=$SECONDS status
	shift
	cd "/tmp/tests/$package" || exit
	./program.test -test.v "$@" 2>&1 | tee /run/output | grep --line-buffered -v '^=== '
	status=${PIPESTATUS[0]}
	[ "$status" = 0 ] || failed=1
	count() { grep -c "^--- $1" /run/output; }
	echo "$([ "$status" = 0 ] && echo ok || echo FAIL) $package $((SECONDS - began))s: $(count PASS) passed, $(count FAIL) failed, $(count SKIP) skipped"
}

# these NAMES...: a pattern of exactly these tests.
these() { local IFS='|'; echo "^($*)\$"; }

echo "Linux $(uname -r), $(nproc) processors, cgroup v2 with $(cat /sys/fs/cgroup/cgroup.controllers); $(cat /sys/kernel/security/lsm); up $(cut -d' ' -f1 /proc/uptime) s"

for package in ocirun/cgroup ocirun/command ocirun/passwd ocirun/wire daemon/apparmor; do tests $package -test.timeout 5m; done
tests ocirun/seccomp -test.timeout 5m -test.skip Libseccomp # a comparison of programs, which no kernel changes
# 160 containers; a view that kernel 6.1 refuses, so that the runtime seals a copy of itself there.
tests ocirun -test.timeout 8m -test.skip '^TestNothingIsLeft$|^TestProgramIsSealed$/^read-only_view$'
tests supervisor -test.timeout 5m -test.run "$(these TestExecIsConfined TestOutputAndExit TestKilledBySignal TestStop \
	TestExec TestPause TestOOM TestTerminal TestSupervisorKilled TestUserAndNothingLeft TestDieWithOwner TestUserNamespaceLives)"
tests integration -test.timeout 8m -test.run "$(these TestUnified.+ TestAppArmor TestOutOfMemory TestRunExitCodes TestExec \
	TestCreateStartStop TestPauseWaitRename TestTopStatsUpdate TestRestartPolicies TestLogs TestDefaultBridge TestSystemdDriver TestUserNamespace.+)"
tests integration -test.timeout 5m -test.run "$(these TestRunOptions)/$(these memory_and_swap little_memory.* pids_limit cpus cpuset cgroup_read_only)"
echo "up $(cut -d' ' -f1 /proc/uptime) s"
exit $failed
