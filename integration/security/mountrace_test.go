package security

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// racer starts a container that prepares the volume at /v by a shell script
// and then exchanges pairs of names in it for as long as the test runs.
func racer(t *testing.T, cli testenv.CLI, volume, prepare string, pairs ...string) {
	t.Helper()
	background(t, cli, "-v", volume+":/v", "probe", "/bin/sh", "-ec", "cd /v; "+prepare+"; exec /probe swap "+strings.Join(pairs, " "))
}

// volume makes one that is removed at the end.
func volume(t *testing.T, cli testenv.CLI) string {
	t.Helper()
	name := unique("race")
	cli.OK(t, "volume", "create", name)
	t.Cleanup(func() { cli.Try(t, "volume", "rm", "-f", name) })
	return name
}

// rounds is how often each race is run. A round takes some 20 ms, and a race
// that can be won is won within a few: see each test's mutation in its comment.
const rounds = 10

// TestMountTargetRace exchanges every special path of a starting container with
// a symbolic link to the host, in a volume that an attacker shares with it
// (CVE-2019-19921, CVE-2021-30465, CVE-2023-27561, CVE-2023-28642,
// CVE-2024-45310): whatever wins, what is mounted, made or
// opened stays inside.
func TestMountTargetRace(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	// link makes a directory (or file) and a link to the canary that change places.
	const link = "mkdir -p x; ln -sfn %[1]s l"
	tests := map[string]struct {
		prepare string // %[1]s is the canary's directory
		pairs   []string
		victim  []string // %[1]s is the volume
	}{
		"CVE-2021-30465 volume below a volume": {link, []string{"x", "l"}, []string{"-v", "%[1]s:/data", "-v", "/data/x/anon/deep"}},
		"CVE-2021-30465 tmpfs below a volume":  {link, []string{"x", "l"}, []string{"-v", "%[1]s:/data", "--tmpfs", "/data/x/tmpfs/deep"}},
		"CVE-2023-28642 file below a volume":   {link, []string{"x", "l"}, []string{"-v", "%[1]s:/data", "-v", "/etc/hostname:/data/x/made/file"}},
		"CVE-2024-45310 empty files and directories": {link + "; mkdir -p x/a; ln -sfn ../../../../..%[1]s/dir x/b", []string{"x", "l", "x/a", "x/b"},
			[]string{"-v", "%[1]s:/data", "-v", "/data/x/a/new/dir", "-v", "/etc/hostname:/data/x/a/new/file"}},
		"working directory": {link, []string{"x", "l"}, []string{"-v", "%[1]s:/data", "-w", "/data/x/work/dir"}},
		"device":            {link, []string{"x", "l"}, []string{"-v", "%[1]s:/data", "--device", "/dev/zero:/data/x/made/zero"}},
		"/etc": {"echo x >f; ln -sfn %[1]s/hosts l1; echo x >g; ln -sfn %[1]s/hostname l2; echo x >h; ln -sfn %[1]s/missing l3; cp f hosts; cp g hostname; cp h resolv.conf",
			[]string{"hosts", "l1", "hostname", "l2", "resolv.conf", "l3"}, []string{"-v", "%[1]s:/etc"}},
		"/etc itself": {"mkdir -p etc; ln -sfn %[1]s l", []string{"etc", "l"}, []string{"-v", "%[1]s:/data", "-v", "/etc/hostname:/data/etc/hostname", "-v", "/etc/hosts:/data/etc/made"}},
		"/dev": {"mkdir -p pts shm mqueue; : >console; : >null; : >zero; ln -sfn %[1]s/dir l1; ln -sfn %[1]s/dir l2; ln -sfn %[1]s/made l3; ln -sfn %[1]s/console l4; ln -sfn %[1]s/null l5",
			[]string{"pts", "l1", "shm", "l2", "mqueue", "l3", "console", "l4", "null", "l5"}, []string{"-v", "%[1]s:/dev"}},
	}
	for label, tt := range tests {
		t.Run(label, func(t *testing.T) {
			canary, v := newCanary(t), volume(t, cli)
			racer(t, cli, v, fmt.Sprintf(tt.prepare, canary.dir), prefixed("/v/", tt.pairs)...)
			args := []string{"run", "--rm"}
			for _, a := range tt.victim {
				args = append(args, strings.ReplaceAll(a, "%[1]s", v))
			}
			args = append(args, "probe", "/probe", "read", "/etc/hosts", "/etc/hostname", "/data/x/secret", "/data/x/a/secret", "/dev/console", "/proc/self/mountinfo")
			started := 0
			for range rounds {
				r := cli.Try(t, args...)
				canary.notIn(t, label, r.All())
				if r.Code == 0 {
					started++
				}
			}
			t.Logf("%d of %d started", started, rounds)
			if started == 0 {
				t.Errorf("none started, the test shows nothing: %s", cli.Try(t, args...).All())
			}
		})
	}
}

