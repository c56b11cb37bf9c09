package supervisor

import (
	"encoding/json"
	"fmt"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/task"
)

// bigRequest is a start request of the size of a usual container's.
func bigRequest() (request, seccomp []byte) {
	profile := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	for i := range 30 {
		rule := specs.LinuxSyscall{Action: specs.ActAllow}
		for j := range 14 {
			rule.Names = append(rule.Names, fmt.Sprintf("some_system_call_%d_%d", i, j))
		}
		profile.Syscalls = append(profile.Syscalls, rule)
	}
	req := task.StartRequest{Version: 1, ID: "x", Spec: &specs.Spec{Process: &specs.Process{Args: []string{"a", "b"}}, Linux: &specs.Linux{}}}
	for i := range 20 {
		req.Spec.Mounts = append(req.Spec.Mounts, specs.Mount{Destination: fmt.Sprintf("/some/where/%d", i), Type: "bind", Source: "/a/b/c/d/e", Options: []string{"nosuid", "noexec"}})
		req.Spec.Process.Env = append(req.Spec.Process.Env, fmt.Sprintf("VARIABLE_%d=value", i))
	}
	request, _ = json.Marshal(req)
	seccomp, _ = json.Marshal(profile)
	return request, seccomp
}

func BenchmarkLoadRequest(b *testing.B) {
	j, err := openJournal(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	request, seccomp := bigRequest()
	b.Logf("%d and %d bytes", len(request), len(seccomp))
	cache := newProfileCache()
	b.Run("save", func(b *testing.B) {
		for b.Loop() {
			if err := j.saveRequest("x", request, seccomp); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if _, err := j.loadRequest("x", cache.decode); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := decodeStart(request, seccomp, cache.decode); err != nil {
				b.Fatal(err)
			}
		}
	})
}
