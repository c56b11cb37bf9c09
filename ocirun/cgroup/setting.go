package cgroup

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// setting is one value for one file.
type setting struct {
	controller string // v1 controller; unused on v2
	file       string
	value      string
	// late settings would slow down or break the setting up of the container
	// itself; they are made just before the user's program runs.
	late bool
	// fallback is another name of the file on other kernels, with a value of its
	// own if that differs.
	fallback      string
	fallbackValue string
	// needs is what a device lacks for which the kernel does not support this.
	needs string
	// optional files are there on some kernels only, besides another one.
	optional bool
}

// Limits are resources taken apart into files, not written yet.
type Limits struct {
	host     *Host
	path     string
	settings []setting
	devices  []specs.LinuxDeviceCgroup
}

// Limits translates resources for the cgroup. InvalidArgument or
// NotImplemented if they cannot be expressed on this host.
func (h *Host) Limits(path string, res *specs.LinuxResources) (*Limits, error) {
	l := &Limits{host: h, path: path}
	if res == nil {
		return l, nil
	}
	l.devices = res.Devices
	var err error
	if h.V2 {
		l.settings, err = settingsV2(h, path, res)
	} else {
		l.settings, err = settingsV1(h, path, res)
	}
	return l, err
}

// Early writes what may be written while the container is being set up.
func (l *Limits) Early() error { return l.apply(false) }

// Late writes the rest: process count, processor time and devices.
func (l *Limits) Late() error {
	if err := l.apply(true); err != nil {
		return err
	}
	if len(l.devices) == 0 {
		return nil
	}
	if l.host.V2 {
		return setDevicesV2(l.host.Unified().Dir(l.path), l.devices)
	}
	hi := l.host.V1("devices")
	if hi == nil {
		return fmt.Errorf("device rules: the devices cgroup is not mounted: %w", errdefs.ErrNotImplemented)
	}
	return setDevicesV1(hi.Dir(l.path), l.devices)
}

// Update writes everything but devices to a running container.
func (l *Limits) Update() error {
	if err := l.apply(false); err != nil {
		return err
	}
	return l.apply(true)
}

// apply writes the settings in order. Some are valid only together with one
// that follows, such as a period that is below the old quota: those refused as
// invalid are written once more at the end.
func (l *Limits) apply(late bool) error {
	var again []*setting
	for i := range l.settings {
		s := &l.settings[i]
		if s.late != late {
			continue
		}
		err := l.set(s)
		if errors.Is(err, unix.EINVAL) {
			again = append(again, s)
			continue
		}
		if err != nil {
			return err
		}
	}
	for _, s := range again {
		if err := l.set(s); err != nil {
			return err
		}
	}
	return nil
}

func (l *Limits) set(s *setting) error {
	hi := l.host.Unified()
	if !l.host.V2 {
		if hi = l.host.V1(s.controller); hi == nil {
			return fmt.Errorf("set %s: the %s cgroup is not mounted: %w", s.file, s.controller, errdefs.ErrNotImplemented)
		}
	}
	dir := hi.Dir(l.path)
	err := write(dir, s.file, s.value)
	if s.fallback != "" && errors.Is(err, fs.ErrNotExist) {
		err = write(dir, s.fallback, cmp.Or(s.fallbackValue, s.value))
	}
	if s.needs != "" && errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("the device has not %s, which a weight of its own needs: %w: %w", s.needs, err, errdefs.ErrNotImplemented)
	}
	if s.optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, gone := os.Stat(dir); gone != nil {
		return fmt.Errorf("set %s: cgroup %s: %w", s.file, l.path, errdefs.ErrNotFound)
	}
	return fmt.Errorf("set %s: this kernel has no such limit: %w", s.file, errdefs.ErrNotImplemented)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// checkKey refuses a file name that leaves the cgroup, and files of the cgroup
// itself that are no limits: processes are not put there, or killed, this way.
func checkKey(key string) error {
	if key == "" || strings.Contains(key, "/") || !strings.Contains(key, ".") {
		return invalid("unified resource %q is not a cgroup file", key)
	}
	if strings.HasPrefix(key, "cgroup.") && !strings.HasPrefix(key, "cgroup.max.") {
		return invalid("unified resource %q is not a limit", key)
	}
	return nil
}
