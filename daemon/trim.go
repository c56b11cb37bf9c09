package daemon

import (
	"bufio"
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// quietTime is how long little must happen before memory is given back.
	quietTime = 20 * time.Second
	// little is what a daemon that does nothing for anybody allocates in that
	// time (bytes).
	little = 512 << 10
)

// trimWhenQuiet gives back what a busy time has left, once it is over.
func trimWhenQuiet(ctx context.Context) {
	tick := time.NewTicker(quietTime)
	defer tick.Stop()
	before, busy := allocated(), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := allocated()
		switch {
		case now-before > little:
			busy = true
		case busy:
			trim()
			busy = false
		}
		before = now
	}
}

// allocated is how much was ever allocated (bytes).
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// trim returns memory to the system.
func trim() {
	debug.FreeOSMemory()
	dropProgram()
}

// dropProgram lets go of the pages of our own program that starting has
// touched, most of them for the last time: what is needed again comes back from
// the page cache, as in any program whose memory was reclaimed.
func dropProgram() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// "from-to perms offset device inode path", proc_pid_maps(5)
		fields := strings.Fields(sc.Text())
		if len(fields) != 6 || fields[5] != exe || strings.Contains(fields[1], "w") {
			continue // pages that can be written hold what the file does not
		}
		from, to, _ := strings.Cut(fields[0], "-")
		a, err1 := strconv.ParseUint(from, 16, 64)
		b, err2 := strconv.ParseUint(to, 16, 64)
		if err1 != nil || err2 != nil || b <= a {
			continue
		}
		p := *(*unsafe.Pointer)(unsafe.Pointer(&a)) // an address, not of Go's memory
		_ = unix.Madvise(unsafe.Slice((*byte)(p), b-a), unix.MADV_DONTNEED)
	}
}
