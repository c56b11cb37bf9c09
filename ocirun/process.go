package ocirun

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wherry-engine/wherry/ocirun/seccomp"
	"github.com/wherry-engine/wherry/ocirun/wire"
)

// processOptions are what create and exec know besides the specification.
type processOptions struct {
	resolveUser   bool
	user          string
	groups        []string
	width, height uint16
	filter        *specs.LinuxSeccomp
	personality   *specs.LinuxPersonality
	memory        *specs.LinuxMemoryPolicy
	exec          bool // not the container's first process
	// held are the capabilities that can be given; others are left out, for a
	// runtime that lacks them itself.
	held uint64
	log  *slog.Logger
}

// process translates a process into its message.
func process(p *specs.Process, o *processOptions) (wire.Process, error) {
	w := wire.Process{
		Args: p.Args, Env: p.Env, Cwd: p.Cwd,
		ResolveUser: o.resolveUser, User: o.user, Groups: o.groups,
		UID: p.User.UID, GID: p.User.GID, GIDs: p.User.AdditionalGids, Umask: -1,
		NoNewPrivileges: p.NoNewPrivileges, Terminal: p.Terminal, Width: o.width, Height: o.height,
		AppArmor: p.ApparmorProfile, SELinux: p.SelinuxLabel, Personality: -1, IOPriority: -1, ProgramFD: -1, ListenFD: -1,
	}
	if len(p.Args) == 0 {
		return w, invalidf("no command specified")
	}
	if p.Cwd != "" && !strings.HasPrefix(p.Cwd, "/") {
		return w, invalidf("the working directory %q is not absolute", p.Cwd)
	}
	for _, id := range append([]uint32{p.User.UID, p.User.GID}, p.User.AdditionalGids...) {
		if id == math.MaxUint32 { // setresuid(2) and its like change nothing then
			return w, invalidf("%d is no user or group", id)
		}
	}
	if p.SelinuxLabel != "" && !selinux() {
		return w, lackf("the SELinux label %q: SELinux is not enabled in this kernel", p.SelinuxLabel)
	}
	if p.ApparmorProfile == "unconfined" && !appArmor() {
		w.AppArmor = "" // so it is
	} else if p.ApparmorProfile != "" && !appArmor() {
		return w, lackf("the AppArmor profile %q: AppArmor is not enabled in this kernel", p.ApparmorProfile)
	}
	if p.User.Umask != nil {
		w.Umask = int32(*p.User.Umask & 0o777)
	}
	if c := p.ConsoleSize; c != nil && p.Terminal && max(c.Width, c.Height) > math.MaxUint16 {
		return w, invalidf("a terminal of %d columns and %d rows", c.Width, c.Height)
	}
	if p.ConsoleSize != nil && w.Width == 0 {
		w.Width, w.Height = uint16(p.ConsoleSize.Width), uint16(p.ConsoleSize.Height)
	}
	if p.OOMScoreAdj != nil {
		adj := int32(*p.OOMScoreAdj)
		w.OOMScoreAdj = &adj
	}
	for _, f := range []func(*wire.Process, *specs.Process, *processOptions) error{capabilities, rlimits, scheduling, filter} {
		if err := f(&w, p, o); err != nil {
			return w, err
		}
	}
	return w, nil
}

func capabilities(w *wire.Process, p *specs.Process, o *processOptions) error {
	// Without the section the process gets none.
	w.SetCaps = true
	c := p.Capabilities
	if c == nil {
		return nil
	}
	for _, s := range []struct {
		to    *uint64
		names []string
	}{
		{&w.Bounding, c.Bounding}, {&w.Effective, c.Effective}, {&w.Permitted, c.Permitted},
		{&w.Inheritable, c.Inheritable}, {&w.Ambient, c.Ambient},
	} {
		*s.to = o.grant(s.names)
	}
	// The kernel refuses what is not permitted; of ambient ones also what is not
	// inheritable.
	w.Effective = o.within("effective", w.Effective, w.Permitted)
	w.Ambient = o.within("ambient", w.Ambient, w.Permitted&w.Inheritable)
	return nil
}

// grant makes a bit mask of capabilities. What nobody knows or this process
// cannot give is worth a warning (config.md, "Linux Process").
func (o *processOptions) grant(names []string) uint64 {
	var set uint64
	for _, n := range names {
		one, err := capSet([]string{n})
		if err == nil && one&o.held == 0 {
			err = errors.New("not held by the runtime")
		}
		if err != nil {
			o.log.Warn("capability cannot be granted", "name", n, "err", err)
		}
		set |= one & o.held
	}
	return set
}

func (o *processOptions) within(kind string, set, bounds uint64) uint64 {
	if more := set &^ bounds; more != 0 {
		o.log.Warn("capabilities cannot be granted", "set", kind, "mask", fmt.Sprintf("%#x", more))
	}
	return set & bounds
}

