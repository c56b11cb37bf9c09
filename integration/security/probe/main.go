// Command probe is the attacker inside the containers of the security tests.
// It is static and makes its system calls itself, so that nothing of an image
// is needed. What it finds goes to standard output, one finding a line.
//
// Its own runtime must not hold descriptors that look like leaked ones.
//
//go:debug containermaxprocs=0
package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var attacks = map[string]func([]string) error{
	"fds":      descriptors,
	"exes":     programs,
	"swap":     swap,
	"syscalls": syscalls,
	"deep":     deep,
	"forks":    forkBomb,
	"memory":   memoryBomb,
	"files":    fileBomb,
	"deaf":     deaf,
	"flood":    flood,
	"silent":   silent,
	"sleep":    func([]string) error { return forever() },
	"read":     read,
	"write":    write,
	"stat":     stat,
	"peek":     peek,
	"masks":    masks,
	"sockets":  sockets,
	"ptmx":     ptmx,
}

func main() {
	spring()
	args := os.Args[1:]
	if len(args) == 0 || attacks[args[0]] == nil {
		fmt.Println("started with", os.Args)
		return
	}
	if err := attacks[args[0]](args[1:]); err != nil {
		fmt.Println("error", err)
		os.Exit(3)
	}
}

// trapMark and the path of a file follow the program where it is a trap: run
// where that path exists, it writes there. A script would not do, for the kernel
// passes scripts by a path that may be closed by then.
const trapMark = "\nTRAP:"

func spring() {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil || filepath.Base(os.Args[0]) == "probe" {
		return
	}
	if i := strings.LastIndex(string(data[max(0, len(data)-300):]), trapMark); i >= 0 {
		_, name, _ := strings.Cut(string(data[max(0, len(data)-300)+i:]), ":")
		_ = os.WriteFile(strings.TrimSpace(name), []byte("trapped"), 0o600)
	}
}

// forever needs neither timers nor descriptors.
func forever() error {
	for {
		_ = unix.Pause()
	}
}

// descriptors lists what every process that can be seen has open.
func descriptors([]string) error {
	self := strconv.Itoa(os.Getpid())
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		entries, err := os.ReadDir(p + "/fd")
		if err != nil {
			continue
		}
		for _, e := range entries {
			to, err := os.Readlink(p + "/fd/" + e.Name())
			if err != nil || filepath.Base(p) == self && strings.HasPrefix(to, "/proc/"+self) {
				continue // the directory that is just being read
			}
			fmt.Println("fd", filepath.Base(p), e.Name(), to)
		}
		for _, l := range []string{"cwd", "root"} {
			if to, err := os.Readlink(p + "/" + l); err == nil {
				fmt.Println(l, filepath.Base(p), to)
			}
		}
	}
	return nil
}

// programs watches for processes that run another program than the image's,
// as long as its argument in seconds says, and tells how well each is sealed
// and whether it could be opened for writing.
func programs(args []string) error {
	seconds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	seen := map[string]bool{}
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		exes, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, exe := range exes {
			fd, err := unix.Open(exe, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			to, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
			finding := ""
			if _, err := os.Stat(to); err != nil { // none of the image's
				seals, serr := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
				if serr != nil {
					seals = 0
				}
				_, werr := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_WRONLY|unix.O_CLOEXEC, 0)
				var n int
				if werr == nil {
					// Writable by its mode: what counts is whether a byte gets in.
					w, _ := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
					n, werr = unix.Pwrite(w, []byte("#!"), 0)
					unix.Close(w)
				}
				finding = fmt.Sprintf("program %q seals %#x written %d %v", to, seals, n, werr)
			}
			if finding != "" && !seen[finding] {
				seen[finding] = true
				fmt.Println(finding)
			}
			unix.Close(fd)
		}
	}
	return nil
}

