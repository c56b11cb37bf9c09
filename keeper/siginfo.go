package keeper

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfoPid reads si_pid, the first member of the union that follows three
// ints (and padding to a pointer's alignment) in siginfo_t.
func siginfoPid(info *unix.Siginfo) int {
	const word = unsafe.Sizeof(uintptr(0))
	const union = (3*4 + word - 1) / word * word
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), union)))
}