func rlimits(w *wire.Process, p *specs.Process, _ *processOptions) error {
	for _, r := range p.Rlimits {
		n, err := rlimitNumber(r.Type)
		if err != nil {
			return err
		}
		if r.Soft > r.Hard {
			return invalidf("%s: the soft limit %d is above the hard limit %d", r.Type, r.Soft, r.Hard)
		}
		for _, have := range w.Rlimits {
			if have.Resource == n {
				return invalidf("%s is given twice", r.Type)
			}
		}
		w.Rlimits = append(w.Rlimits, wire.Rlimit{Name: r.Type, Resource: n, Soft: r.Soft, Hard: r.Hard})
	}
	return nil
}

func scheduling(w *wire.Process, p *specs.Process, o *processOptions) error {
	if pe := o.personality; pe != nil {
		switch pe.Domain {
		case specs.PerLinux:
			w.Personality = 0
		case specs.PerLinux32:
			w.Personality = 8
		default:
			return invalidf("unknown personality %q", pe.Domain)
		}
		if len(pe.Flags) > 0 {
			return invalidf("personality flags are not supported")
		}
	}
	if io := p.IOPriority; io != nil {
		class := map[specs.IOPriorityClass]int64{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}[io.Class]
		if class == 0 || io.Priority < 0 || io.Priority > 7 {
			return invalidf("I/O priority %s %d", io.Class, io.Priority)
		}
		w.IOPriority = class<<13 | int64(io.Priority)
	}
	if s := p.Scheduler; s != nil {
		sc, err := scheduler(s)
		if err != nil {
			return err
		}
		w.Scheduler = sc
	}
	var err error
	if a := p.ExecCPUAffinity; a != nil && a.Final != "" && o.exec {
		w.CPUAffinity, err = bitMask(a.Final)
	}
	if err == nil && o.memory != nil {
		w.MemoryPolicy, err = memoryPolicy(o.memory)
	}
	return err
}

func memoryPolicy(m *specs.LinuxMemoryPolicy) (*wire.MemoryPolicy, error) {
	// Numbers of linux/mempolicy.h.
	modes := map[specs.MemoryPolicyModeType]uint32{
		specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2, specs.MpolInterleave: 3, specs.MpolLocal: 4,
		specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6,
	}
	flags := map[specs.MemoryPolicyFlagType]uint32{
		specs.MpolFNumaBalancing: 1 << 13, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFStaticNodes: 1 << 15,
	}
	mode, ok := modes[m.Mode]
	if !ok {
		return nil, invalidf("unknown memory policy %q", m.Mode)
	}
	w := &wire.MemoryPolicy{Mode: mode}
	for _, f := range m.Flags {
		bit, ok := flags[f]
		if !ok {
			return nil, invalidf("unknown flag %q of a memory policy", f)
		}
		w.Mode |= bit
	}
	if m.Nodes == "" {
		return w, nil
	}
	var err error
	w.Nodes, err = bitMask(m.Nodes)
	return w, err
}

func scheduler(s *specs.Scheduler) (*wire.Scheduler, error) {
	policies := map[specs.LinuxSchedulerPolicy]uint32{
		specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3, specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6,
	}
	flags := map[specs.LinuxSchedulerFlag]uint64{
		specs.SchedFlagResetOnFork: 0x01, specs.SchedFlagReclaim: 0x02, specs.SchedFlagDLOverrun: 0x04, specs.SchedFlagKeepPolicy: 0x08,
		specs.SchedFlagKeepParams: 0x10, specs.SchedFlagUtilClampMin: 0x20, specs.SchedFlagUtilClampMax: 0x40,
	}
	policy, ok := policies[s.Policy]
	if !ok {
		return nil, invalidf("unknown scheduling policy %q", s.Policy)
	}
	w := &wire.Scheduler{Policy: policy, Nice: s.Nice, Priority: uint32(s.Priority), Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
	for _, f := range s.Flags {
		bit, ok := flags[f]
		if !ok {
			return nil, invalidf("unknown scheduler flag %q", f)
		}
		w.Flags |= bit
	}
	return w, nil
}

// bitMask turns a list of processors or memory nodes such as "0-3,7" into bits.
func bitMask(list string) ([]byte, error) {
	var mask []byte
	for part := range strings.SplitSeq(list, ",") {
		var lo, hi int
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		if _, err := fmt.Sscanf(from+" "+to, "%d %d", &lo, &hi); err != nil || lo < 0 || hi < lo || hi > 8191 {
			return nil, invalidf("bad list %q of processors or memory nodes", list)
		}
		for len(mask) <= hi/8 {
			mask = append(mask, 0)
		}
		for c := lo; c <= hi; c++ {
			mask[c/8] |= 1 << (c % 8)
		}
	}
	return mask, nil
}

func filter(w *wire.Process, _ *specs.Process, o *processOptions) error {
	if o.filter == nil {
		return nil
	}
	prog, err := seccomp.Compile(o.filter)
	if err != nil {
		return err
	}
	w.Filter, w.FilterFlags, w.Notify = prog.Code, prog.Flags, prog.Notify
	return nil
}

func invalidf(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

func lackf(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrNotImplemented)...)
}
