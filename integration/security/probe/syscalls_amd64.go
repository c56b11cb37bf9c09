package main

import "golang.org/x/sys/unix"

// deniedHere are calls that this architecture has from older times.
var deniedHere = []call{
	{"_sysctl", unix.SYS__SYSCTL},
	{"afs_syscall", unix.SYS_AFS_SYSCALL},
	{"create_module", unix.SYS_CREATE_MODULE},
	{"get_kernel_syms", unix.SYS_GET_KERNEL_SYMS},
	{"getpmsg", unix.SYS_GETPMSG},
	{"ioperm", unix.SYS_IOPERM},
	{"iopl", unix.SYS_IOPL},
	{"putpmsg", unix.SYS_PUTPMSG},
	{"query_module", unix.SYS_QUERY_MODULE},
	{"security", unix.SYS_SECURITY},
	{"sysfs", unix.SYS_SYSFS},
	{"tuxcall", unix.SYS_TUXCALL},
	{"uselib", unix.SYS_USELIB},
	{"ustat", unix.SYS_USTAT},
	{"vserver", unix.SYS_VSERVER},
}

// x32 marks a call of the x32 ABI (__X32_SYSCALL_BIT).
const x32 = 0x40000000

// otherABIs makes denied calls by the numbers of the other ABIs that the
// kernel takes from a process of this architecture; number is the error.
func otherABIs() []call {
	_, _, key := unix.RawSyscall6(unix.SYS_KEYCTL|x32, bad, bad, bad, bad, bad, 0)
	out := []call{{"x32 keyctl", uintptr(key)}}
	for _, c := range []struct {
		name    string
		number  uintptr
		b, c, d uintptr
	}{
		// Numbers of the kernel's arch/x86/entry/syscalls/syscall_32.tbl.
		{"i386 keyctl", 288, 0x7ffff001, 0, 0}, {"i386 mount", 21, 0x7ffff001, 0x7ffff001, 0x7ffff001},
		{"i386 unshare", 310, unix.CLONE_NEWUSER, 0, 0}, {"i386 bpf", 357, 0x7ffff001, 0, 0},
		{"i386 socket AF_ALG", 359, unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
	} {
		out = append(out, call{c.name, -int80(c.number, c.b, c.c, c.d)})
	}
	return out
}

// int80 makes a system call as a 32-bit process does.
func int80(number, b, c, d uintptr) uintptr
