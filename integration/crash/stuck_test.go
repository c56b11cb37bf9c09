package crash

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// TestStuckProcess removes containers with a process that no signal reaches: the
// answer comes soon and names it, also after a start of the daemon, and the
// removal is finished when the kernel lets go.
func TestStuckProcess(t *testing.T) {
	testenv.NeedsRoot(t)
	testenv.Bin(t, "wherryd")
	disk := newDisk(t, filepath.Join(t.TempDir(), "disk"), 16<<20)
	d := testenv.Start(t, testenv.Options{})
	t.Cleanup(disk.thaw) // before the daemon is closed
	cli := d.Wherry(t)
	image := d.Image(t, "busybox")
	const write = "while :; do echo x >>/disk/$NAME; done"
	names := map[string]string{"init": write, "child": "(" + write + ") & sleep 1000"}
	for name, script := range names {
		cli.OK(t, "run", "-d", "--name", name, "-e", "NAME="+name, "-v", disk.dir+":/disk", image, "sh", "-c", script)
		testenv.Eventually(t, name+" writes", func() bool {
			st, err := os.Stat(filepath.Join(disk.dir, name))
			return err == nil && st.Size() > 0
		})
	}
	disk.freeze()
	for name := range names {
		testenv.Eventually(t, name+" hangs", func() bool {
			return strings.Contains(cli.OK(t, "top", name, "-o", "stat,comm"), "D ")
		})
	}
	is := func(name string) string {
		return cli.OK(t, "ps", "-a", "--filter", "name=^"+name+"$", "--format", "{{.Status}}")
	}
	const text = `("sh") is in uninterruptible sleep`
	cli.Fails(t, 1, text, "stop", "-t", "1", "init")
	for name := range names {
		cli.Fails(t, 1, text, "rm", "-f", name)
		if got := is(name); got != "Removal In Progress" {
			t.Errorf("%s meanwhile: %q", name, got)
		}
		cli.Fails(t, 1, "already in progress", "rm", "-f", name)
	}
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := d.Launch(); err != nil {
		t.Fatal(err)
	}
	for name := range names {
		if got := is(name); got != "Removal In Progress" {
			t.Errorf("%s after a start of the daemon: %q", name, got)
		}
	}
	disk.thaw()
	for name := range names {
		testenv.Eventually(t, name+" is removed", func() bool { return is(name) == "" })
		cli.OK(t, "create", "--name", name, image) // nothing of it is left in the way
	}
}
