package check

import (
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/wherry-engine/wherry/engine/spec"
	"github.com/wherry-engine/wherry/task"
)

func TestHostConfig(t *testing.T) {
	host := Host{CPUs: 2, Runtimes: map[string]*task.Runtime{"wherry": nil}, LogTypes: []string{"json-file", "local"}}
	limit := int64(1 << 30)
	for _, tc := range []struct {
		name string
		h    apicontainer.HostConfig
		c    apicontainer.Config
		want string // "" is fine
	}{
		{name: "empty"},
		{name: "memory", h: apicontainer.HostConfig{Resources: apicontainer.Resources{Memory: 1 << 20}}, want: "Minimum memory limit allowed is 6MB"},
		{name: "swap alone", h: apicontainer.HostConfig{Resources: apicontainer.Resources{MemorySwap: 1 << 30}}, want: "You should always set the Memory limit"},
		{name: "cpus", h: apicontainer.HostConfig{Resources: apicontainer.Resources{NanoCPUs: 3e9}}, want: "there are only 2 CPUs available"},
		{name: "pids", h: apicontainer.HostConfig{Resources: apicontainer.Resources{PidsLimit: &limit}}, want: "invalid pids limit"},
		{name: "cpuset", h: apicontainer.HostConfig{Resources: apicontainer.Resources{CpusetCpus: "0-"}}, want: "Invalid value 0- for cpuset cpus"},
		{name: "cpuset far", h: apicontainer.HostConfig{Resources: apicontainer.Resources{CpusetCpus: "8000"}}, want: "Requested CPUs are not available"},
		{name: "restart and remove", h: apicontainer.HostConfig{AutoRemove: true, RestartPolicy: apicontainer.RestartPolicy{Name: "always"}}, want: "can't create 'AutoRemove' container with restart policy"},
		{name: "restart unknown", h: apicontainer.HostConfig{RestartPolicy: apicontainer.RestartPolicy{Name: "often"}}, want: "invalid restart policy"},
		{name: "runtime", h: apicontainer.HostConfig{Runtime: "kata"}, want: "unknown or invalid runtime name: kata"},
		{name: "capability", h: apicontainer.HostConfig{CapAdd: []string{"FLY"}}, want: `unknown capability: "FLY"`},
		{name: "capabilities", h: apicontainer.HostConfig{CapAdd: []string{"cap_net_admin", "ALL"}, CapDrop: []string{"chown"}}},
		{name: "security", h: apicontainer.HostConfig{SecurityOpt: []string{"fast=yes"}}, want: "invalid --security-opt 2"},
		{name: "seccomp", h: apicontainer.HostConfig{SecurityOpt: []string{"seccomp={"}}, want: "decoding seccomp profile failed"},
		{name: "gpu", h: apicontainer.HostConfig{Resources: apicontainer.Resources{DeviceRequests: []apicontainer.DeviceRequest{{Driver: "nvidia"}}}}, want: "not supported"},
		{name: "storage", h: apicontainer.HostConfig{StorageOpt: map[string]string{"size": "1G"}}, want: "storage-opt is not supported"},
		{name: "log driver", h: apicontainer.HostConfig{LogConfig: apicontainer.LogConfig{Type: "syslog"}}, want: "no log driver named 'syslog'"},
		{name: "log option", h: apicontainer.HostConfig{LogConfig: apicontainer.LogConfig{Type: "local", Config: map[string]string{"labels": "a"}}}, want: "unknown log opt 'labels'"},
		{name: "sysctl", h: apicontainer.HostConfig{Sysctls: map[string]string{"kernel.panic": "1"}}, want: "sysctl 'kernel.panic' is not allowed"},
		{name: "sysctl of the host", h: apicontainer.HostConfig{NetworkMode: "host", Sysctls: map[string]string{"net.core.somaxconn": "1"}}, want: "not allowed with the host's network"},
		{name: "ulimit", h: apicontainer.HostConfig{Resources: apicontainer.Resources{Ulimits: []*units.Ulimit{{Name: "nofile", Soft: 2, Hard: 1}}}}, want: "ulimit soft limit"},
		{name: "network of a container", h: apicontainer.HostConfig{NetworkMode: "container:x"}, c: apicontainer.Config{Hostname: "h"}, want: "conflicting options: hostname and the network mode"},
		{name: "pid mode", h: apicontainer.HostConfig{PidMode: "container:"}, want: "invalid PID mode"},
		{name: "extra host", h: apicontainer.HostConfig{ExtraHosts: []string{"a:b"}}, want: "invalid IP address in add-host"},
		{name: "extra hosts", h: apicontainer.HostConfig{ExtraHosts: []string{"a:1.2.3.4", "b=[::1]", "c:host-gateway", "d:::1"}}},
		{name: "shm", h: apicontainer.HostConfig{ShmSize: -1}, want: "SHM size can not be less than 0"},
		{name: "cgroup parent", h: apicontainer.HostConfig{Resources: apicontainer.Resources{CgroupParent: "../../x"}}, want: "invalid cgroup parent"},
		{name: "slice", h: apicontainer.HostConfig{Resources: apicontainer.Resources{CgroupParent: "a-b.slice"}}},
		{name: "isolation", h: apicontainer.HostConfig{Isolation: "hyperv"}, want: "invalid isolation"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := HostConfig(&tc.h, &tc.c, host)
			switch {
			case tc.want == "" && err != nil:
				t.Fatal(err)
			case tc.want == "":
			case err == nil:
				t.Fatal("accepted")
			case !strings.Contains(err.Error(), tc.want):
				t.Errorf("%q does not contain %q", err, tc.want)
			case !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err):
				t.Errorf("class of %v", err)
			}
		})
	}
}

