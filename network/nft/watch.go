package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// quiet is how long changes are collected before they are looked at.
const quiet = 300 * time.Millisecond

// watcher tells when tables or chains of the process's namespace change. Set
// elements, which change with every container, do not count.
type watcher struct {
	f    *os.File
	fn   func()
	wg   sync.WaitGroup
	dirt chan struct{}
	stop chan struct{}
}

func newWatcher(fn func()) (*watcher, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("watch nftables: %w", err)
	}
	group := uint32(1) << (unix.NFNLGRP_NFTABLES - 1)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: group}); err != nil {
		return nil, errors.Join(fmt.Errorf("watch nftables: %w", err), unix.Close(fd))
	}
	w := &watcher{f: os.NewFile(uintptr(fd), "nftables"), fn: fn, dirt: make(chan struct{}, 1), stop: make(chan struct{})}
	w.wg.Add(2)
	go w.read()
	go w.collect()
	return w, nil
}

func (w *watcher) close() {
	close(w.stop)
	_ = w.f.Close()
	w.wg.Wait()
}

// read marks changes as dirt.
func (w *watcher) read() {
	defer w.wg.Done()
	buf := make([]byte, 64<<10)
	for {
		n, err := w.f.Read(buf)
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return // closed
		}
		if err != nil || matters(buf[:n]) {
			select {
			case w.dirt <- struct{}{}:
			default:
			}
		}
	}
}

// matters reports whether a datagram tells of a table or chain.
func matters(b []byte) bool {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		switch binary.NativeEndian.Uint16(b[4:]) & 0xff {
		case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE:
			return true
		}
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false
}

// collect calls fn when changes have ceased for a moment.
func (w *watcher) collect() {
	defer w.wg.Done()
	for {
		select {
		case <-w.dirt:
		case <-w.stop:
			return
		}
		for settled := false; !settled; {
			select {
			case <-w.dirt:
			case <-time.After(quiet):
				settled = true
			case <-w.stop:
				return
			}
		}
		w.fn()
	}
}
