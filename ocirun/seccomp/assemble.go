package seccomp

import (
	"fmt"
	"math"
	"slices"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// Opcodes of the classic BPF machine.
const (
	opLoad = 0x20 // ld [k]
	opAnd  = 0x54
	opJump = 0x05
	opJeq  = 0x15
	opJgt  = 0x25
	opJge  = 0x35
	opRet  = 0x06
)

func load(off uint32) bpf.RawInstruction { return bpf.RawInstruction{Op: opLoad, K: off} }
func ret(k uint32) bpf.RawInstruction    { return bpf.RawInstruction{Op: opRet, K: k} }

// rule is one entry that concerns one call.
type rule struct {
	verdict uint32
	args    []specs.LinuxSeccompArg
}

// call is what is to happen with one number.
type call struct {
	nr    uint32
	rules []rule
}

// span is a run of numbers with the same outcome, up to the next span's start.
type span struct {
	from uint32
	code []bpf.RawInstruction
}

func assemble(config *specs.LinuxSeccomp) ([]bpf.RawInstruction, error) {
	def, err := verdict(config.DefaultAction, config.DefaultErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("default action: %w", err)
	}
	list, err := chosen(config)
	if err != nil {
		return nil, err
	}
	prog := []bpf.RawInstruction{load(offArch)}
	for i, first := range list {
		same := func(a *abi) bool { return a.audit == first.audit }
		if slices.ContainsFunc(list[:i], same) {
			continue // ABIs with one audit number share a section
		}
		var group []*abi
		for _, a := range list[i:] {
			if same(a) {
				group = append(group, a)
			}
		}
		code, err := section(config, def, group)
		if err != nil {
			return nil, err
		}
		prog = append(prog,
			bpf.RawInstruction{Op: opJeq, K: first.audit, Jt: 1},
			bpf.RawInstruction{Op: opJump, K: uint32(len(code))})
		prog = append(prog, code...)
	}
	prog = append(prog, ret(unix.SECCOMP_RET_KILL_THREAD))
	if len(prog) > maxLen {
		return nil, fmt.Errorf("the filter has %d instructions, the kernel takes %d: %w", len(prog), maxLen, errdefs.ErrInvalidArgument)
	}
	return prog, nil
}

// section decides by call number, for the ABIs of one audit number.
func section(config *specs.LinuxSeccomp, def uint32, group []*abi) ([]bpf.RawInstruction, error) {
	var spans []span
	x32 := false
	for _, a := range group {
		s, err := spansOf(config, def, a)
		if err != nil {
			return nil, err
		}
		x32 = x32 || a.name == specs.ArchX32
		spans = append(spans, s...)
	}
	if !x32 && group[0].name == specs.ArchX86_64 {
		spans = append(spans, span{x32Bit, []bpf.RawInstruction{ret(unix.SECCOMP_RET_KILL_THREAD)}})
	}
	return append([]bpf.RawInstruction{load(offNumber)}, search(merge(spans))...), nil
}

// spansOf lists the outcome of every number of an ABI.
func spansOf(config *specs.LinuxSeccomp, def uint32, a *abi) ([]span, error) {
	calls, highest, err := collect(config, def, a)
	if err != nil {
		return nil, err
	}
	base := uint32(0)
	if a.name == specs.ArchX32 {
		base = x32Bit
	}
	fall := []bpf.RawInstruction{ret(def)}
	spans := []span{{base, fall}}
	for i := range calls {
		c := &calls[i]
		code, err := body(c, def, a.wide)
		if err != nil {
			return nil, err
		}
		spans = append(spans, span{c.nr, code})
		if i+1 == len(calls) || calls[i+1].nr != c.nr+1 {
			spans = append(spans, span{c.nr + 1, fall})
		}
	}
	// A call newer than the profile does not exist, as far as programs are
	// concerned: they know what to do without it, but not about EPERM.
	if highest != 0 && def == unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM) {
		spans = splice(spans, highest+1)
	}
	return spans, nil
}

// splice makes everything of the default from number on answer ENOSYS.
func splice(spans []span, from uint32) []span {
	i := 0
	for i < len(spans) && spans[i].from < from {
		i++
	}
	enosys := []bpf.RawInstruction{ret(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))}
	fall := ret(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	out := append(slices.Clone(spans[:i]), span{from, enosys})
	for _, s := range spans[i:] {
		switch {
		case len(s.code) == 1 && s.code[0] == fall:
			s.code = enosys
		case s.from == from:
			out = out[:len(out)-1]
		}
		out = append(out, s)
	}
	return out
}

