// Package timerslack keeps the Go run-time's monitor thread from waking more
// often than it is of use, and what this process starts from noticing.
//
// While anything runs, the monitor looks every 20 µs, 75 with the kernel's usual
// slack, whether a thread is stuck in a system call, which is a sixth of all the
// processor time of a busy engine. With some milliseconds of slack it looks that
// often: as long may a goroutine have to wait for a processor that such a thread
// holds. Three milliseconds more make no difference to a burst of containers,
// but one that is run alone is 4 % faster.
package timerslack

import (
	"os"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// In ns.
const (
	normal  = 50_000 // the kernel's default
	relaxed = 4_000_000
)

// Relax gives the monitor thread of this process more slack. It is the first
// thread that a Go program starts; were another taken for it, that one's timers
// would be late. Threads inherit slack from those that start them, and the monitor
// starts some: see Reset. Nothing depends on success.
func Relax() {
	dirs, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	pid := os.Getpid()
	var later, wrapped []int
	for _, d := range dirs {
		switch tid, err := strconv.Atoi(d.Name()); {
		case err != nil || tid == pid:
		case tid > pid:
			later = append(later, tid)
		default:
			wrapped = append(wrapped, tid)
		}
	}
	slices.Sort(later)
	slices.Sort(wrapped)
	set(pid, normal)
	for i, tid := range append(later, wrapped...) {
		if i == 0 {
			set(tid, relaxed)
		} else {
			set(tid, normal)
		}
	}
}

func set(tid, ns int) {
	f, err := os.OpenFile("/proc/"+strconv.Itoa(tid)+"/timerslack_ns", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString(strconv.Itoa(ns))
}

// Reset gives the calling thread the kernel's default, for a goroutine that is
// locked to its thread and will start or become another program: that is to have
// no more slack than anywhere else.
func Reset() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, normal, 0, 0, 0) }

// Start calls start, which starts a program, with the kernel's default.
func Start(start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	Reset()
	return start()
}
