package systemd

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Unit is the scope of one container.
type Unit struct {
	// Name, such as "docker-1234.scope".
	Name string
	// Slice it is in, such as "system.slice".
	Slice string
}

// Parse reads a cgroupsPath of the form SLICE:PREFIX:NAME; "" for one is the
// default. InvalidArgument.
func Parse(cgroupsPath, id string) (Unit, error) {
	slice, prefix, name := "", "wherry", id
	if cgroupsPath != "" {
		f := strings.Split(cgroupsPath, ":")
		if len(f) != 3 {
			return Unit{}, fmt.Errorf("cgroupsPath %q is not SLICE:PREFIX:NAME, as the systemd driver wants it: %w", cgroupsPath, errdefs.ErrInvalidArgument)
		}
		slice, prefix, name = f[0], f[1], f[2]
	}
	if slice == "" {
		slice = "system.slice"
	}
	u := Unit{Name: name + ".scope", Slice: slice}
	if prefix != "" {
		u.Name = prefix + "-" + u.Name
	}
	if strings.HasSuffix(name, ".slice") {
		return u, fmt.Errorf("cgroupsPath %q: a slice has no processes of its own: %w", cgroupsPath, errdefs.ErrNotImplemented)
	}
	if name == "" || strings.ContainsAny(u.Name+slice, "/ \n") {
		return u, fmt.Errorf("cgroupsPath %q: bad name of a unit: %w", cgroupsPath, errdefs.ErrInvalidArgument)
	}
	_, err := u.Cgroup()
	return u, err
}

// Cgroup is the path of the unit below the hierarchies' mount points: a-b.slice
// is inside a.slice (systemd.slice(5)).
func (u Unit) Cgroup() (string, error) {
	name, ok := strings.CutSuffix(u.Slice, ".slice")
	if !ok || name == "" {
		return "", fmt.Errorf("%q is not the name of a slice: %w", u.Slice, errdefs.ErrInvalidArgument)
	}
	dir := "/"
	if name != "-" {
		prefix := ""
		for part := range strings.SplitSeq(name, "-") {
			if part == "" {
				return "", fmt.Errorf("%q is not the name of a slice: %w", u.Slice, errdefs.ErrInvalidArgument)
			}
			prefix += part
			dir = path.Join(dir, prefix+".slice")
			prefix += "-"
		}
	}
	return path.Join(dir, u.Name), nil
}

// Start makes the unit with a process in it and waits until it is there.
// Unavailable without systemd.
func (u Unit) Start(pid int, properties []Property) error {
	b, err := connect()
	if err != nil {
		return err
	}
	defer b.close()
	properties, err = b.known(properties)
	if err != nil {
		return err
	}
	all := append([]Property{
		{"Description", "container " + strings.TrimSuffix(u.Name, ".scope")},
		{"Slice", u.Slice},
		{"Delegate", true}, // what is inside is ours
		{"PIDs", []uint32{uint32(pid)}},
		{"CPUAccounting", true}, {"MemoryAccounting", true}, {"TasksAccounting", true}, {"IOAccounting", true},
		{"DefaultDependencies", false},
		{"CollectMode", "inactive-or-failed"}, // nobody looks at one that failed
	}, properties...)
	err = u.start(b, all)
	var e *Error
	if errors.As(err, &e) && e.Name == "org.freedesktop.systemd1.UnitExists" {
		// One that failed stays until somebody looks at it.
		if _, rerr := b.manager("ResetFailedUnit", u.Name); rerr == nil {
			err = u.start(b, all)
		}
	}
	if err != nil {
		return fmt.Errorf("start unit %s: %w", u.Name, err)
	}
	return nil
}

// known leaves out what an older systemd would refuse, and does not touch.
func (b *bus) known(properties []Property) ([]Property, error) {
	if !slices.Contains(properties, idle) {
		return properties, nil
	}
	version, err := b.version()
	if err != nil || version >= 252 {
		return properties, err
	}
	return slices.DeleteFunc(slices.Clone(properties), func(p Property) bool { return p == idle }), nil
}

// version of systemd, such as 252.
func (b *bus) version() (int, error) {
	body, err := b.call(managerName, managerPath, "org.freedesktop.DBus.Properties", "Get", managerInterface, "Version")
	if err != nil {
		return 0, err
	}
	if _, err := body.signature(); err != nil { // the type of a variant
		return 0, err
	}
	text, err := body.text()
	if err != nil {
		return 0, err
	}
	digits := text[:len(text)-len(strings.TrimLeft(text, "0123456789"))]
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("systemd has an unknown version %q: %w", text, err)
	}
	return n, nil
}

func (u Unit) start(b *bus, properties []Property) error {
	body, err := b.manager("StartTransientUnit", u.Name, "replace", properties, aux{})
	if err != nil {
		return err
	}
	job, err := body.text()
	if err != nil {
		return err
	}
	return b.await(job)
}

// Set changes properties of a running unit.
func Set(unit string, properties []Property) error {
	if len(properties) == 0 {
		return nil
	}
	b, err := connect()
	if err != nil {
		return err
	}
	defer b.close()
	if properties, err = b.known(properties); err != nil {
		return err
	}
	if _, err := b.manager("SetUnitProperties", unit, true, properties); err != nil {
		return fmt.Errorf("change unit %s: %w", unit, err)
	}
	return nil
}

// Stop ends a unit and forgets it. It is not an error if it is gone.
func Stop(unit string) error {
	b, err := connect()
	if err != nil {
		return err
	}
	defer b.close()
	body, err := b.manager("StopUnit", unit, "replace")
	if err == nil {
		var job string
		if job, err = body.text(); err == nil {
			err = b.await(job)
		}
	}
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop unit %s: %w", unit, err)
	}
	if _, err := b.manager("ResetFailedUnit", unit); err != nil && !gone(err) {
		return fmt.Errorf("forget unit %s: %w", unit, err)
	}
	return nil
}

func gone(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Name == "org.freedesktop.systemd1.NoSuchUnit"
}