// collect gathers the rules of each number, sorted, and the highest number the
// configuration mentions at all.
func collect(config *specs.LinuxSeccomp, def uint32, a *abi) (calls []call, highest uint32, err error) {
	rules := map[uint32][]rule{}
	for i := range config.Syscalls {
		s := &config.Syscalls[i]
		if len(s.Names) == 0 {
			return nil, 0, fmt.Errorf("rule %d names no system call: %w", i, errdefs.ErrInvalidArgument)
		}
		v, err := verdict(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, 0, fmt.Errorf("rule %d: %w", i, err)
		}
		for _, name := range s.Names {
			nr, ok := a.calls[name]
			if !ok {
				continue // of another architecture, or newer than the table
			}
			if nr <= a.max {
				highest = max(highest, nr)
			}
			if v == def {
				continue // as libseccomp has it: no rule of its own
			}
			rules[nr] = append(rules[nr], alternatives(v, s.Args)...)
		}
	}
	for nr, r := range rules {
		calls = append(calls, call{nr, r})
	}
	slices.SortFunc(calls, func(x, y call) int { return int(int64(x.nr) - int64(y.nr)) })
	return calls, highest, nil
}

// alternatives: conditions on different arguments must all hold; if one
// argument is named twice, each condition stands alone.
func alternatives(v uint32, args []specs.LinuxSeccompArg) []rule {
	var seen [6]bool
	twice := false
	for _, a := range args {
		if a.Index < 6 {
			twice = twice || seen[a.Index]
			seen[a.Index] = true
		}
	}
	if !twice {
		return []rule{{v, args}}
	}
	var out []rule
	for _, a := range args {
		out = append(out, rule{v, []specs.LinuxSeccompArg{a}})
	}
	return out
}

// body is the code for one number. A rule without conditions beats those with.
func body(c *call, def uint32, wide bool) ([]bpf.RawInstruction, error) {
	for _, r := range c.rules {
		if len(r.args) == 0 {
			return []bpf.RawInstruction{ret(r.verdict)}, nil
		}
	}
	var code []bpf.RawInstruction
	for _, r := range c.rules {
		block, err := conditions(r.args, wide)
		if err != nil {
			return nil, err
		}
		code = append(append(code, block...), ret(r.verdict))
	}
	return append(code, ret(def)), nil
}

// merge joins neighbouring spans of the same code; spans are sorted by number.
func merge(spans []span) []span {
	slices.SortStableFunc(spans, func(x, y span) int { return int(int64(x.from) - int64(y.from)) })
	var out []span
	for i, s := range spans {
		if i+1 < len(spans) && spans[i+1].from == s.from {
			continue // empty: the later one counts
		}
		if n := len(out); n > 0 && slices.Equal(out[n-1].code, s.code) {
			continue
		}
		out = append(out, s)
	}
	return out
}

// tree is a binary decision over spans, assembled from its last instruction to
// its first: all jumps lead forward, so where they lead to is known. Spans with
// the same code share it as long as it is in reach: the kernel's time to load a
// filter grows with its length.
type tree struct {
	code []bpf.RawInstruction // the last one first
	at   map[string]int       // where a span's code begins
}

func search(spans []span) []bpf.RawInstruction {
	t := &tree{at: map[string]int{}}
	t.add(spans)
	slices.Reverse(t.code)
	return t.code
}

// add returns where the decision over the spans begins.
func (t *tree) add(spans []span) int {
	if len(spans) == 1 {
		return t.leaf(spans[0].code)
	}
	mid := len(spans) / 2
	yes := t.add(spans[mid:])
	no := t.add(spans[:mid])
	yes, no = t.near(yes), t.near(no)
	return t.put(bpf.RawInstruction{Op: opJge, K: spans[mid].from, Jt: uint8(t.distance(yes)), Jf: uint8(t.distance(no))})
}

func (t *tree) leaf(code []bpf.RawInstruction) int {
	key := fmt.Sprint(code)
	if at, ok := t.at[key]; ok && (len(code) > 1 || t.distance(at) < reach) {
		return at
	}
	for _, i := range slices.Backward(code) {
		t.put(i)
	}
	t.at[key] = len(t.code) - 1
	return len(t.code) - 1
}

// reach is less than how far a conditional jump goes, for the instructions that
// may come between.
const reach = math.MaxUint8 - 2

// near makes a place reachable for a conditional jump that comes next, or after
// one more instruction.
func (t *tree) near(at int) int {
	if t.distance(at) <= reach {
		return at
	}
	return t.put(bpf.RawInstruction{Op: opJump, K: uint32(t.distance(at))})
}

// distance is what a jump that comes next skips.
func (t *tree) distance(at int) int { return len(t.code) - at - 1 }

func (t *tree) put(i bpf.RawInstruction) int {
	t.code = append(t.code, i)
	return len(t.code) - 1
}
