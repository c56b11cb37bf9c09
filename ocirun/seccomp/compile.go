// Package seccomp assembles kernel filters out of OCI seccomp configurations,
// without libseccomp. One filter covers every ABI of the machine that the
// configuration names; calls are found by binary search over ranges, so that
// a filter of four hundred calls takes about eight comparisons.
package seccomp

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Program is a filter as the kernel takes it.
type Program struct {
	// Code is an array of struct sock_filter in the machine's byte order.
	Code []byte
	// Flags of seccomp(2).
	Flags uint32
	// Notify is set if a rule asks an agent; loading yields a listener then.
	Notify bool
}

// maxLen is the kernel's limit of instructions.
const maxLen = 4096

// cache of assembled programs by content: an engine has a handful of profiles.
// (The content itself is the key: a hash would link all of crypto.)
var cache struct {
	sync.Mutex
	programs map[string]*Program
}

const cacheSize = 64

// Compile assembles the filter. InvalidArgument for a wrong configuration,
// NotImplemented for machines without a call table. Nil yields an empty program.
func Compile(config *specs.LinuxSeccomp) (*Program, error) {
	if config == nil {
		return &Program{}, nil
	}
	key := content(config)
	cache.Lock()
	p := cache.programs[key]
	cache.Unlock()
	if p != nil {
		return p, nil
	}
	p, err := compile(config)
	if err != nil {
		return nil, fmt.Errorf("seccomp: %w", err)
	}
	cache.Lock()
	defer cache.Unlock()
	if cache.programs == nil || len(cache.programs) >= cacheSize {
		cache.programs = make(map[string]*Program)
	}
	cache.programs[key] = p
	return p, nil
}

func compile(config *specs.LinuxSeccomp) (*Program, error) {
	insns, err := assemble(config)
	if err != nil {
		return nil, err
	}
	notify, err := notifies(config)
	if err != nil {
		return nil, err
	}
	flags, err := flagsOf(config, notify)
	if err != nil {
		return nil, err
	}
	code := make([]byte, 0, 8*len(insns))
	for _, i := range insns {
		code = binary.NativeEndian.AppendUint16(code, i.Op)
		code = append(code, i.Jt, i.Jf)
		code = binary.NativeEndian.AppendUint32(code, i.K)
	}
	return &Program{Code: code, Flags: flags, Notify: notify}, nil
}

// notifies tells whether an agent is asked, and checks that there is one.
func notifies(config *specs.LinuxSeccomp) (bool, error) {
	if config.ListenerMetadata != "" && config.ListenerPath == "" {
		return false, fmt.Errorf("listenerMetadata without listenerPath: %w", errdefs.ErrInvalidArgument)
	}
	notify := config.DefaultAction == specs.ActNotify ||
		slices.ContainsFunc(config.Syscalls, func(s specs.LinuxSyscall) bool { return s.Action == specs.ActNotify })
	if notify && config.ListenerPath == "" {
		return false, fmt.Errorf("%s without listenerPath: nobody would answer: %w", specs.ActNotify, errdefs.ErrInvalidArgument)
	}
	return notify, nil
}

func flagsOf(config *specs.LinuxSeccomp, notify bool) (uint32, error) {
	var flags uint32
	if config.Flags == nil {
		flags = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	}
	if notify {
		flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	for _, f := range config.Flags {
		switch f {
		case "SECCOMP_FILTER_FLAG_TSYNC": // one thread is left by then
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			if notify { // the kernel takes it together with a listener only
				flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
			}
		default:
			return 0, fmt.Errorf("unknown flag %q: %w", f, errdefs.ErrInvalidArgument)
		}
	}
	return flags, nil
}

// verdict translates an action.
func verdict(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errno != nil {
		if *errno > math.MaxUint16 {
			return 0, fmt.Errorf("errnoRet %d is too large: %w", *errno, errdefs.ErrInvalidArgument)
		}
		data = uint32(*errno)
	}
	if errno != nil && a != specs.ActErrno && a != specs.ActTrace {
		return 0, fmt.Errorf("action %s has no errnoRet: %w", a, errdefs.ErrInvalidArgument)
	}
	switch a {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	}
	return 0, fmt.Errorf("unknown action %q: %w", a, errdefs.ErrInvalidArgument)
}

// chosen are the ABIs the filter covers: the native one, and those asked for.
func chosen(config *specs.LinuxSeccomp) ([]*abi, error) {
	all := abis()
	if len(all) == 0 {
		return nil, fmt.Errorf("no table of system calls for this architecture: %w", errdefs.ErrNotImplemented)
	}
	for _, a := range config.Architectures {
		if !foreign(a) {
			return nil, fmt.Errorf("unknown architecture %q: %w", a, errdefs.ErrInvalidArgument)
		}
	}
	var list []*abi
	for i, a := range all {
		if i == 0 || slices.Contains(config.Architectures, a.name) {
			list = append(list, a)
		}
	}
	return list, nil
}

// content identifies a configuration by its content.
func content(c *specs.LinuxSeccomp) string {
	b := make([]byte, 0, 16<<10)
	str := func(s string) { b = append(append(b, s...), 0) }
	num := func(n uint64) { b = binary.LittleEndian.AppendUint64(b, n) }
	ptr := func(p *uint) {
		if p == nil {
			num(math.MaxUint64)
		} else {
			num(uint64(*p))
		}
	}
	str(string(c.DefaultAction))
	str(strconv.FormatBool(c.ListenerPath != "") + strconv.FormatBool(c.ListenerMetadata != ""))
	ptr(c.DefaultErrnoRet)
	num(uint64(len(c.Architectures)))
	for _, a := range c.Architectures {
		str(string(a))
	}
	if c.Flags == nil {
		num(math.MaxUint64)
	}
	num(uint64(len(c.Flags)))
	for _, f := range c.Flags {
		str(string(f))
	}
	for i := range c.Syscalls {
		s := &c.Syscalls[i]
		str(string(s.Action))
		ptr(s.ErrnoRet)
		str(strings.Join(s.Names, ","))
		num(uint64(len(s.Args)))
		for _, a := range s.Args {
			num(uint64(a.Index))
			num(a.Value)
			num(a.ValueTwo)
			str(string(a.Op))
		}
	}
	return string(b)
}
