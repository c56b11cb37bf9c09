package ocirun

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestAppArmor: the profile holds for the program, for an exec by a fresh init
// and for one that is forked by an init standing by.
func TestAppArmor(t *testing.T) {
	r := newRuntime(t)
	if b, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); !strings.HasPrefix(string(b), "Y") {
		t.Skip("this kernel has no AppArmor")
	}
	parser, err := exec.LookPath("apparmor_parser")
	if err != nil {
		t.Skip("needs apparmor_parser")
	}
	name := fmt.Sprintf("wherry-ocirun-test-%d", os.Getpid())
	policy := "profile " + name + " flags=(attach_disconnected,mediate_deleted) {\n file,\n capability,\n mount,\n signal,\n deny /etc/group r,\n}\n"
	load := func(option string) {
		cmd := exec.Command(parser, option, "--skip-cache")
		cmd.Stdin = strings.NewReader(policy)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatal(string(out), err)
		}
	}
	load("--replace")
	t.Cleanup(func() { load("--remove") })
	root := busyboxRoot(t)
	const script = "cat /proc/self/attr/current; cat /etc/group 2>&1"
	want := name + " (enforce)\ncat: can't open '/etc/group': Permission denied\n"
	req := sh(root, script)
	req.Spec.Process.ApparmorProfile = name
	if res := mustRun(t, r, req); res.out != want {
		t.Errorf("create: %+v", res)
	}
	req = sh(root, "exec sleep 60")
	req.Spec.Process.ApparmorProfile = name
	c := start(t, r, req)
	for i := range 4 {
		res, err := execIn(t, r, c, req.Spec, nil, "sh", "-c", script)
		if err != nil || res.out != want {
			t.Errorf("exec %d: %+v %v", i, res, err)
		}
		r.standby.work.Wait()
	}
	if r.standby.used < 3 {
		t.Error("nothing stood by")
	}
}
