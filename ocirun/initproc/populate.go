package initproc

import (
	"bytes"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// heapAhead is how much of the heap that is not used yet is made present (bytes):
// more than one exec needs.
const heapAhead = 256 << 10

// populate makes the pages present that the work to come will touch, while
// nobody waits: of all that an exec costs, first touches are the largest part.
// Failure costs no more than time later. See madvise(2), MADV_POPULATE_READ.
func populate() {
	fd, err := unix.Open("/proc/self/maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	maps := make([]byte, 16<<10)
	n, err := unix.Read(fd, maps)
	if err != nil {
		return
	}
	heap := uintptr(unsafe.Pointer(&maps[0]))
	for line := range bytes.Lines(maps[:n]) {
		// START-END PERMS OFFSET DEVICE INODE [PATH], see proc_pid_maps(5).
		f := bytes.Fields(line)
		if len(f) < 5 {
			continue
		}
		from, to, _ := bytes.Cut(f[0], []byte("-"))
		start, err1 := strconv.ParseUint(string(from), 16, 64)
		end, err2 := strconv.ParseUint(string(to), 16, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		a, size := uintptr(start), uintptr(end-start)
		writable := f[1][1] == 'w'
		switch {
		case string(f[4]) != "0" && f[1][0] == 'r': // of the program
		case writable && a <= heap && heap < a+size:
			ahead := min(heap&^uintptr(unix.Getpagesize()-1)+heapAhead, a+size)
			a, size = ahead-heapAhead, heapAhead
		default:
			continue
		}
		advice := uintptr(unix.MADV_POPULATE_READ)
		if writable {
			advice = unix.MADV_POPULATE_WRITE
		}
		_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, a, size, advice)
	}
}