func TestUserNS(t *testing.T) {
	host := Host{Runtimes: map[string]*task.Runtime{"wherry": nil, "crun": {Path: "/crun"}}, UserNS: true}
	for _, tc := range []struct {
		name string
		h    apicontainer.HostConfig
		want string // "" is fine
	}{
		{name: "ordinary", h: apicontainer.HostConfig{UTSMode: "host", NetworkMode: "none"}},
		{name: "privileged", h: apicontainer.HostConfig{Privileged: true}, want: "privileged mode is incompatible with user namespaces"},
		{name: "network", h: apicontainer.HostConfig{NetworkMode: "host"}, want: "cannot share the host's network namespace"},
		{name: "pid", h: apicontainer.HostConfig{PidMode: "host"}, want: "cannot share the host PID namespace"},
		{name: "ipc", h: apicontainer.HostConfig{IpcMode: "host"}, want: "cannot share the host's IPC namespace"},
		{name: "runtime", h: apicontainer.HostConfig{Runtime: "crun"}, want: `a user namespace with the runtime "crun" is not supported`},
	} {
		err := UserNS(&tc.h, host)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v", tc.name, err)
		}
		if err := UserNS(&tc.h, Host{Runtimes: host.Runtimes}); err != nil {
			t.Errorf("%s, without the option: %v", tc.name, err)
		}
		tc.h.UsernsMode = "host"
		if err := UserNS(&tc.h, host); err != nil {
			t.Errorf("%s, in the host's: %v", tc.name, err)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, tc := range []struct {
		name string
		c    apicontainer.Config
		ok   bool
	}{
		{"empty", apicontainer.Config{}, true},
		{"relative directory", apicontainer.Config{WorkingDir: "a"}, false},
		{"long directory", apicontainer.Config{WorkingDir: "/" + strings.Repeat("a", 5000)}, false},
		{"NUL in directory", apicontainer.Config{WorkingDir: "/a\x00b"}, false},
		{"line in user", apicontainer.Config{User: "root\nx"}, false},
		{"long user", apicontainer.Config{User: strings.Repeat("a", 300)}, false},
		{"nameless variable", apicontainer.Config{Env: []string{"=a"}}, false},
		{"NUL in argument", apicontainer.Config{Cmd: []string{"a\x00b"}}, false},
		{"line in hostname", apicontainer.Config{Hostname: "a\nb"}, false},
		{"long hostname", apicontainer.Config{Hostname: strings.Repeat("a", 65)}, false},
		{"long domain name", apicontainer.Config{Domainname: strings.Repeat("a", 65)}, false},
		{"signal", apicontainer.Config{StopSignal: "SIGFOO"}, false},
		{"short interval", apicontainer.Config{Healthcheck: &apicontainer.HealthConfig{Interval: time.Nanosecond}}, false},
		{"health type", apicontainer.Config{Healthcheck: &apicontainer.HealthConfig{Test: []string{"EXEC", "a"}}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := Config(&tc.c); (err == nil) != tc.ok {
				t.Errorf("error: %v", err)
			}
		})
	}
}

func TestSignal(t *testing.T) {
	for in, want := range map[string]int{
		"9": 9, "KILL": 9, "sigkill": 9, "SIGTERM": 15, "RTMIN": 34, "RTMIN+3": 37, "RTMAX-1": 63, "64": 64,
		"0": 0, "65": 0, "": 0, "RTMIN+40": 0, "BOGUS": 0, "-1": 0,
	} {
		got, err := Signal(in)
		if (err == nil) != (want != 0) || got != want {
			t.Errorf("%q: %d %v, want %d", in, got, err, want)
		}
	}
}

// TestSlices: with the systemd driver the parent is a slice and no path.
func TestSlices(t *testing.T) {
	host := Host{CPUs: 2, Runtimes: map[string]*task.Runtime{"wherry": nil}, LogTypes: []string{"json-file"}, SystemdCgroup: true}
	for parent, ok := range map[string]bool{"": true, "a.slice": true, "a-b.slice": true, "/a": false, "a": false, ".slice": false, "/a.slice": false, "a.slice:b": false} {
		err := HostConfig(&apicontainer.HostConfig{Resources: apicontainer.Resources{CgroupParent: parent}}, &apicontainer.Config{}, host)
		if ok != (err == nil) || !ok && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", parent, err)
		}
	}
}

// TestLabels: SELinux labels are never taken and ignored where there is SELinux.
func TestLabels(t *testing.T) {
	host := Host{CPUs: 2, Runtimes: map[string]*task.Runtime{"wherry": nil}, LogTypes: []string{"json-file"}}
	for option, ok := range map[string]bool{
		"label=disable": true, "label:disable": true, "disable": true, "label=type:spc_t": !spec.SELinux(), "label=level:s0:c1,c2": !spec.SELinux(),
		"label=spc_t": false, "label=type:": false, "label=disable:": false, "label=kind:x": false,
	} {
		err := HostConfig(&apicontainer.HostConfig{SecurityOpt: []string{option}}, &apicontainer.Config{}, host)
		if ok != (err == nil) || !ok && !errdefs.IsInvalidArgument(err) && !errdefs.IsNotImplemented(err) {
			t.Errorf("%s: %v", option, err)
		}
	}
}
