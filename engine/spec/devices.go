package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	apicontainer "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CheckDevice checks a --device before anything is made. InvalidArgument.
func CheckDevice(d apicontainer.DeviceMapping) error {
	if d.PathOnHost == "" {
		return invalid("invalid device: the path on the host is empty")
	}
	if strings.HasPrefix(d.PathOnHost, "vendor") && strings.Contains(d.PathOnHost, "=") {
		return invalid("CDI device %q cannot be injected", d.PathOnHost)
	}
	for _, c := range d.CgroupPermissions {
		if !strings.ContainsRune("rwm", c) {
			return invalid("invalid device mode: %s", d.CgroupPermissions)
		}
	}
	if d.PathInContainer != "" && !filepath.IsAbs(d.PathInContainer) {
		return invalid("invalid device path in the container: %q is not absolute", d.PathInContainer)
	}
	return nil
}

// CheckUlimit checks one limit. InvalidArgument.
func CheckUlimit(u *units.Ulimit) error {
	if u == nil {
		return invalid("invalid ulimit: null")
	}
	if _, err := u.GetRlimit(); err != nil {
		return invalid("%v", err)
	}
	if u.Hard != -1 && u.Soft > u.Hard {
		return invalid("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
	}
	return nil
}

// defaultDeviceRules are the cgroup's rules: nothing but the harmless ones.
func defaultDeviceRules() []specs.LinuxDeviceCgroup {
	dev := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
		if major >= 0 {
			r.Major = &major
		}
		if minor >= 0 {
			r.Minor = &minor
		}
		return r
	}
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		dev("c", -1, -1, "m"), dev("b", -1, -1, "m"),
		dev("c", 1, 5, "rwm"),    // zero
		dev("c", 1, 3, "rwm"),    // null
		dev("c", 1, 9, "rwm"),    // urandom
		dev("c", 1, 8, "rwm"),    // random
		dev("c", 1, 7, "rwm"),    // full
		dev("c", 5, 0, "rwm"),    // tty
		dev("c", 5, 1, "rwm"),    // console
		dev("c", 5, 2, "rwm"),    // ptmx
		dev("c", 136, -1, "rwm"), // pts
	}
}

// ParseDeviceRule reads a --device-cgroup-rule such as "c 7:* rwm". InvalidArgument.
func ParseDeviceRule(rule string) (specs.LinuxDeviceCgroup, error) {
	bad := invalid("invalid device cgroup rule format: '%s'", rule)
	fields := strings.Fields(rule)
	if len(fields) != 3 || len(fields[0]) != 1 || !strings.Contains("acb", fields[0]) {
		return specs.LinuxDeviceCgroup{}, bad
	}
	if fields[2] == "" || strings.Trim(fields[2], "rwm") != "" || len(fields[2]) > 3 {
		return specs.LinuxDeviceCgroup{}, bad
	}
	major, minor, ok := strings.Cut(fields[1], ":")
	if !ok {
		return specs.LinuxDeviceCgroup{}, bad
	}
	r := specs.LinuxDeviceCgroup{Allow: true, Type: fields[0], Access: fields[2]}
	for _, part := range []struct {
		text string
		dst  **int64
	}{{major, &r.Major}, {minor, &r.Minor}} {
		if part.text == "*" {
			continue
		}
		n, err := strconv.ParseUint(part.text, 10, 32)
		if err != nil {
			return specs.LinuxDeviceCgroup{}, bad
		}
		v := int64(n)
		*part.dst = &v
	}
	return r, nil
}

// addDevices adds a --device: a device, or every device below a directory.
func addDevices(s *specs.Spec, d apicontainer.DeviceMapping) error {
	inside := d.PathInContainer
	if inside == "" {
		inside = d.PathOnHost
	}
	access := d.CgroupPermissions
	if access == "" {
		access = "rwm"
	}
	host, err := filepath.EvalSymlinks(d.PathOnHost)
	if err != nil {
		return deviceError(d.PathOnHost, err)
	}
	info, err := os.Stat(host)
	if err != nil {
		return deviceError(d.PathOnHost, err)
	}
	if !info.IsDir() {
		return addDevice(s, host, inside, access)
	}
	found := false
	err = filepath.WalkDir(host, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeDevice == 0 {
			return nil //nolint:nilerr // unreadable entries are not devices to give
		}
		rel, err := filepath.Rel(host, path)
		if err != nil {
			return err
		}
		found = true
		return addDevice(s, path, filepath.Join(inside, rel), access)
	})
	if err == nil && !found {
		return deviceError(d.PathOnHost, errors.New("no device below it"))
	}
	return err
}

func deviceError(path string, err error) error {
	return invalid("error gathering device information while adding custom device %q: %v", path, err)
}

func addDevice(s *specs.Spec, host, inside, access string) error {
	var st unix.Stat_t
	if err := unix.Stat(host, &st); err != nil {
		return deviceError(host, err)
	}
	dev := specs.LinuxDevice{
		Path: inside, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		UID: &st.Uid, GID: &st.Gid,
	}
	mode := fs.FileMode(st.Mode & 0o7777)
	dev.FileMode = &mode
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		dev.Type = "c"
	case unix.S_IFBLK:
		dev.Type = "b"
	default:
		return deviceError(host, errors.New("not a device node"))
	}
	s.Linux.Devices = append(s.Linux.Devices, dev)
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
		Allow: true, Type: dev.Type, Major: &dev.Major, Minor: &dev.Minor, Access: access,
	})
	return nil
}

// allHostDevices gives a privileged container what is in the host's /dev.
func allHostDevices(s *specs.Spec) error {
	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	err := filepath.WalkDir("/dev", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // vanished
		}
		if e.IsDir() {
			switch path {
			case "/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/.lxc", "/dev/.lxd-mounts", "/dev/.udev":
				return fs.SkipDir
			}
			return nil
		}
		if e.Type()&fs.ModeDevice == 0 || path == "/dev/console" || path == "/dev/ptmx" || path == "/dev/tty" {
			return nil
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil {
			return nil
		}
		n := len(s.Linux.Resources.Devices)
		err = addDevice(s, path, path, "rwm")
		s.Linux.Resources.Devices = s.Linux.Resources.Devices[:n]
		return err
	})
	if err != nil {
		return fmt.Errorf("list the host's devices: %w", err)
	}
	return nil
}
