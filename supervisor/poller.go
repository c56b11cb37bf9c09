package supervisor

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller waits for descriptors on behalf of objects that have no goroutine of
// their own: an idle container costs an entry here and nothing more. Each
// registration reports once and is quiet until rearmed.
type poller struct {
	epfd int
	file *os.File // of epfd, through which Go's own poller waits

	mu    sync.Mutex
	next  uint64
	slots map[uint64]func(events uint32)
}

// token names a registration; 0 is none.
type token uint64

func newPoller() (*poller, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(epfd, true); err != nil {
		return nil, errors.Join(err, unix.Close(epfd))
	}
	return &poller{epfd: epfd, file: os.NewFile(uintptr(epfd), "epoll"), slots: map[uint64]func(uint32){}}, nil
}

// run dispatches until close; each event runs in a goroutine of its own, which
// ends when the object has nothing left to do.
func (p *poller) run() error {
	rc, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 64)
	for {
		var n int
		var perr error
		err := rc.Read(func(uintptr) bool {
			n, perr = unix.EpollWait(p.epfd, events, 0)
			return n != 0 && perr != syscall.EINTR
		})
		if err != nil {
			if errors.Is(err, os.ErrClosed) {
				return nil
			}
			return err
		}
		if perr != nil {
			return perr
		}
		p.dispatch(events[:n])
	}
}

func (p *poller) dispatch(events []unix.EpollEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range events {
		t := uint64(uint32(events[i].Fd)) | uint64(uint32(events[i].Pad))<<32
		if f := p.slots[t]; f != nil {
			go f(events[i].Events)
		}
	}
}

// add watches fd. EPOLLHUP and EPOLLERR are always reported.
func (p *poller) add(fd int, mask uint32, ready func(events uint32)) (token, error) {
	p.mu.Lock()
	p.next++
	t := p.next
	p.slots[t] = ready
	p.mu.Unlock()
	err := unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, fd, event(mask, t))
	if err != nil {
		p.forget(token(t))
		return 0, err
	}
	return token(t), nil
}

// rearm makes a registration that has reported report again.
func (p *poller) rearm(fd int, t token, mask uint32) error {
	return unix.EpollCtl(p.epfd, unix.EPOLL_CTL_MOD, fd, event(mask, uint64(t)))
}

// remove ends a registration; call it before closing fd.
func (p *poller) remove(fd int, t token) {
	if t == 0 {
		return
	}
	_ = unix.EpollCtl(p.epfd, unix.EPOLL_CTL_DEL, fd, nil)
	p.forget(t)
}

func (p *poller) forget(t token) {
	p.mu.Lock()
	delete(p.slots, uint64(t))
	p.mu.Unlock()
}

func event(mask uint32, t uint64) *unix.EpollEvent {
	return &unix.EpollEvent{Events: mask | unix.EPOLLONESHOT, Fd: int32(uint32(t)), Pad: int32(uint32(t >> 32))}
}