func prefixed(prefix string, names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = prefix + n
	}
	return out
}

// TestVolumeSubpathRace exchanges the part of a volume that another container
// mounts with a link to the host (the class of CVE-2021-25741).
func TestVolumeSubpathRace(t *testing.T) {
	t.Run("built-in", func(t *testing.T) { subpathRace(t, shared(t)) })
	t.Run("runc", func(t *testing.T) {
		testenv.NeedsRoot(t)
		runc := testenv.NeedsProgram(t, "runc")
		d := testenv.Start(t, testenv.Options{Args: []string{"--add-runtime", "other=" + runc, "--default-runtime", "other"}})
		image(t, d, "probe", "")
		// It would follow a path.
		d.Wherry(t).Fails(t, 125, "a part of a volume with another runtime", "run", "--rm", "--mount", "type=volume,src=other-sub,dst=/part,volume-subpath=.", "probe", "/bin/true")
	})
}

func subpathRace(t *testing.T, d *testenv.Daemon) {
	cli := d.Wherry(t)
	for label, mode := range map[string]string{"last component": "sub", "parent": "p/sub"} {
		t.Run(label, func(t *testing.T) {
			canary, v := newCanary(t), volume(t, cli)
			pairs := []string{"/v/sub", "/v/l"}
			if mode == "p/sub" {
				pairs = []string{"/v/p", "/v/l"}
			}
			racer(t, cli, v, fmt.Sprintf("mkdir -p sub p/sub; echo mine >sub/secret; echo mine >p/sub/secret; ln -sfn %s l", canary.dir), pairs...)
			started := 0
			for range 3 * rounds {
				r := cli.Try(t, "run", "--rm", "--network", "none", "--mount", "type=volume,src="+v+",dst=/part,volume-subpath="+mode, "probe", "/bin/cat", "/part/secret")
				canary.notIn(t, "mounted", r.All())
				if r.Code == 0 {
					started++
				}
			}
			t.Logf("%d of %d started", started, 3*rounds)
			if started == 0 {
				t.Errorf("none started: the test shows nothing: %s", cli.Try(t, "run", "--rm", "--network", "none", "--mount", "type=volume,src="+v+",dst=/part,volume-subpath=p", "probe", "/bin/true").All())
			}
			id := cli.OK(t, "create", "--mount", "type=volume,src="+v+",dst=/part,volume-subpath="+mode, "probe", "/probe", "sleep")
			t.Cleanup(func() { cli.Try(t, "rm", "-f", id) })
			for range 3 * rounds {
				_, body := getArchive(t, d, id, "/part/secret")
				canary.notIn(t, "copied", body)
			}
		})
	}
}

// TestVolumePopulateRace changes a volume while it is filled from an image: the
// directories that hard links go to, and the nodes that get a mode, become links
// to the host.
func TestVolumePopulateRace(t *testing.T) {
	d := shared(t)
	cli := d.Wherry(t)
	const dirs, names = 4, 400
	files := []file{{name: "data/d0/"}, {name: "data/d0/n0", body: "image's"}}
	var targets []string
	for i := range dirs {
		files = append(files, file{name: fmt.Sprintf("data/d%d/", i)})
		for n := range names {
			if i+n > 0 {
				files = append(files, file{name: fmt.Sprintf("data/d%d/n%d", i, n), typ: '1', link: "data/d0/n0"})
			}
		}
	}
	for n := range names {
		targets = append(targets, fmt.Sprintf("n%d", n))
	}
	for n := range 100 {
		files = append(files, file{name: fmt.Sprintf("data/z%d", n), typ: '6', mode: 0o4777})
	}
	image(t, d, "populate", "{}", files...)
	canary := newCanary(t, targets...)
	full := 0
	for range 8 {
		v := volume(t, cli)
		// The attacker is there first; with "nocopy" the volume stays empty.
		script := "echo ready; while :; do set -- *; test -e \"$1\" && break; done; " + fmt.Sprintf("ln -s %[1]s l; ln -s %[1]s/file f; exec /probe swap", canary.dir)
		for i := range dirs {
			script += fmt.Sprintf(" d%d l", i)
		}
		for n := range 20 {
			script += fmt.Sprintf(" z%d f", n*5)
		}
		id := background(t, cli, "-v", v+":/v:nocopy", "-w", "/v", "probe", "/bin/sh", "-c", script)
		r := cli.Try(t, "run", "--rm", "-v", v+":/data", "populate", "/bin/true")
		cli.OK(t, "rm", "-f", id)
		out := cli.Try(t, "run", "--rm", "-v", v+":/v:nocopy", "probe", "/bin/sh", "-c", "cat /v/d*/n* | sort -u | head -c 4000; find /v | wc -l")
		canary.notIn(t, "hard links in the volume", out.All())
		if r.Code == 0 {
			full++
		}
	}
	t.Logf("%d of 8 volumes were filled all the same", full)
}