// swap exchanges the names of pairs as fast as it can, forever.
func swap(args []string) error {
	if len(args) == 0 || len(args)%2 != 0 {
		return errors.New("swap needs pairs")
	}
	fmt.Println("ready")
	for {
		for i := 0; i < len(args); i += 2 {
			if err := unix.Renameat2(unix.AT_FDCWD, args[i], unix.AT_FDCWD, args[i+1], unix.RENAME_EXCHANGE); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
}

// deep nests directories.
func deep(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(args[0], 0o755); err != nil {
		return err
	}
	if err := unix.Chdir(args[0]); err != nil {
		return err
	}
	for range n {
		if err := unix.Mkdir("d", 0o755); err != nil {
			return err
		}
		if err := unix.Chdir("d"); err != nil {
			return err
		}
	}
	fmt.Println("nested", n)
	return nil
}

// forkBomb fills the limit of processes and keeps it full.
func forkBomb([]string) error {
	fmt.Println("ready")
	for {
		_, _ = syscall.ForkExec("/proc/self/exe", []string{"probe", "forks"}, &syscall.ProcAttr{Files: []uintptr{0}})
	}
}

// memoryBomb touches memory until it is killed, over and over.
func memoryBomb(args []string) error {
	if len(args) > 0 {
		var kept [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			kept = append(kept, b)
			_ = kept
		}
	}
	fmt.Println("ready")
	for {
		pid, err := syscall.ForkExec("/proc/self/exe", []string{"probe", "memory", "child"}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
		if err == nil {
			_, _ = syscall.Wait4(pid, nil, 0, nil)
		}
	}
}

// fileBomb opens all it may and holds it.
func fileBomb([]string) error {
	for n := 0; ; n++ {
		if _, err := unix.Open("/dev/null", unix.O_RDONLY, 0); err != nil {
			_, _ = unix.Write(1, []byte("ready\n"))
			return forever()
		}
	}
}

// deaf ignores every signal that can be ignored.
func deaf([]string) error {
	signal.Ignore()
	fmt.Println("ready")
	return forever()
}

// flood writes without end.
func flood([]string) error {
	b := []byte(strings.Repeat(strings.Repeat("x", 127)+"\n", 512))
	for {
		if _, err := unix.Write(1, b); err != nil {
			return err
		}
	}
}

// silent closes its streams and stays.
func silent([]string) error {
	fmt.Println("ready")
	for fd := range 3 {
		_ = unix.Close(fd)
	}
	return forever()
}

func read(args []string) error {
	for _, name := range args {
		data, err := os.ReadFile(name)
		if err != nil {
			fmt.Println("read", name, err)
			continue
		}
		fmt.Printf("read %s: %q\n", name, data[:min(len(data), 200)])
	}
	return nil
}

// write tries to open for writing, changing nothing.
func write(args []string) error {
	for _, name := range args {
		fd, err := unix.Open(name, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			fmt.Println("write", name, err)
			continue
		}
		unix.Close(fd)
		fmt.Println("write", name, "opened")
	}
	return nil
}

// stat tells what a name is and which file system it is on.
func stat(args []string) error {
	for _, name := range args {
		var st unix.Stat_t
		var fs unix.Statfs_t
		if err := errors.Join(unix.Lstat(name, &st), unix.Statfs(name, &fs)); err != nil {
			fmt.Println("stat", name, err)
			continue
		}
		fmt.Printf("stat %s mode %o rdev %d:%d fs %#x\n", name, st.Mode, unix.Major(st.Rdev), unix.Minor(st.Rdev), fs.Type)
	}
	return nil
}

// masks looks for kernel file systems at names, and for what must be hidden or
// read-only in them. Everything goes through one descriptor each: names may change.
func masks(names []string) error {
	for _, name := range names {
		dir, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var fs unix.Statfs_t
		var top unix.Stat_t
		err = errors.Join(unix.Fstatfs(dir, &fs), unix.Fstat(dir, &top))
		if err != nil || fs.Type != unix.PROC_SUPER_MAGIC && fs.Type != unix.SYSFS_MAGIC || top.Ino != 1 { // its root
			fmt.Printf("found %s fs %#x\n", name, fs.Type)
			continue
		}
		fmt.Printf("found %s kernel fs %#x\n", name, fs.Type)
		for _, n := range []string{"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats", "devices/virtual/powercap", "firmware"} {
			fd, err := unix.Openat(dir, n, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			var st unix.Stat_t
			if err := errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fs)); err == nil && (fs.Type == unix.PROC_SUPER_MAGIC || fs.Type == unix.SYSFS_MAGIC) {
				fmt.Println("open", name, n, "is not hidden")
			}
			unix.Close(fd)
		}
		for _, n := range []string{"sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/kernel/domainname", "sys/vm/drop_caches", "sysrq-trigger", "kernel/uevent_helper", "kernel/mm/ksm/run", "module/kernel/parameters/panic"} {
			if fd, err := unix.Openat(dir, n, unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
				unix.Close(fd)
				fmt.Println("open", name, n, "can be written")
			}
		}
	}
	return nil
}

// peek tries to look into other processes.
func peek([]string) error {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		pid, _ := strconv.Atoi(filepath.Base(p))
		if pid == os.Getpid() {
			continue
		}
		comm, _ := os.ReadFile(p + "/comm")
		for _, l := range []string{"root", "cwd", "exe", "ns/mnt", "fd/0", "fd/3", "mem", "environ", "auxv", "map_files"} {
			flags := unix.O_RDONLY
			if l == "root" || l == "cwd" {
				flags = unix.O_PATH
			}
			if fd, err := unix.Open(p+"/"+l, flags|unix.O_CLOEXEC, 0); err == nil {
				// A directory can be opened by its mode; what counts is what is in it.
				if l != "map_files" || readable(fd) {
					fmt.Println("open", pid, strings.TrimSpace(string(comm)), l, program(p))
				}
				unix.Close(fd)
			}
		}
		// Seizing stops nobody; our end lets go.
		if err := unix.PtraceSeize(pid); err == nil {
			fmt.Println("open", pid, strings.TrimSpace(string(comm)), "ptrace", program(p))
		}
	}
	fmt.Println("looked at", len(procs))
	return nil
}

// program is what a process executes now, in one word.
func program(proc string) string {
	to, err := os.Readlink(proc + "/exe")
	if err != nil {
		return "unknown"
	}
	return strings.Fields(to)[0]
}

func readable(dir int) bool {
	n, err := unix.Getdents(dir, make([]byte, 4096))
	return err == nil && n > 64 // more than "." and ".."
}

// sockets lists the abstract unix sockets of this network namespace.
func sockets([]string) error {
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 7 && strings.HasPrefix(f[7], "@") {
			fmt.Println("abstract", f[7])
		}
	}
	return nil
}

// ptmx takes pseudo-terminals from /dev/ptmx and tells whose they are.
func ptmx([]string) error {
	for _, name := range []string{"/dev/ptmx", "/dev/pts/ptmx"} {
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			fmt.Println("ptmx", name, err)
			continue
		}
		n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
		var st unix.Stat_t
		serr := unix.Stat("/dev/pts/"+strconv.Itoa(n), &st)
		fmt.Println("ptmx", name, n, err, serr)
	}
	return nil
}
