package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// TestRunOptions gives one option at a time and looks at its effect from inside.
func TestRunOptions(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	envFile := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(envFile, []byte("FROM_FILE=yes\n# comment\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
	tests := map[string]struct {
		options []string
		command string
		want    string
	}{
		"plain":            {nil, "echo hello", "hello"},
		"env":              {[]string{"-e", "A=1", "--env", "B=two words"}, `echo "$A $B"`, "1 two words"},
		"env file":         {[]string{"--env-file", envFile}, "echo $FROM_FILE", "yes"},
		"workdir":          {[]string{"-w", "/some/where/new"}, "pwd", "/some/where/new"},
		"hostname":         {[]string{"-h", "port.example"}, "hostname; grep -c port.example /etc/hosts", "port.example\n1"},
		"user number":      {[]string{"-u", "1000"}, "id -u; id -g", "1000\n1000"},
		"user name":        {[]string{"-u", "app"}, "id -un; id -G", "app\n1000 44 50"},
		"user and group":   {[]string{"-u", "app:video"}, "id -u; id -g", "1000\n44"},
		"unknown uid":      {[]string{"-u", "4242"}, "id -u; id -g", "4242\n0"},
		"group add":        {[]string{"--group-add", "staff", "--group-add", "777"}, "id -G", "0 50 777"},
		"init":             {[]string{"--init"}, "cat /proc/1/comm | grep -q sh && echo no init; echo done", "done"},
		"pid 1":            {nil, "echo $$", "1"},
		"read only":        {[]string{"--read-only"}, "touch /x 2>/dev/null || echo refused; touch /dev/shm/y && echo shm", "refused\nshm"},
		"tmpfs":            {[]string{"--tmpfs", "/scratch:size=1m,mode=1777"}, "grep ' /scratch ' /proc/mounts | cut -d' ' -f3; touch /scratch/x && echo ok", "tmpfs\nok"},
		"cap drop":         {[]string{"--cap-drop", "ALL"}, "grep CapEff /proc/self/status", "CapEff:\t0000000000000000"},
		"cap default":      {nil, "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb"},
		"cap add":          {[]string{"--cap-drop", "all", "--cap-add", "NET_ADMIN"}, "grep CapEff /proc/self/status", "CapEff:\t0000000000001000"},
		"ulimit":           {[]string{"--ulimit", "nofile=99:100"}, "ulimit -n; ulimit -Hn", "99\n100"},
		"no new privs":     {[]string{"--security-opt", "no-new-privileges"}, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"},
		"seccomp":          {nil, "grep '^Seccomp:' /proc/self/status", "Seccomp:\t2"},
		"seccomp off":      {[]string{"--security-opt", "seccomp=unconfined"}, "grep '^Seccomp:' /proc/self/status", "Seccomp:\t0"},
		"masked":           {nil, "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c; touch /proc/sys/kernel/domainname 2>/dev/null || echo refused", "0\nrefused"},
		"privileged":       {[]string{"--privileged"}, "grep '^Seccomp:' /proc/self/status; mount -t tmpfs none /mnt 2>/dev/null || mkdir /mnt && mount -t tmpfs none /mnt && echo mounted", "Seccomp:\t0\nmounted"},
		"device":           {[]string{"--device", "/dev/zero:/dev/nothing:r"}, "head -c 4 /dev/nothing | wc -c", "4"},
		"standard devices": {nil, "for d in null zero full random urandom tty; do test -c /dev/$d || echo missing $d; done; ls -d /dev/pts /dev/shm /dev/mqueue", "/dev/mqueue\n/dev/pts\n/dev/shm"},
		"shm size":         {[]string{"--shm-size", "8m"}, "df -k /dev/shm | tail -1 | awk '{print $2}'", "8192"},
		"sysctl":           {[]string{"--sysctl", "net.ipv4.ip_unprivileged_port_start=81"}, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "81"},
		"low ports":        {[]string{"-u", "app"}, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0"},
		"add host":         {[]string{"--add-host", "harbour:192.0.2.7"}, "grep harbour /etc/hosts", "192.0.2.7\tharbour"},
		"dns":              {[]string{"--dns", "192.0.2.53", "--dns-search", "sea.example"}, "grep -E '^(nameserver|search)' /etc/resolv.conf | sort", "nameserver 192.0.2.53\nsearch sea.example"},
		"entrypoint":       {[]string{"--entrypoint", "/bin/echo"}, "", "-c"},
		"uts host":         {[]string{"--uts", "host"}, "hostname", hostname()},
		"pid host":         {[]string{"--pid", "host"}, "test $$ -gt 1 && echo outside", "outside"},
		"oom score":        {[]string{"--oom-score-adj", "500"}, "cat /proc/self/oom_score_adj", "500"},
		"labels":           {[]string{"-l", "a=b"}, "echo ok", "ok"},
		"domain":           {[]string{"--domainname", "sea.example", "-h", "boat"}, "cat /proc/sys/kernel/domainname", "sea.example"},
		"network none":     {[]string{"--network", "none"}, "ls /sys/class/net", "lo"},
		"mac":              {[]string{"--mac-address", "02:42:ac:11:aa:bb"}, "cat /sys/class/net/eth0/address", "02:42:ac:11:aa:bb"},
		"home of root":     {nil, "echo $HOME", "/root"},
		"home of app":      {[]string{"-u", "app"}, "echo $HOME", "/home/app"},
		"sys is read only": {nil, "touch /sys/x 2>/dev/null || echo refused", "refused"},
		"cgroup read only": {nil, "mkdir /sys/fs/cgroup/x 2>/dev/null || echo refused", "refused"},
		// The least that the API takes is enough to start and to work with.
		"little memory":           {[]string{"-m", "6m", "--memory-swap", "6m"}, "head -c 1m /dev/zero | wc -c; " + limit, "1048576\n6291456"},
		"little memory, and init": {[]string{"-m", "6m", "--memory-swap", "6m", "--init"}, "head -c 1m /dev/zero | wc -c; " + limit, "1048576\n6291456"},
		"memory and swap":         {[]string{"-m", "32m", "--memory-swap", "32m"}, limit, "33554432"},
		"pids limit":              {[]string{"--pids-limit", "20"}, "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max", "20"},
		"cpus":                    {[]string{"--cpus", "0.5"}, "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max", "50000"},
		"cpu shares":              {[]string{"-c", "512"}, "cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null || echo 512", "512"},
		"cpuset":                  {[]string{"--cpuset-cpus", "0"}, "grep Cpus_allowed_list /proc/self/status", "Cpus_allowed_list:\t0"},
	}
	for label, tt := range tests {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			d.Both(t, func(t *testing.T, cli testenv.CLI) {
				args := append([]string{"run", "--rm"}, tt.options...)
				args = append(args, image)
				if label != "entrypoint" {
					args = append(args, "sh")
				}
				equal(t, "output", cli.OK(t, append(args, "-c", tt.command)...), tt.want)
			})
		})
	}
}

func hostname() string {
	h, err := os.Hostname()
	if err != nil {
		return err.Error()
	}
	return h
}

func TestRunExitCodes(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		cli.Fails(t, 42, "", "run", "--rm", image, "sh", "-c", "exit 42")
		cli.Fails(t, 137, "", "run", "--rm", "--init", image, "sh", "-c", "kill -9 $$")
		cli.Fails(t, 127, "no such file", "run", "--rm", image, "/no/such/program")
		cli.Fails(t, 127, "not found", "run", "--rm", image, "nosuchprogram")
		cli.Fails(t, 126, "permission denied", "run", "--rm", image, "/etc/passwd")
		cli.Fails(t, 125, "unknown flag", "run", "--no-such-flag", image)
		cli.Fails(t, 125, "", "run", "--rm", "--memory", "1k", image, "true")
		cli.Fails(t, 125, "unable to find", "run", "--rm", testenv.Registry(t).Addr()+"/nosuch", "true")
	})
}

