package netns

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/network/rtnl"
)

// Peer is the name of the first interface in a new namespace.
const Peer = "eth0"

// NS is a namespace that is set up and ready for use: loopback is up, the
// preset sysctls are written, and a veth pair leads out of it.
type NS struct {
	File *os.File
	// Link speaks route netlink inside.
	Link *rtnl.Conn
	// Host is the name, HostIndex the index of the pair's end in the host;
	// PeerIndex is that of Peer inside.
	Host                 string
	HostIndex, PeerIndex int
}

// Close gives up the namespace. Its links vanish with it.
func (n *NS) Close() error {
	return errors.Join(n.Link.Close(), n.File.Close())
}

// make makes a namespace on the calling thread, which must be locked, and
// returns to home. A bare one has no veth pair.
func (p *Pool) make(home *os.File, bare bool) (ns *NS, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	ns, err = p.furnish()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		if ns != nil {
			err = errors.Join(err, ns.Close())
		}
		return nil, errors.Join(err, fmt.Errorf("%w: %w", errLost, back))
	}
	if err != nil || bare {
		return ns, err
	}
	if err := p.connect(ns); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// Furnish sets a namespace up that others have made: as Take returns one, or as
// Bare does. The file stays the caller's.
func (p *Pool) Furnish(ns *os.File, bare bool) (out *NS, err error) {
	err = Do(ns, func() (err error) {
		out, err = p.furnish()
		return err
	})
	if err != nil || bare {
		return out, err
	}
	if err := p.connect(out); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

// furnish sets up the namespace of the calling thread.
func (p *Pool) furnish() (*NS, error) {
	f, err := Open()
	if err != nil {
		return nil, err
	}
	link, err := rtnl.Dial()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	var b rtnl.Batch
	b.Up("lo")
	err = link.Do(&b)
	for k, v := range p.o.Sysctls {
		if e := Sysctl(k, v); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return nil, errors.Join(err, link.Close(), f.Close())
	}
	return &NS{File: f, Link: link}, nil
}

// connect makes the veth pair.
func (p *Pool) connect(ns *NS) error {
	host, hostIndex, peerIndex, err := AddVeth(p.host, ns.Link, ns.File, Peer, p.o.Alias, p.o.MTU)
	if err != nil {
		return err
	}
	ns.Host, ns.HostIndex, ns.PeerIndex = host, hostIndex, peerIndex
	return nil
}

// AddVeth makes a veth pair between host and the namespace, both ends up, so
// that a bridge forwards from the moment it gets one. It returns the
// name and index of the end in the host, and the index of the one inside.
func AddVeth(host, inside *rtnl.Conn, ns *os.File, peer, alias string, mtu int) (name string, hostIndex, peerIndex int, err error) {
	name = VethName()
	var b, in rtnl.Batch
	b.AddVeth(name, alias, peer, int(ns.Fd()), mtu)
	if err := host.Do(&b); err != nil {
		var undo rtnl.Batch
		undo.DelLinkByName(name)
		_ = host.Do(&undo)
		return "", 0, 0, err
	}
	in.Up(peer)
	theirs, err := inside.Ask(&in, peer)
	if err != nil {
		return "", 0, 0, err
	}
	ours, err := host.LinkByName(name)
	return name, ours.Index, theirs.Index, err
}

// VethPrefix begins the name of every veth end in the host.
const VethPrefix = "wh"

// VethName makes up a name: the prefix and ten digits.
func VethName() string {
	var r [5]byte
	_, _ = rand.Read(r[:]) // never fails
	return VethPrefix + hex.EncodeToString(r[:])
}
