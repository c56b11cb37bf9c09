// Package scope puts the helpers into a systemd scope of their own, so that
// stopping or restarting the daemon's service touches neither them nor the
// containers. Without systemd it does nothing.
package scope

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
)

// systemd's names on the bus (org.freedesktop.systemd1(5)).
const (
	destination = "org.freedesktop.systemd1"
	objectPath  = "/org/freedesktop/systemd1"
	manager     = destination + ".Manager."
)

// Booted reports whether systemd runs this machine (sd_booted(3)).
func Booted() bool {
	fi, err := os.Stat("/run/systemd/system")
	return err == nil && fi.IsDir()
}

// Mover returns what task/remote calls for a new keeper: it moves the keeper
// and what it started into the scope NAME.scope. It is nil if systemd does not
// run this machine.
func Mover(name string) func(ctx context.Context, pid int) error {
	if !Booted() {
		return nil
	}
	return func(ctx context.Context, pid int) error { return move(ctx, name, pid) }
}

type property struct {
	Name  string
	Value dbus.Variant
}

func move(ctx context.Context, name string, pid int) error {
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("connect to systemd: %w", err)
	}
	defer conn.Close()
	unit := name + "-" + strconv.Itoa(pid) + ".scope"
	props := []property{
		{"Description", dbus.MakeVariant("Wherry's helpers: the owners of its containers")},
		{"PIDs", dbus.MakeVariant([]uint32{uint32(pid)})},
		{"Delegate", dbus.MakeVariant(true)},
		{"CollectMode", dbus.MakeVariant("inactive-or-failed")},
	}
	done := make(chan *dbus.Signal, 16)
	conn.Signal(done)
	if err := conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(destination+".Manager"), dbus.WithMatchMember("JobRemoved")); err != nil {
		return fmt.Errorf("watch systemd: %w", err)
	}
	systemd := conn.Object(destination, objectPath)
	var job dbus.ObjectPath
	call := systemd.CallWithContext(ctx, manager+"StartTransientUnit", 0, unit, "fail", props, []struct {
		Name  string
		Props []property
	}{})
	if err := call.Store(&job); err != nil {
		return fmt.Errorf("make %s: %w", unit, err)
	}
	if err := finished(ctx, done, job, unit); err != nil {
		return err
	}
	return follow(ctx, systemd, unit, pid)
}

// finished waits for the job's end.
func finished(ctx context.Context, done <-chan *dbus.Signal, job dbus.ObjectPath, unit string) error {
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("make %s: %w", unit, ctx.Err())
		case s, ok := <-done:
			if !ok {
				return fmt.Errorf("make %s: the connection to systemd broke", unit)
			}
			if len(s.Body) < 4 || s.Body[1] != job {
				continue
			}
			if s.Body[3] != "done" {
				return fmt.Errorf("make %s: systemd says %v", unit, s.Body[3])
			}
			return nil
		}
	}
}

// follow moves what the keeper had started before it was moved itself.
func follow(ctx context.Context, systemd dbus.BusObject, unit string, pid int) error {
	var errs []error
	for _, child := range children(pid) {
		if in(child, unit) {
			continue
		}
		call := systemd.CallWithContext(ctx, manager+"AttachProcessesToUnit", 0, unit, "", []uint32{uint32(child)})
		if call.Err != nil && in(child, "") { // an error of one that has ended is none
			errs = append(errs, fmt.Errorf("move process %d to %s: %w", child, unit, call.Err))
		}
	}
	return errors.Join(errs...)
}

// children lists the direct children of every thread of a process.
func children(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var out []int
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		for s := range strings.FieldsSeq(string(raw)) {
			if n, err := strconv.Atoi(s); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// in reports whether a process is in a control group whose path contains unit.
func in(pid int, unit string) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && bytes.Contains(raw, []byte(unit))
}
