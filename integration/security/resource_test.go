package security

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// samples is how often each request is timed: the median of so many is steady.
const samples = 25

// pace is the median time of requests elsewhere: listing, and executing in a
// container that has nothing to do with the attack.
type pace struct{ list, exec time.Duration }

// measure takes a pace; every request must succeed, however long it takes.
func measure(t *testing.T, d *testenv.Daemon, bystander string) pace {
	t.Helper()
	var list, exec []time.Duration
	cli := d.Wherry(t)
	for range samples {
		begin := time.Now()
		d.API(t, 200, "GET", "/containers/json?all=1", "")
		list = append(list, time.Since(begin))
		begin = time.Now()
		if r := cli.Try(t, "exec", bystander, "/bin/true"); r.Code != 0 {
			t.Errorf("exec elsewhere: %s", r.All())
		}
		exec = append(exec, time.Since(begin))
	}
	return pace{median(list), median(exec)}
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// TestResourceAttacks lets containers use up whatever they can reach. The engine
// answers others meanwhile, every time, and `rm -f` ends each attack. The times
// are printed, not asserted: a machine may be busy with other things. The aim is
// at most three times the quiet ones.
func TestResourceAttacks(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	bystander := cli.OK(t, "run", "-d", "probe", "/probe", "sleep")
	t.Cleanup(func() { cli.Try(t, "rm", "-f", bystander) })
	measure(t, d, bystander) // warm
	quiet := measure(t, d, bystander)
	t.Logf("quiet: ps %s, exec %s", quiet.list, quiet.exec)
	for label, tt := range map[string]struct {
		options []string
		command []string
		ready   bool // it says so
		exec    int  // exit code of an exec in the attacker, -1 for any
	}{
		"fork bomb":                    {[]string{"--pids-limit", "200", "-m", "256m", "--cpus", "1"}, []string{"forks"}, true, -1},
		"full pids cgroup":             {[]string{"--pids-limit", "10", "-m", "256m", "--cpus", "0.5"}, []string{"forks"}, true, -1},
		"memory bomb":                  {[]string{"-m", "32m", "--memory-swap", "32m", "--cpus", "1"}, []string{"memory"}, true, -1},
		"memory bomb as init":          {[]string{"-m", "16m", "--memory-swap", "16m", "--cpus", "1", "--restart", "always"}, []string{"memory", "child"}, false, -1},
		"descriptor exhaustion":        {[]string{"--ulimit", "nofile=10000", "-m", "256m"}, []string{"files"}, true, 0},
		"deaf to signals":              {nil, []string{"deaf"}, true, 0},
		"deaf behind the init":         {[]string{"--init"}, []string{"deaf"}, true, 0},
		"floods stdout, nobody reads":  {[]string{"--cpus", "0.5", "--log-opt", "max-size=1m"}, []string{"flood"}, false, 0},
		"floods stdout without a log":  {[]string{"--cpus", "0.5", "--log-driver", "none"}, []string{"flood"}, false, 0},
		"floods its terminal":          {[]string{"-t", "--cpus", "0.5", "--log-opt", "max-size=1m"}, []string{"flood"}, false, 0},
		"closes its streams":           {nil, []string{"silent"}, true, 0},
		"restarts as fast as it may":   {[]string{"--restart", "always"}, []string{"nothing"}, false, -1},
		"frozen":                       {nil, []string{"sleep"}, false, 1},
		"exchanges names all the time": {[]string{"--cpus", "0.5"}, nil, true, 0},
	} {
		t.Run(label, func(t *testing.T) {
			command := append([]string{"/probe"}, tt.command...)
			if tt.command == nil {
				command = []string{"/bin/sh", "-c", "mkdir /tmp/a /tmp/b; exec /probe swap /tmp/a /tmp/b"}
			}
			args := append(append([]string{"--network", "none"}, tt.options...), "probe")
			id := cli.OK(t, append(append([]string{"run", "-d"}, args...), command...)...)
			t.Cleanup(func() { cli.Try(t, "rm", "-f", id) })
			if tt.ready {
				testenv.Eventually(t, "the attack runs", func() bool { return strings.Contains(cli.OK(t, "logs", id), "ready") })
			}
			if label == "frozen" {
				cli.OK(t, "pause", id)
			}
			// A client that attaches and never reads.
			if strings.HasPrefix(label, "floods") {
				defer stalled(t, cli, "attach", "--no-stdin", "--sig-proxy=false", id)()
				defer stalled(t, cli, "logs", "-f", id)()
			}
			now := measure(t, d, bystander)
			t.Logf("ps %s (%.1f×), exec elsewhere %s (%.1f×)", now.list, ratio(now.list, quiet.list), now.exec, ratio(now.exec, quiet.exec))
			r := cli.Try(t, "exec", id, "/bin/true")
			if tt.exec >= 0 && r.Code != tt.exec {
				t.Errorf("exec in it: %d %s", r.Code, r.All())
			}
			for _, args := range [][]string{{"inspect", id}, {"logs", "--tail", "2", id}, {"top", id}} {
				cli.Try(t, args...)
			}
			d.API(t, 200, "GET", "/containers/"+id+"/stats?stream=false&one-shot=true", "")
			begin := time.Now()
			cli.OK(t, "rm", "-f", id)
			t.Logf("rm -f: %s", time.Since(begin).Round(time.Millisecond))
			cli.Fails(t, 1, "no such", "inspect", id)
		})
	}
	after := measure(t, d, bystander)
	t.Logf("afterwards: ps %s (%.1f×), exec %s (%.1f×)", after.list, ratio(after.list, quiet.list), after.exec, ratio(after.exec, quiet.exec))
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }

// stalled starts a client whose output nobody reads; the returned function ends it.
func stalled(t *testing.T, cli testenv.CLI, args ...string) func() {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := cli.Command(ctx, args...)
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		cancel()
		_ = cmd.Wait()
		_ = errorsOf(r.Close(), w.Close())
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestStopDeaf stops what does not listen, and all attackers at once.
func TestStopDeaf(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	id := background(t, cli, "probe", "/probe", "deaf")
	cli.OK(t, "stop", "-t", "1", id)
	contains(t, "exit code", cli.OK(t, "inspect", "-f", "{{.State.ExitCode}}", id), "137")
	var ids []string
	for i := range 6 {
		attack := []string{"forks", "memory", "files", "deaf", "flood", "silent"}[i]
		ids = append(ids, cli.OK(t, "run", "-d", "--network", "none", "--pids-limit", "50", "-m", "32m", "--cpus", "0.3", "probe", "/probe", attack))
	}
	cli.OK(t, append([]string{"rm", "-f"}, ids...)...)
	out := cli.OK(t, "ps", "-aq", "--no-trunc")
	for _, id := range ids {
		lacks(t, "containers that are left", out, id)
	}
}

// TestHostileCgroups executes in and removes containers that have made their
// control groups and mounts a mess, as far as a privileged one can.
func TestHostileCgroups(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	for label, script := range map[string]string{
		"nested groups":   `for c in /sys/fs/cgroup /sys/fs/cgroup/*; do test -d $c || continue; p=$c; for i in 1 2 3 4 5 6 7 8; do p=$p/x$i; mkdir -p $p 2>/dev/null; done; sh -c "echo \$\$ >$p/cgroup.procs; exec /probe sleep" 2>/dev/null & done`,
		"many groups":     `for i in $(find /bin | head -200); do mkdir /sys/fs/cgroup/pids/g${i##*/} /sys/fs/cgroup/g${i##*/} 2>/dev/null; done`,
		"frozen inside":   `mkdir -p /sys/fs/cgroup/freezer/f 2>/dev/null && { sh -c 'echo $$ >/sys/fs/cgroup/freezer/f/cgroup.procs; exec /probe sleep' & } ; sleep 0.2; echo FROZEN >/sys/fs/cgroup/freezer/f/freezer.state; mkdir -p /sys/fs/cgroup/f && echo 1 >/sys/fs/cgroup/f/cgroup.freeze`,
		"over the groups": `mount -t tmpfs none /sys/fs/cgroup`,
		"over proc":       `mount -t tmpfs none /proc`,
		"over dev":        `mount -t tmpfs none /dev`,
		"root moved":      `mkdir -p /n/old; mount -t tmpfs none /n; mkdir -p /n/bin /n/proc; cp /bin/busybox /n/bin/; ln -s busybox /n/bin/true; ln -s busybox /n/bin/sh; mount --bind / /n/proc`,
		"many mounts":     `mkdir /m; for i in $(find /bin | head -200); do mount -t tmpfs none /m; done`,
		"shared mounts":   `mount --make-rshared / 2>/dev/null; mkdir /m; mount --bind / /m`,
		"no limits":       `echo -1 >/sys/fs/cgroup/pids/pids.max; echo 1 >/sys/fs/cgroup/memory/memory.oom_control`,
	} {
		t.Run(label, func(t *testing.T) {
			id := background(t, cli, "--privileged", "--network", "none", "--pids-limit", "300", "-m", "64m", "probe", "/bin/sh", "-c", "("+script+") 2>/tmp/err; echo ready; exec /probe sleep")
			r := cli.Try(t, "exec", id, "/bin/busybox", "true")
			t.Logf("exec: %d %.200s", r.Code, r.All())
			if r.Code != 0 {
				t.Errorf("exec: %s", r.All())
			}
			r = cli.Try(t, "exec", "-t", id, "/bin/busybox", "true")
			t.Logf("exec -t: %d %.200s", r.Code, r.All())
			for _, args := range [][]string{{"top", id}, {"pause", id}, {"unpause", id}, {"update", "-m", "65m", "--memory-swap", "130m", id}} {
				if r := cli.Try(t, args...); r.Code != 0 {
					t.Logf("%s: %.200s", args[0], r.All())
				}
			}
			d.API(t, 200, "GET", "/containers/"+id+"/stats?stream=false&one-shot=true", "")
			_, body := getArchive(t, d, id, "/etc/passwd")
			contains(t, "cp", body, "root:x:0:0")
			cli.OK(t, "rm", "-f", id)
		})
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), fmt.Sprintf(" %s/m", d.ExecRoot)) {
		t.Error("mounts have come out")
	}
}
