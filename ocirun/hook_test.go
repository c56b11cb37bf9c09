package ocirun

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hook appends its name and where it runs to a file of the host.
func hook(t *testing.T, dir, name, script string) specs.Hook {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte("#!/bin/sh\ncat > "+dir+"/state."+name+"\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return specs.Hook{Path: file, Args: []string{name}, Env: []string{"PATH=/bin:/usr/bin"}}
}

func TestHooks(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	// hostname tells the namespace, /home/app whether the root was entered.
	note := func(name string) string {
		return "echo " + name + " $(hostname) $([ -d /home/app ] && echo inside) >> " + log
	}
	start := filepath.Join(root, "bin/starthook")
	if err := os.WriteFile(start, []byte("#!/bin/sh\necho startContainer $(hostname) $([ -d /home/app ] && echo inside)\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	req := sh(root, "cat /tmp/started; echo program")
	req.Bundle = "/some/bundle"
	req.Spec.Hooks = &specs.Hooks{
		Prestart:        []specs.Hook{hook(t, dir, "prestart", note("prestart"))}, //nolint:staticcheck // still in use
		CreateRuntime:   []specs.Hook{hook(t, dir, "createRuntime", note("createRuntime"))},
		CreateContainer: []specs.Hook{hook(t, dir, "createContainer", note("createContainer"))},
		StartContainer:  []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "/bin/starthook > /tmp/started"}, Env: []string{"PATH=/bin"}}},
	}
	req.ID = testID(t)
	res := mustRun(t, r, req)
	if res.out != "startContainer box inside\nprogram\n" {
		t.Errorf("%+v", res)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(log)
	want := "prestart " + host + "\ncreateRuntime " + host + "\ncreateContainer box\n"
	if diff := cmp.Diff(want, strings.ReplaceAll(string(b), " \n", "\n")); diff != "" {
		t.Error(diff)
	}
	b, err = os.ReadFile(filepath.Join(dir, "state.createRuntime"))
	if err != nil {
		t.Fatal(err)
	}
	var state specs.State
	if err := json.Unmarshal(b, &state); err != nil || state.ID != req.ID || state.Pid == 0 || state.Bundle != "/some/bundle" || state.Status != specs.StateCreating {
		t.Errorf("%s %v", b, err)
	}
}

func TestHookFails(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	dir := t.TempDir()
	second := 1
	for name, hooks := range map[string]*specs.Hooks{
		"createRuntime hook 0":   {CreateRuntime: []specs.Hook{hook(t, dir, "a", "echo because; exit 3")}},
		"createContainer hook 0": {CreateContainer: []specs.Hook{hook(t, dir, "b", "echo because; exit 3")}},
		"did not end within 1 s": {CreateRuntime: []specs.Hook{func() specs.Hook {
			h := hook(t, dir, "c", "sleep 20")
			h.Timeout = &second
			return h
		}()}},
	} {
		req := sh(root, "true")
		req.Spec.Hooks = hooks
		_, err := run(t, r, req)
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(name, "hook") && !strings.Contains(err.Error(), "because") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExtraFiles(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "ls /proc/self/fd; cat <&3; cat <&4")
	for _, text := range []string{"three\n", "four\n"} {
		pr, pw, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer pr.Close()
		if _, err := io.WriteString(pw, text); err != nil {
			t.Fatal(err)
		}
		pw.Close()
		req.ExtraFiles = append(req.ExtraFiles, pr)
	}
	res := mustRun(t, r, req)
	if res.out != "0\n1\n2\n3\n4\n5\nthree\nfour\n" {
		t.Errorf("%+v", res)
	}
}

func TestNoPivot(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	req := sh(root, "ls -d /home/app /proc/1; [ -d /usr ] || echo none")
	req.NoPivot = true
	res := mustRun(t, r, req)
	if res.out != "/home/app\n/proc/1\nnone\n" {
		t.Errorf("%+v", res)
	}
}

// TestPropagation: mounts made in a shared volume appear on the host and are
// gone with the volume's own mount; in a private one they do not.
func TestPropagation(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	for _, mode := range []string{"rshared", "rprivate", "rslave"} {
		dir := t.TempDir()
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		req := sh(root, "mount -t tmpfs tmpfs /vol/sub && touch /vol/sub/file")
		c := req.Spec.Process.Capabilities
		c.Bounding = append(c.Bounding[:len(c.Bounding):len(c.Bounding)], "CAP_SYS_ADMIN")
		c.Permitted, c.Effective = c.Bounding, c.Bounding
		req.Spec.Linux.RootfsPropagation = mode
		req.Spec.Mounts = append(req.Spec.Mounts, specs.Mount{Destination: "/vol", Source: dir, Options: []string{"rbind", mode}})
		if res := mustRun(t, r, req); res.code != 0 {
			t.Errorf("%+v", res)
		}
		_, err := os.Stat(filepath.Join(dir, "sub/file"))
		if seen := err == nil; seen != (mode == "rshared") {
			t.Errorf("%s: seen %v", mode, seen)
		}
		_ = unix.Unmount(filepath.Join(dir, "sub"), unix.MNT_DETACH)
	}
}

// TestProgramIsSealed: nothing a container does to the init's file changes it.
func TestProgramIsSealed(t *testing.T) {
	needsRoot(t)
	name := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(name, []byte("the program"), 0o755); err != nil {
		t.Fatal(err)
	}
	view := func(name string) (*os.File, error) {
		f, mount, err := readOnlyView(name)
		if err == nil {
			t.Cleanup(func() { unix.Close(mount) })
		}
		return f, err
	}
	for way, open := range map[string]func(string) (*os.File, error){"sealed copy": seal, "read-only view": view} {
		t.Run(way, func(t *testing.T) {
			program, err := open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer program.Close()
			if b, err := io.ReadAll(program); err != nil || string(b) != "the program" {
				t.Errorf("%q, %v", b, err)
			}
			f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(program.Fd())), os.O_RDWR, 0)
			if err != nil {
				return // not even opened
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte("x"), 0); err == nil {
				t.Error("the program was written")
			}
			if err := f.Truncate(0); err == nil {
				t.Error("the program was truncated")
			}
		})
	}
}

