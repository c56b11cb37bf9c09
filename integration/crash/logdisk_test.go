package crash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// ownDisk is a file system of its own that can be made to hang.
type ownDisk struct {
	t      *testing.T
	dir    string
	frozen bool
}

func newDisk(t *testing.T, dir string, size int64) *ownDisk {
	t.Helper()
	mkfs := testenv.NeedsProgram(t, "mkfs.ext4")
	image := filepath.Join(t.TempDir(), "disk")
	f, err := os.OpenFile(image, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			testenv.Skip(t, fmt.Sprintf("no file system of our own: %s: %v: %s", name, err, out))
		}
	}
	run(mkfs, "-q", "-m", "0", image)
	disk := &ownDisk{t: t, dir: dir}
	if err := os.MkdirAll(disk.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	run("mount", "-o", "loop", image, disk.dir)
	t.Cleanup(func() {
		disk.thaw()
		if err := unix.Unmount(disk.dir, unix.MNT_DETACH); err != nil {
			t.Error("unmount: ", err)
		}
	})
	return disk
}

// fsfreeze of linux/fs.h: _IOWR('X', 119, int) and 120.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

func (l *ownDisk) ioctl(req uint) error {
	f, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetInt(int(f.Fd()), req, 0)
}

// freeze makes every write hang.
func (l *ownDisk) freeze() {
	l.t.Helper()
	if err := l.ioctl(fiFreeze); err != nil {
		l.t.Fatal("freeze: ", err)
	}
	l.frozen = true
}

func (l *ownDisk) thaw() {
	if l.frozen {
		if err := l.ioctl(fiThaw); err != nil {
			l.t.Error("thaw: ", err)
		}
		l.frozen = false
	}
}