func TestRunLeavesNothingAfterFailure(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	for range 3 {
		n := name(t)
		cli.Fails(t, 127, "", "run", "--rm", "--name", n, image, "/no/such/program")
		cli.Fails(t, 1, "no such", "inspect", n)
	}
}

func TestRunHello(t *testing.T) {
	t.Parallel()
	d := shared(t)
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		out := cli.OK(t, "run", "--rm", "hello")
		contains(t, "hello", out, "Hello from Wherry!")
		contains(t, "hello", out, "process 1 in")
	})
}

func TestRunNamesAndFiles(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n := name(t)
		cid := filepath.Join(t.TempDir(), "cid")
		id := cli.OK(t, "run", "-d", "--name", n, "--cidfile", cid, "--label", "who="+n, image, "sleep", "1000")
		defer cli.OK(t, "rm", "-f", n)
		data, err := os.ReadFile(cid)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "cidfile", string(data), id)
		equal(t, "ps by label", cli.OK(t, "ps", "--no-trunc", "-q", "--filter", "label=who="+n), id)
		equal(t, "ps by name", cli.OK(t, "ps", "--format", "{{.Names}} {{.Image}} {{.State}}", "--filter", "name="+n), n+" "+image+" running")
		equal(t, "inspect", cli.OK(t, "inspect", "-f", "{{.Name}} {{.State.Status}} {{.State.Running}} {{.Config.Image}}", n), "/"+n+" running true "+image)
		cli.Fails(t, 125, "already in use", "run", "--name", n, image)
		equal(t, "prefix", cli.OK(t, "inspect", "-f", "{{.Id}}", id[:8]), id)
	})
}

func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	n := name(t)
	cli.Fails(t, 137, "", "run", "--name", n, "-m", "16m", "--memory-swap", "16m", image, "sh", "-c", "tail /dev/zero")
	defer cli.OK(t, "rm", "-f", n)
	equal(t, "state", cli.OK(t, "inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", n), "true 137")
}

func TestNamespacesOfOthers(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		n := name(t)
		id := detached(t, cli, "--name", n, "--ipc", "shareable", image, "sleep", "1000")
		ip := cli.OK(t, "exec", n, "hostname", "-i")
		equal(t, "network", cli.OK(t, "run", "--rm", "--network", "container:"+n, image, "hostname", "-i"), ip)
		contains(t, "pid", cli.OK(t, "run", "--rm", "--pid", "container:"+n, image, "ps"), "sleep 1000")
		ipc := cli.OK(t, "exec", n, "readlink", "/proc/self/ns/ipc")
		equal(t, "ipc", cli.OK(t, "run", "--rm", "--ipc", "container:"+n, image, "readlink", "/proc/self/ns/ipc"), ipc)
		if !strings.HasPrefix(id, cli.OK(t, "run", "--rm", "--network", "container:"+n, image, "hostname")) {
			t.Errorf("a container in another's network has a host name of its own")
		}
	})
}
