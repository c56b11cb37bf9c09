package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// call is a system call that the default profile denies.
type call struct {
	name   string
	number uintptr
}

// bad is an argument that no call takes: neither an address nor a descriptor,
// a flag or a size. A call that gets past the filter fails by it and changes nothing.
const bad = 0x7ffffffffffff001

var denied = []call{
	{"acct", unix.SYS_ACCT},
	{"add_key", unix.SYS_ADD_KEY},
	{"bpf", unix.SYS_BPF},
	{"clock_settime", unix.SYS_CLOCK_SETTIME},
	{"delete_module", unix.SYS_DELETE_MODULE},
	{"fanotify_init", unix.SYS_FANOTIFY_INIT},
	{"file_getattr", unix.SYS_FILE_GETATTR},
	{"file_setattr", unix.SYS_FILE_SETATTR},
	{"finit_module", unix.SYS_FINIT_MODULE},
	{"fsconfig", unix.SYS_FSCONFIG},
	{"fsmount", unix.SYS_FSMOUNT},
	{"fsopen", unix.SYS_FSOPEN},
	{"fspick", unix.SYS_FSPICK},
	{"get_mempolicy", unix.SYS_GET_MEMPOLICY},
	{"init_module", unix.SYS_INIT_MODULE},
	{"io_uring_enter", unix.SYS_IO_URING_ENTER},
	{"io_uring_register", unix.SYS_IO_URING_REGISTER},
	{"io_uring_setup", unix.SYS_IO_URING_SETUP},
	{"kcmp", unix.SYS_KCMP},
	{"kexec_file_load", unix.SYS_KEXEC_FILE_LOAD},
	{"kexec_load", unix.SYS_KEXEC_LOAD},
	{"keyctl", unix.SYS_KEYCTL},
	{"listns", unix.SYS_LISTNS},
	{"lookup_dcookie", unix.SYS_LOOKUP_DCOOKIE},
	{"lsm_get_self_attr", unix.SYS_LSM_GET_SELF_ATTR},
	{"lsm_list_modules", unix.SYS_LSM_LIST_MODULES},
	{"lsm_set_self_attr", unix.SYS_LSM_SET_SELF_ATTR},
	{"mbind", unix.SYS_MBIND},
	{"migrate_pages", unix.SYS_MIGRATE_PAGES},
	{"mount", unix.SYS_MOUNT},
	{"mount_setattr", unix.SYS_MOUNT_SETATTR},
	{"move_mount", unix.SYS_MOVE_MOUNT},
	{"move_pages", unix.SYS_MOVE_PAGES},
	{"nfsservctl", unix.SYS_NFSSERVCTL},
	{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT},
	{"open_tree", unix.SYS_OPEN_TREE},
	{"open_tree_attr", unix.SYS_OPEN_TREE_ATTR},
	{"perf_event_open", unix.SYS_PERF_EVENT_OPEN},
	{"pidfd_getfd", unix.SYS_PIDFD_GETFD},
	{"pivot_root", unix.SYS_PIVOT_ROOT},
	{"process_madvise", unix.SYS_PROCESS_MADVISE},
	{"quotactl", unix.SYS_QUOTACTL},
	{"quotactl_fd", unix.SYS_QUOTACTL_FD},
	{"reboot", unix.SYS_REBOOT},
	{"request_key", unix.SYS_REQUEST_KEY},
	{"set_mempolicy", unix.SYS_SET_MEMPOLICY},
	{"set_mempolicy_home_node", unix.SYS_SET_MEMPOLICY_HOME_NODE},
	{"setdomainname", unix.SYS_SETDOMAINNAME},
	{"sethostname", unix.SYS_SETHOSTNAME},
	{"setns", unix.SYS_SETNS},
	{"settimeofday", unix.SYS_SETTIMEOFDAY},
	{"swapoff", unix.SYS_SWAPOFF},
	{"swapon", unix.SYS_SWAPON},
	{"syslog", unix.SYS_SYSLOG},
	{"umount2", unix.SYS_UMOUNT2},
	{"unshare", unix.SYS_UNSHARE},
	{"userfaultfd", unix.SYS_USERFAULTFD},
	{"vhangup", unix.SYS_VHANGUP},
}

// syscalls tries them all and tells the error of each.
func syscalls([]string) error {
	for _, c := range append(denied, deniedHere...) {
		args := [6]uintptr{bad, bad, bad, bad, bad, bad}
		if c.name == "unshare" {
			args[0] = unix.CLONE_NEWUSER // bad flags would do too, this one would even succeed
		}
		_, _, errno := unix.Syscall6(c.number, args[0], args[1], args[2], args[3], args[4], args[5])
		fmt.Println("syscall", c.name, unix.ErrnoName(errno))
	}
	families()
	clones()
	return nil
}

// families are the sockets whose kernel side has been a way out.
func families() {
	for _, f := range []struct {
		name   string
		family int
	}{{"AF_ALG", unix.AF_ALG}, {"AF_VSOCK", unix.AF_VSOCK}} {
		fd, err := unix.Socket(f.family, unix.SOCK_SEQPACKET, 0)
		if err == nil {
			unix.Close(fd)
		}
		fmt.Println("socket", f.name, name(err))
	}
}

// clones ask for namespaces and for the call whose flags no filter can see.
func clones() {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	fmt.Println("clone NEWUSER", unix.ErrnoName(errno))
	_, _, errno = unix.RawSyscall(unix.SYS_CLONE3, bad, 88, 0)
	fmt.Println("clone3", unix.ErrnoName(errno))
	_, _, errno = unix.RawSyscall(unix.SYS_PERSONALITY, 0x0040000, 0, 0) // ADDR_NO_RANDOMIZE
	fmt.Println("personality ADDR_NO_RANDOMIZE", unix.ErrnoName(errno))
	_, _, errno = unix.RawSyscall(unix.SYS_IOCTL, 0, unix.TIOCSTI, bad)
	fmt.Println("ioctl TIOCSTI", unix.ErrnoName(errno))
	for _, c := range otherABIs() {
		fmt.Println("abi", c.name, unix.ErrnoName(unix.Errno(c.number)))
	}
}

func name(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return ""
}
