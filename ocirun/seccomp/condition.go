package seccomp

import (
	"encoding/binary"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

// Where a comparison may lead, besides on to the next instruction.
const (
	next = iota
	pass // the condition holds
	fail // the rule does not apply
)

// test is a comparison with symbolic targets.
type test struct {
	op     uint16
	k      uint32
	yes    int
	no     int
	isTest bool
}

func plain(i bpf.RawInstruction) test { return test{op: i.Op, k: i.K} }

func compare(op uint16, k uint32, yes, no int) test { return test{op, k, yes, no, true} }

// conditions is code that falls through if all hold, and else jumps behind the
// one instruction that follows it, the rule's verdict.
func conditions(args []specs.LinuxSeccompArg, wide bool) ([]bpf.RawInstruction, error) {
	var all []test
	var ends []int // of the condition each instruction belongs to
	for _, a := range args {
		t, err := condition(a, wide)
		if err != nil {
			return nil, err
		}
		all = append(all, t...)
		for range t {
			ends = append(ends, len(all))
		}
	}
	code := make([]bpf.RawInstruction, len(all))
	for i, t := range all {
		code[i] = bpf.RawInstruction{Op: t.op, K: t.k}
		if !t.isTest {
			continue
		}
		jump := func(target int) uint8 {
			switch target {
			case pass:
				return uint8(ends[i] - i - 1)
			case fail:
				return uint8(len(all) + 1 - i - 1)
			}
			return 0
		}
		code[i].Jt, code[i].Jf = jump(t.yes), jump(t.no)
	}
	return code, nil
}

// offsets of the halves of an argument.
func halves(index uint) (lo, hi uint32) {
	lo = offArgs + 8*uint32(index)
	hi = lo + 4
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return hi, lo
	}
	return lo, hi
}

// condition compares one argument, the upper half first. On ABIs with 32-bit
// arguments the upper half does not count.
func condition(a specs.LinuxSeccompArg, wide bool) ([]test, error) {
	if a.Index > 5 {
		return nil, fmt.Errorf("argument %d of a system call: there are 6: %w", a.Index, errdefs.ErrInvalidArgument)
	}
	lo, hi := halves(a.Index)
	vlo, vhi := uint32(a.Value), uint32(a.Value>>32)
	var upper, lower []test
	switch a.Op {
	case specs.OpEqualTo:
		upper = []test{compare(opJeq, vhi, next, fail)}
		lower = []test{compare(opJeq, vlo, pass, fail)}
	case specs.OpNotEqual:
		upper = []test{compare(opJeq, vhi, next, pass)}
		lower = []test{compare(opJeq, vlo, fail, pass)}
	case specs.OpGreaterThan:
		upper = []test{compare(opJgt, vhi, pass, next), compare(opJeq, vhi, next, fail)}
		lower = []test{compare(opJgt, vlo, pass, fail)}
	case specs.OpGreaterEqual:
		upper = []test{compare(opJgt, vhi, pass, next), compare(opJeq, vhi, next, fail)}
		lower = []test{compare(opJge, vlo, pass, fail)}
	case specs.OpLessThan:
		upper = []test{compare(opJgt, vhi, fail, next), compare(opJeq, vhi, next, pass)}
		lower = []test{compare(opJge, vlo, fail, pass)}
	case specs.OpLessEqual:
		upper = []test{compare(opJgt, vhi, fail, next), compare(opJeq, vhi, next, pass)}
		lower = []test{compare(opJgt, vlo, fail, pass)}
	case specs.OpMaskedEqual:
		// Bits of the value outside of the mask do not count, as in libseccomp.
		want := a.ValueTwo & a.Value
		wlo, whi := uint32(want), uint32(want>>32)
		upper = []test{plain(bpf.RawInstruction{Op: opAnd, K: vhi}), compare(opJeq, whi, next, fail)}
		lower = []test{plain(bpf.RawInstruction{Op: opAnd, K: vlo}), compare(opJeq, wlo, pass, fail)}
	default:
		return nil, fmt.Errorf("unknown operator %q: %w", a.Op, errdefs.ErrInvalidArgument)
	}
	var out []test
	if wide {
		out = append(append(out, plain(load(hi))), upper...)
	}
	return append(append(out, plain(load(lo))), lower...), nil
}
