// Package entry is where programs that live for a few milliseconds begin: on one
// processor, for the threads they would start for others cost them a tenth of
// their time, and with timers that may be late: whoever starts another program
// uses [github.com/wherry-engine/wherry/internal/timerslack]. Where there is no
// such entry (entry_*.s), programs begin as any other.
package entry

import (
	"os"
	"runtime"
	"sync/atomic"
)

// processors is the variable that says how many run Go code, taken is its value
// if the entry has set it. Whoever starts the program would not write it so.
const (
	processors = "GOMAXPROCS"
	taken      = "01"
)

var one atomic.Bool // it began on one

// Hide keeps what the entry did from programs that this one starts.
func Hide() {
	if os.Getenv(processors) == taken {
		_ = os.Unsetenv(processors)
		one.Store(true)
	}
}

// AllProcessors undoes what the entry did, for a program that has more to do.
func AllProcessors() {
	if Hide(); one.Swap(false) {
		runtime.GOMAXPROCS(runtime.NumCPU())
	}
}

// GrowStack makes the stack as large as most commands need, while there is next
// to nothing on it: growing it by and by means to look up every function on it.
//
//go:noinline
func GrowStack() byte {
	var room [24 << 10]byte
	return room[len(os.Args)]
}