// TestReaperIsLeftAlone: root of a container changes the file of its reaper, and
// the next container has one nevertheless.
func TestReaperIsLeftAlone(t *testing.T) {
	r := newRuntime(t)
	root := busyboxRoot(t)
	program, err := r.program()
	reaper, rerr := r.reaper()
	if err := errors.Join(err, rerr); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		req := sh(root, "chmod 0 /proc/1/exe 2>&1 | grep -o Read-only; touch -d 2001-01-01 /proc/1/exe 2>&1 | grep -o Read-only; stat -L -c %A /proc/1/exe")
		req.Init = true
		res := mustRun(t, r, req) // also the second time
		if reaper != program && !strings.HasPrefix(res.out, "Read-only\nRead-only\n-rwx") {
			t.Errorf("got %q", res.out)
		}
	}
}

// TestProgramModeIsSealed, too, as far as programs may execute it.
func TestProgramModeIsSealed(t *testing.T) {
	needsRoot(t)
	program, err := seal("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	seals, err := unix.FcntlInt(program.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		t.Fatal(err)
	}
	if seals&unix.F_SEAL_EXEC == 0 {
		t.Skip("this kernel does not seal modes (Linux 6.3)")
	}
	if err := program.Chmod(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("chmod: %v", err)
	}
}

// TestProgramWithoutMode: a copy that nobody may execute any more is replaced.
func TestProgramWithoutMode(t *testing.T) {
	r := newRuntime(t)
	r.noStandby = true
	old, err := r.program()
	if err != nil {
		t.Fatal(err)
	}
	// Nobody may do anything: user, group and others.
	const nobody = "\x02\x00\x00\x00" + "\x01\x00\x00\x00\xff\xff\xff\xff" + "\x04\x00\x00\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
	if err := old.Chmod(0); err != nil {
		if err := unix.Fsetxattr(int(old.Fd()), "system.posix_acl_access", []byte(nobody), 0); err != nil {
			t.Skip("the mode cannot be changed: ", err)
		}
	}
	if res := mustRun(t, r, sh(busyboxRoot(t), "echo ran")); res.out != "ran\n" {
		t.Errorf("got %q", res.out)
	}
	if program, err := r.program(); err != nil || program == old {
		t.Errorf("the program was not replaced: %v", err)
	}
}

// TestProgramReplaced: the view is of the binary that runs, not of one that
// has taken its name meanwhile.
func TestProgramReplaced(t *testing.T) {
	needsRoot(t)
	name := filepath.Join(t.TempDir(), "program")
	for _, text := range []string{"old", "new"} {
		if err := os.WriteFile(name+".tmp", []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		old, err := os.Open(name)
		if err == nil {
			defer old.Close()
		}
		if err := os.Rename(name+".tmp", name); err != nil {
			t.Fatal(err)
		}
		if old == nil {
			continue
		}
		var done sync.WaitGroup
		defer done.Wait()
		program, err := protect("/proc/self/fd/"+strconv.Itoa(int(old.Fd())), &done)
		if err != nil {
			t.Fatal(err)
		}
		defer program.Close()
		if b, err := io.ReadAll(program); err != nil || string(b) != "old" {
			t.Errorf("%q, %v", b, err)
		}
	}
}
