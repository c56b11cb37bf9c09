package build

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/task"
)

// defaultHostname is what BuildKit calls its steps.
const defaultHostname = "buildkitsandbox"

func hostname(meta executor.Meta) string {
	if meta.Hostname != "" {
		return meta.Hostname
	}
	return defaultHostname
}

// networkFiles are the paths of a step's /etc/hosts and /etc/resolv.conf.
type networkFiles struct{ hosts, resolv string }

// writeNetworkFiles makes the files that are mounted into the step.
func writeNetworkFiles(dir string, meta executor.Meta, box network.Sandbox) (networkFiles, error) {
	f := networkFiles{hosts: filepath.Join(dir, "hosts"), resolv: filepath.Join(dir, "resolv.conf")}
	var hosts bytes.Buffer
	hosts.WriteString("127.0.0.1\tlocalhost " + hostname(meta) + "\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, line := range box.Hosts {
		hosts.WriteString(line + "\n")
	}
	for _, h := range meta.ExtraHosts {
		fmt.Fprintf(&hosts, "%s\t%s\n", h.IP, h.Host)
	}
	resolv := box.ResolvConf
	if len(resolv) == 0 {
		var err error
		if resolv, err = os.ReadFile("/etc/resolv.conf"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return f, err
		}
	}
	// 0644: the step's user reads them.
	return f, errors.Join(os.WriteFile(f.hosts, hosts.Bytes(), 0o644), os.WriteFile(f.resolv, resolv, 0o644))
}

// envDefaults are the variables an exec gets when its caller set none.
func envDefaults(meta executor.Meta) []string {
	if slices.ContainsFunc(meta.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		return nil
	}
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
}

// taskRoot translates a snapshotter's mounts.
func taskRoot(ms []mount.Mount) (task.Root, error) {
	if len(ms) != 1 {
		return task.Root{}, fmt.Errorf("a root of %d mounts is not supported", len(ms))
	}
	m, r := ms[0], task.Root{}
	for _, o := range m.Options {
		key, val, _ := strings.Cut(o, "=")
		switch key {
		case "lowerdir":
			r.Layers = strings.Split(val, ":")
		case "upperdir":
			r.Upper = val
		case "workdir":
			r.Work = val
		case "ro":
			r.ReadOnly = true
		case "rw", "rbind", "bind":
		default:
			r.Options = append(r.Options, o)
		}
	}
	switch m.Type {
	case "overlay":
	case "bind":
		r.Bind = m.Source
	default:
		return task.Root{}, fmt.Errorf("a root of type %q is not supported", m.Type)
	}
	return r, nil
}

// unmountBelow detaches every mount below dir, deepest first.
func unmountBelow(dir string) error {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			points = append(points, f[4])
		}
	}
	slices.SortFunc(points, func(a, b string) int { return len(b) - len(a) })
	var errs []error
	for _, p := range points {
		errs = append(errs, os.NewSyscallError("umount "+p, unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)))
	}
	return errors.Join(errs...)
}
