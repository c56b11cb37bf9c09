#!/usr/bin/env bash
# What tests.sh runs in a guest whose kernel confines by SELinux, in place of AppArmor: the labels of processes and files,
# and what the engine refuses. The policy allows everything; it is enforced.
set -uo pipefail
export WHERRY_TEST_RUNTIME=/tmp/wherry-runtime
mount -t selinuxfs selinuxfs /sys/fs/selinux && cat /lane/policy >/sys/fs/selinux/load && echo 1 >/sys/fs/selinux/enforce || exit
echo "Linux $(uname -r), $(cat /sys/kernel/security/lsm); up $(cut -d' ' -f1 /proc/uptime) s"
cp /lane/bin/wherry-runtime /tmp/
failed=0
for tests in "ocirun TestSELinux" "engine/check TestLabels"; do
	read -r package name <<<"$tests"
	mkdir -p "/tmp/tests/$package"
	cp -r "/lane/tests/$package/." "/tmp/tests/$package/"
	cd "/tmp/tests/$package" && ./program.test -test.v -test.timeout 3m -test.run "^$name\$" 2>&1 | tee /run/output | grep -v '^=== '
	if [ "${PIPESTATUS[0]}" != 0 ] || ! grep -q '^--- PASS' /run/output; then echo "FAIL $package $name"; failed=1; fi
done
echo "up $(cut -d' ' -f1 /proc/uptime) s"
exit $failed
