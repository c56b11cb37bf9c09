package spec

import (
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/blkiodev"
	apicontainer "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/container"
)

func build(t *testing.T, h apicontainer.HostConfig, mounts ...specs.Mount) *specs.Spec {
	t.Helper()
	h.CgroupnsMode = apicontainer.CgroupnsModePrivate
	h.IpcMode = apicontainer.IPCModePrivate
	sec, err := ParseSecurity(h.SecurityOpt)
	if err != nil {
		t.Fatal(err)
	}
	h.MaskedPaths, h.ReadonlyPaths = Paths(h.Privileged, sec.Unmask, nil, nil)
	s, err := Build(Input{
		Container: &container.Spec{Config: &apicontainer.Config{Cmd: []string{"true"}, Hostname: "h"}, HostConfig: &h},
		Mounts:    mounts,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDefaults(t *testing.T) {
	s := build(t, apicontainer.HostConfig{})
	if s.Linux.Seccomp == nil || len(s.Linux.MaskedPaths) == 0 || len(s.Linux.ReadonlyPaths) == 0 {
		t.Error("an ordinary container is not confined")
	}
	if len(s.Process.Capabilities.Inheritable) != 0 || len(s.Process.Capabilities.Ambient) != 0 {
		t.Error("capabilities are inherited")
	}
	if first := s.Linux.Resources.Devices[0]; first.Allow || first.Access != "rwm" {
		t.Errorf("the first device rule is %+v", first)
	}
	var types []string
	for _, ns := range s.Linux.Namespaces {
		types = append(types, string(ns.Type))
	}
	if diff := cmp.Diff([]string{"mount", "network", "uts", "pid", "ipc", "cgroup"}, types); diff != "" {
		t.Errorf("namespaces (-want +got):\n%s", diff)
	}
	if build(t, apicontainer.HostConfig{}).Linux.Seccomp != s.Linux.Seccomp {
		t.Error("the filter is resolved again for the same capabilities")
	}
}

func TestPrivileged(t *testing.T) {
	s := build(t, apicontainer.HostConfig{Privileged: true})
	if s.Linux.Seccomp != nil || len(s.Linux.MaskedPaths) != 0 {
		t.Error("a privileged container is confined")
	}
	for _, m := range s.Mounts {
		if m.Destination == "/sys" && slices.Contains(m.Options, "ro") {
			t.Error("/sys is read-only")
		}
	}
}

func TestCapabilities(t *testing.T) {
	for _, tc := range []struct {
		name      string
		add, drop []string
		has, not  string
	}{
		{"default", nil, nil, "CAP_CHOWN", "CAP_SYS_ADMIN"},
		{"added", []string{"sys_admin"}, nil, "CAP_SYS_ADMIN", "CAP_NET_ADMIN"},
		{"all but", []string{"ALL"}, []string{"CAP_CHOWN"}, "CAP_KILL", "CAP_CHOWN"},
		{"nothing but", []string{"kill"}, []string{"ALL"}, "CAP_KILL", "CAP_CHOWN"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := build(t, apicontainer.HostConfig{CapAdd: tc.add, CapDrop: tc.drop})
			caps := s.Process.Capabilities.Bounding
			if slices.Contains(known(), tc.has) && !slices.Contains(caps, tc.has) || slices.Contains(caps, tc.not) {
				t.Errorf("capabilities: %v", caps)
			}
		})
	}
}

func TestMountsReplaceDefaults(t *testing.T) {
	s := build(t, apicontainer.HostConfig{}, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/x"})
	n := 0
	for _, m := range s.Mounts {
		if m.Destination == "/dev/shm" {
			n++
		}
	}
	if n != 1 || s.Mounts[len(s.Mounts)-1].Source != "/x" {
		t.Errorf("%d mounts of /dev/shm", n)
	}
}

func TestMergeEnv(t *testing.T) {
	got := MergeEnv([]string{"A=1", "B=2", "C=3"}, []string{"B=x", "C", "D=4", "E"})
	if diff := cmp.Diff([]string{"A=1", "B=x", "D=4"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDeviceRule(t *testing.T) {
	for rule, ok := range map[string]bool{
		"c 7:* rwm": true, "b *:* m": true, "a *:* rwm": true, "c 1:3 r": true,
		"": false, "c 7 rwm": false, "x 1:1 r": false, "c 1:1 rx": false, "c -1:1 r": false, "c 1:1 rwmr": false,
	} {
		if _, err := ParseDeviceRule(rule); (err == nil) != ok {
			t.Errorf("%q: %v", rule, err)
		}
	}
}

// TestBlockDevices: numbers of a character device would limit another device.
func TestBlockDevices(t *testing.T) {
	for _, path := range []string{"/dev/null", "/nonexistent", "/"} {
		limits := []*blkiodev.ThrottleDevice{{Path: path, Rate: 1}}
		if _, err := Resources(&apicontainer.Resources{BlkioDeviceReadBps: limits}); !errdefs.IsInvalidArgument(err) {
			t.Error(path, err)
		}
	}
}
