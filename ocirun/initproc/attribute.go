package initproc

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/ocirun/wire"
)

// attributes sets what a process has besides its identity.
func (s *setup) attributes() error {
	p := &s.cfg.Process
	if p.OOMScoreAdj != nil {
		if err := s.oomScore(int(*p.OOMScoreAdj)); err != nil {
			return err
		}
	}
	for _, r := range p.Rlimits {
		if err := setRlimit(r.Resource, r.Name, r.Soft, r.Hard); err != nil {
			return err
		}
	}
	if p.Personality >= 0 {
		if _, _, errno := unix.Syscall(unix.SYS_PERSONALITY, uintptr(p.Personality), 0, 0); errno != 0 {
			return fmt.Errorf("set personality: %w", errno)
		}
	}
	if p.IOPriority >= 0 {
		const who = 1 // IOPRIO_WHO_PROCESS: the calling thread
		if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, who, 0, uintptr(p.IOPriority)); errno != 0 {
			return fmt.Errorf("set I/O priority: %w", errno)
		}
	}
	if err := s.scheduler(); err != nil {
		return err
	}
	if err := memoryPolicy(p.MemoryPolicy); err != nil {
		return err
	}
	if p.AppArmor != "" {
		err := s.writeLabel("attr/apparmor/exec", "attr/exec", "exec "+p.AppArmor)
		if errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("set AppArmor profile %s: the kernel has no profile of this name loaded: %w", p.AppArmor, err)
		}
		if err != nil {
			return fmt.Errorf("set AppArmor profile %s: %w", p.AppArmor, err)
		}
	}
	if p.SELinux != "" {
		if err := s.writeLabel("attr/exec", "", p.SELinux); err != nil {
			return fmt.Errorf("set SELinux label %s: %w", p.SELinux, err)
		}
	}
	return nil
}

func (s *setup) writeLabel(name, old, value string) error {
	err := s.writeProc(name, value)
	if old != "" && errors.Is(err, unix.ENOENT) {
		return s.writeProc(old, value)
	}
	return err
}

func (s *setup) scheduler() error {
	p := &s.cfg.Process
	if sc := p.Scheduler; sc != nil {
		attr := unix.SchedAttr{
			Size: unix.SizeofSchedAttr, Policy: sc.Policy, Flags: sc.Flags, Nice: sc.Nice, Priority: uint32(sc.Priority),
			Runtime: sc.Runtime, Deadline: sc.Deadline, Period: sc.Period,
		}
		if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
			return fmt.Errorf("set scheduler: %w", err)
		}
	}
	return SetAffinity(p.CPUAffinity)
}

// SetAffinity binds the calling thread to the processors of a bit mask, unless
// that is empty.
func SetAffinity(mask []byte) error {
	if len(mask) == 0 {
		return nil
	}
	words := append(mask[:len(mask):len(mask)], make([]byte, 8-len(mask)%8)...)
	_, _, errno := unix.Syscall(unix.SYS_SCHED_SETAFFINITY, 0, uintptr(len(words)), uintptr(unsafe.Pointer(&words[0])))
	switch errno {
	case 0:
		return nil
	case unix.EINVAL: // sched_setaffinity(2)
		first := slices.IndexFunc(mask, func(b byte) bool { return b != 0 })
		if first < 0 {
			return errors.New("processor affinity: no processor is named")
		}
		return fmt.Errorf("processor affinity: this machine, or the control group, has neither processor %d nor another one of those named", first*8+bits.TrailingZeros8(mask[first]))
	}
	return fmt.Errorf("set processor affinity: %w", errno)
}

// memoryPolicy applies to this thread, the one that execs or forks.
func memoryPolicy(m *wire.MemoryPolicy) error {
	if m == nil {
		return nil
	}
	const word = 8 // bytes of the kernel's unsigned long
	var nodes unsafe.Pointer
	mask := append(m.Nodes, make([]byte, word-len(m.Nodes)%word)...)
	bits := 8 * len(mask)
	if len(m.Nodes) > 0 {
		nodes = unsafe.Pointer(&mask[0])
	} else {
		bits = 0
	}
	// One more than the bits that count, as the kernel's interface has it.
	_, _, errno := unix.Syscall(unix.SYS_SET_MEMPOLICY, uintptr(m.Mode), uintptr(nodes), uintptr(bits+1))
	if errno == unix.ENOSYS {
		return fmt.Errorf("set memory policy: this kernel has no NUMA policies: %w", errno)
	}
	if errno != 0 {
		return fmt.Errorf("set memory policy %#x: %w", m.Mode, errno)
	}
	return nil
}

// oomScore writes the adjustment; where the kernel forbids it, it is an error
// only if it would have changed something.
func (s *setup) oomScore(adj int) error {
	err := s.writeProc("oom_score_adj", strconv.Itoa(adj))
	if err == nil {
		return nil
	}
	fd, oerr := s.openProc("thread-self/oom_score_adj", unix.O_RDONLY)
	if oerr != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, 32)
	n, _ := unix.Read(fd, buf)
	for n > 0 && buf[n-1] == '\n' {
		n--
	}
	if string(buf[:n]) == strconv.Itoa(adj) {
		return nil
	}
	return err
}

// setRlimit sets a limit; where raising it is forbidden, it is an error only
// if it would have changed something.
func setRlimit(resource int, name string, soft, hard uint64) error {
	want := unix.Rlimit{Cur: soft, Max: hard}
	err := unix.Prlimit(0, resource, &want, nil)
	if err == nil {
		return nil
	}
	var have unix.Rlimit
	if unix.Prlimit(0, resource, nil, &have) == nil && have == want {
		return nil
	}
	return fmt.Errorf("error setting rlimit %s to %d:%d (now %d:%d): %w", name, soft, hard, have.Cur, have.Max, err)
}
