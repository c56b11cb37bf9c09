package integration

import (
	"path/filepath"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

func TestVolumes(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		v := name(t)
		equal(t, "create", cli.OK(t, "volume", "create", "--label", "a=b", v), v)
		defer cli.Try(t, "volume", "rm", "-f", v)
		cli.OK(t, "run", "--rm", "-v", v+":/data", image, "sh", "-c", "echo kept >/data/file")
		equal(t, "kept", cli.OK(t, "run", "--rm", "--mount", "type=volume,src="+v+",dst=/d,readonly", image, "sh", "-c", "cat /d/file; touch /d/x 2>/dev/null || echo refused"), "kept\nrefused")
		equal(t, "on disk", read(t, filepath.Join(cli.OK(t, "volume", "inspect", "-f", "{{.Mountpoint}}", v), "file")), "kept\n")
		user := detached(t, cli, "-v", v+":/data", image, "sleep", "1000")
		cli.Fails(t, 1, "volume is in use", "volume", "rm", v)
		equal(t, "volumes from", cli.OK(t, "run", "--rm", "--volumes-from", user, image, "cat", "/data/file"), "kept")
		cli.OK(t, "rm", "-f", user)
		equal(t, "filter", cli.OK(t, "volume", "ls", "-q", "--filter", "name="+v), v)
		cli.OK(t, "volume", "rm", v)
		cli.Fails(t, 1, "no such volume", "volume", "inspect", v)
	})
}

func TestVolumeIsPopulatedFromImage(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		v := name(t)
		defer cli.Try(t, "volume", "rm", "-f", v)
		equal(t, "copied with its owner", cli.OK(t, "run", "--rm", "-v", v+":/home", image, "sh", "-c", "stat -c %u:%a /home/app"), "1000:755")
		equal(t, "not copied twice", cli.OK(t, "run", "--rm", "-v", v+":/etc", image, "ls", "/etc"), "app\nhostname\nhosts\nresolv.conf")
		empty := name(t)
		defer cli.Try(t, "volume", "rm", "-f", empty)
		equal(t, "nocopy", cli.OK(t, "run", "--rm", "--mount", "type=volume,src="+empty+",dst=/home,volume-nocopy", image, "ls", "/home"), "")
	})
}

func TestAnonymousVolumes(t *testing.T) {
	t.Parallel()
	d := testenv.Start(t, testenv.Options{})
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	count := func() string { return cli.OK(t, "volume", "ls", "-q") }
	cli.OK(t, "run", "--rm", "-v", "/data", image, "touch", "/data/x")
	equal(t, "after run --rm", count(), "")
	cli.OK(t, "run", "--name", "keeps", "-v", "/data", image, "true")
	cli.OK(t, "rm", "keeps")
	if count() == "" {
		t.Error("rm without -v removed the volume")
	}
	cli.OK(t, "volume", "prune", "-f")
	equal(t, "after prune", count(), "")
	cli.OK(t, "run", "--name", "goes", "-v", "/data", image, "true")
	cli.OK(t, "rm", "-v", "goes")
	equal(t, "after rm -v", count(), "")
}

func TestBindMounts(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "file"), "of the host")
		equal(t, "directory", cli.OK(t, "run", "--rm", "-v", dir+":/mnt/deep/er", image, "cat", "/mnt/deep/er/file"), "of the host")
		equal(t, "single file", cli.OK(t, "run", "--rm", "-v", dir+"/file:/etc/motd:ro", image, "sh", "-c", "cat /etc/motd; echo x >/etc/motd 2>/dev/null || echo ' refused'"), "of the host refused")
		cli.OK(t, "run", "--rm", "-v", dir+":/m", image, "sh", "-c", "echo inside >/m/new")
		equal(t, "written", read(t, filepath.Join(dir, "new")), "inside\n")
		cli.OK(t, "run", "--rm", "-v", dir+"/made:/m", image, "true") // -v makes a missing directory
		cli.Fails(t, 125, "does not exist", "run", "--rm", "--mount", "type=bind,src="+dir+"/missing,dst=/m", image, "true")
		cli.Fails(t, 125, "", "run", "--rm", "-v", dir+":relative", image, "true")
		equal(t, "tmpfs mount", cli.OK(t, "run", "--rm", "--mount", "type=tmpfs,dst=/t,tmpfs-size=65536", image, "sh", "-c", "df -k /t | tail -1 | awk '{print $2}'"), "64")
	})
}
