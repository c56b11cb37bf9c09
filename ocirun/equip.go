package ocirun

import (
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/netdev"
	"github.com/wherry-engine/wherry/ocirun/rdt"
)

// rdtGroup of a container; nil if its specification has no intelRdt.
func rdtGroup(id string, l *specs.Linux) (*rdt.Group, error) {
	if l.IntelRdt == nil {
		return nil, nil
	}
	root, err := rdt.Mount()
	if err != nil {
		return nil, err
	}
	return rdt.New(root, id, l.IntelRdt)
}

// enterRdt moves a process into the container's class of service.
func enterRdt(id string, l *specs.Linux, pid int) error {
	g, err := rdtGroup(id, l)
	if g == nil || err != nil {
		return err
	}
	return g.Enter(pid)
}

// DeleteRdt removes what linux.intelRdt made for a container alone.
func DeleteRdt(id string, spec *specs.Spec) error {
	g, err := rdtGroup(id, spec.Linux)
	if g == nil || err != nil {
		return err
	}
	return g.Delete()
}

// UpdateRdt changes the schemata of a container's class of service; what is ""
// stays. FailedPrecondition if the container has none.
func UpdateRdt(id string, spec *specs.Spec, l3Cache, memBw string) error {
	g, err := rdtGroup(id, spec.Linux)
	if err != nil {
		return err
	}
	if g == nil {
		return fmt.Errorf("the container was created without intelRdt: %w", errdefs.ErrFailedPrecondition)
	}
	return g.Update(l3Cache, memBw)
}

// equip gives an init that waits for its configuration what comes from the
// host: its class of service and network devices.
func equip(req *CreateRequest, s *spawned) error {
	if err := enterRdt(req.ID, req.Spec.Linux, s.pid); err != nil {
		return err
	}
	if len(req.Spec.Linux.NetDevices) == 0 {
		return nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.pid))
	if err != nil {
		return fmt.Errorf("network devices: %w", err)
	}
	defer ns.Close()
	from, err := netdev.Open()
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := netlinkIn(ns)
	if err != nil {
		return err
	}
	defer to.Close()
	return netdev.Move(from, to, int(ns.Fd()), req.Spec.Linux.NetDevices)
}

// netlinkIn opens a socket in another network namespace, on a thread that does
// not come back.
func netlinkIn(ns *os.File) (*netdev.Socket, error) {
	type result struct {
		s   *netdev.Socket
		err error
	}
	ch := make(chan result, 1)
	go disposable(func() {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			ch <- result{nil, fmt.Errorf("enter the network namespace: %w", err)}
			return
		}
		s, err := netdev.Open()
		ch <- result{s, err}
	})
	res := <-ch
	return res.s, res.err
}