// number is what a container wrote into a file last.
func number(path string) int {
	b, _ := os.ReadFile(path)
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// writing floods stdout and keeps count in a file.
const writing = `i=0; while [ ! -e /ctl/stop ]; do i=$((i+1)); head -c 3000 /dev/zero | tr '\0' x; echo " $i"; echo $i >/ctl/$NAME; done; exit 5`

// onLogDisk launches a daemon that has what it keeps of containers, their logs
// above all, on a disk of its own (bytes).
func onLogDisk(t *testing.T, size int64) (*testenv.Daemon, *ownDisk) {
	t.Helper()
	testenv.NeedsRoot(t)
	testenv.Bin(t, "wherryd")
	d, err := testenv.New(testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	disk := newDisk(t, filepath.Join(d.DataRoot, "containers"), size)
	// The daemon is closed before the disk is unmounted.
	t.Cleanup(func() { _ = d.RemoveAll(); _ = d.Stop() })
	if err := d.Launch(); err != nil {
		t.Fatal(err)
	}
	return d, disk
}

// TestLogDiskHangs: containers go on while their logs cannot be written, unless
// they asked for blocking mode, and so does everything else.
func TestLogDiskHangs(t *testing.T) {
	d, disk := onLogDisk(t, 128<<20)
	cli := d.Docker(t)
	image := d.Image(t, "busybox")
	ctl := t.TempDir()
	for name, opts := range map[string][]string{
		"plain": nil, "bounded": {"--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=64k"}, "blocked": {"--log-opt", "mode=blocking"},
	} {
		cli.OK(t, append(append([]string{"run", "-d", "--name", name, "-e", "NAME=" + name, "-v", ctl + ":/ctl"}, opts...), image, "sh", "-c", writing)...)
	}
	count := func(name string) int { return number(filepath.Join(ctl, name)) }
	for _, name := range []string{"plain", "bounded", "blocked"} {
		testenv.Eventually(t, name+" writes", func() bool { return count(name) > 20 })
	}
	disk.freeze()
	frozen := map[string]int{"plain": count("plain"), "bounded": count("bounded")}
	for name, before := range frozen { // more than pipes and queues hold
		testenv.Within(t, testTime, name+" goes on", func() bool { return count(name) > before+400 })
	}
	blocked := count("blocked")
	if n := count("plain"); n > 0 {
		testenv.Within(t, testTime, "plain goes on", func() bool { return count("plain") > n+50 })
	}
	if now := count("blocked"); now != blocked {
		t.Errorf("in blocking mode it went on from %d to %d", blocked, now)
	}
	for _, name := range []string{"plain", "bounded"} {
		testenv.Eventually(t, "inspect tells of "+name, func() bool {
			return strings.Contains(cli.OK(t, "inspect", "-f", "{{.State.Error}}", name), "bytes of output are not in the log")
		})
	}
	if got := cli.OK(t, "exec", "plain", "echo", "answers"); got != "answers" {
		t.Errorf("exec: %q", got)
	}
	if got := cli.OK(t, "ps", "-q"); len(strings.Fields(got)) != 3 {
		t.Errorf("ps: %q", got)
	}
	cli.OK(t, "kill", "bounded") // an end that waits for no log
	if got := cli.OK(t, "wait", "bounded"); got != "137" {
		t.Errorf("wait: %q", got)
	}
	disk.thaw()
	testenv.Eventually(t, "blocked goes on", func() bool { return count("blocked") > blocked+10 })
	if err := os.WriteFile(filepath.Join(ctl, "stop"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := cli.OK(t, "wait", "plain", "blocked"); got != "5\n5" {
		t.Errorf("wait: %q", got)
	}
	for name, whole := range map[string]bool{"plain": false, "bounded": false, "blocked": true} {
		lines, missing := numbered(t, name, cli.Try(t, "logs", name))
		t.Logf("%s: %d lines are in the log, %d bytes missing", name, lines, missing)
		if whole != (missing == 0) {
			t.Errorf("%s: %d bytes missing", name, missing)
		}
	}
	if log := daemonLog(d); !strings.Contains(log, "trouble with a container's log") {
		t.Error("the daemon says nothing of it")
	}
	cli.OK(t, "rm", "-f", "plain", "bounded", "blocked")
}

// testTime is how long a flooding container may take on a busy machine (seconds).
const testTime = 60e9

func daemonLog(d *testenv.Daemon) string {
	b, _ := os.ReadFile(filepath.Join(d.Dir, "log"))
	return string(b)
}

// numbered wants lines in order, with gaps only where the log says so.
func numbered(t *testing.T, name string, r testenv.Result) (lines, missing int) {
	t.Helper()
	for line := range strings.Lines(r.Stderr) {
		var n int
		if _, err := fmt.Sscanf(line, "[wherry] %d bytes of output are missing here", &n); err == nil {
			missing += n
		}
	}
	last, gaps := 0, 0
	for line := range strings.Lines(r.Stdout) {
		text, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.Atoi(number)
		if err != nil || n <= last || len(text) > 3000 {
			continue // cut by a gap
		}
		if n != last+1 {
			gaps++
		}
		last = n
		lines++
	}
	if gaps > 0 && missing == 0 {
		t.Errorf("%s: %d gaps, of which the log says nothing", name, gaps)
	}
	return lines, missing
}

// TestLogDiskFull: the container goes on, what is missing is said.
func TestLogDiskFull(t *testing.T) {
	d, disk := onLogDisk(t, 8<<20)
	cli := d.Docker(t)
	image := d.Image(t, "busybox")
	ctl := t.TempDir()
	cli.OK(t, "run", "-d", "--name", "full", "-e", "NAME=full", "-v", ctl+":/ctl", image, "sh", "-c", writing)
	count := func() int { return number(filepath.Join(ctl, "full")) }
	testenv.Eventually(t, "it writes", func() bool { return count() > 20 })
	filler := filepath.Join(disk.dir, "filler")
	fill(t, filler)
	before := count()
	testenv.Within(t, testTime, "it goes on", func() bool { return count() > before+400 })
	testenv.Eventually(t, "inspect tells", func() bool {
		return strings.Contains(cli.OK(t, "inspect", "-f", "{{.State.Error}}", "full"), "no space left")
	})
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	before = count()
	testenv.Within(t, testTime, "it goes on", func() bool { return count() > before+20 })
	if err := os.WriteFile(filepath.Join(ctl, "stop"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := cli.OK(t, "wait", "full"); got != "5" {
		t.Errorf("wait: %q", got)
	}
	lines, missing := numbered(t, "full", cli.Try(t, "logs", "full"))
	t.Logf("%d lines are in the log, %d bytes missing", lines, missing)
	if missing == 0 {
		t.Error("the log does not say what is missing")
	}
}

// fill leaves no room on a file system.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 64<<10); len(chunk) > 0; {
		if _, err := f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2]
		}
	}
}
