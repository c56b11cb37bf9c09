package seccomp

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// machine runs a filter as the kernel would.
type machine struct{ vm *bpf.VM }

func newMachine(t testing.TB, config *specs.LinuxSeccomp) *machine {
	t.Helper()
	raw, err := assemble(config)
	if err != nil {
		t.Fatal(err)
	}
	insns := make([]bpf.Instruction, len(raw))
	for i, r := range raw {
		insns[i] = r.Disassemble()
		if _, bad := insns[i].(bpf.RawInstruction); bad {
			t.Fatalf("instruction %d: %+v", i, r)
		}
	}
	vm, err := bpf.NewVM(insns)
	if err != nil {
		t.Fatal(err)
	}
	return &machine{vm}
}

// call presents struct seccomp_data. The virtual machine reads big-endian
// words, so each is swapped; halves of arguments stay where the kernel has them.
func (m *machine) call(t testing.TB, audit, nr uint32, args ...uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offNumber:], nr)
	binary.BigEndian.PutUint32(data[offArch:], audit)
	for i, a := range args {
		lo, hi := halves(uint(i))
		binary.BigEndian.PutUint32(data[lo:], uint32(a))
		binary.BigEndian.PutUint32(data[hi:], uint32(a>>32))
	}
	v, err := m.vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(v)
}

// expected is the filter's meaning, without a program.
func expected(config *specs.LinuxSeccomp, a *abi, nr uint32, args []uint64) uint32 {
	def, _ := verdict(config.DefaultAction, config.DefaultErrnoRet)
	var highest uint32
	name := ""
	for n, number := range a.calls {
		if number == nr {
			name = n
		}
	}
	for _, s := range config.Syscalls {
		for _, n := range s.Names {
			if number, ok := a.calls[n]; ok && number <= a.max {
				highest = max(highest, number)
			}
		}
	}
	found, result := false, def
	for _, s := range config.Syscalls {
		v, _ := verdict(s.Action, s.ErrnoRet)
		if v == def {
			continue
		}
		for _, n := range s.Names {
			if a.calls[n] != nr || n != name {
				continue
			}
			if len(s.Args) == 0 {
				return v
			}
			ok := true
			for _, c := range s.Args {
				ok = ok && holds(c, args[c.Index], a.wide)
			}
			if ok && !found {
				found, result = true, v
			}
		}
	}
	if !found && nr > highest && highest > 0 && def == unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM) {
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	return result
}

func holds(c specs.LinuxSeccompArg, v uint64, wide bool) bool {
	w, w2 := c.Value, c.ValueTwo
	if !wide {
		v, w, w2 = uint64(uint32(v)), uint64(uint32(w)), uint64(uint32(w2))
	}
	switch c.Op {
	case specs.OpEqualTo:
		return v == w
	case specs.OpNotEqual:
		return v != w
	case specs.OpGreaterThan:
		return v > w
	case specs.OpGreaterEqual:
		return v >= w
	case specs.OpLessThan:
		return v < w
	case specs.OpLessEqual:
		return v <= w
	case specs.OpMaskedEqual:
		return v&w == w2&w
	}
	panic(c.Op)
}

func defaultProfile(t testing.TB) *specs.LinuxSeccomp {
	t.Helper()
	config, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// TestDefaultProfile compares the program with its meaning for every number of
// every ABI, and random arguments.
func TestDefaultProfile(t *testing.T) {
	config := defaultProfile(t)
	m := newMachine(t, config)
	raw, _ := assemble(config)
	t.Logf("%d instructions", len(raw))
	rng := rand.New(rand.NewPCG(1, 2))
	for _, a := range abis() {
		base := uint32(0)
		if a.name == specs.ArchX32 {
			base = x32Bit
		}
		for nr := base; nr < base+1000; nr++ {
			if a.name == specs.ArchX32 && a.calls["read"] == 0 {
				t.Fatal("no table")
			}
			for range 8 {
				args := make([]uint64, 6)
				for i := range args {
					args[i] = []uint64{0, 1, 8, 0x20000, 0x20008, 0xffffffff, 40, 39, 41, rng.Uint64()}[rng.IntN(10)]
				}
				want := expected(config, a, nr, args)
				if got := m.call(t, a.audit, nr, args...); got != want {
					t.Fatalf("%s %d %x: got %#x, want %#x", a.name, nr, args, got, want)
				}
			}
		}
	}
	if got := m.call(t, 0x1234, 0); got != unix.SECCOMP_RET_KILL_THREAD {
		t.Errorf("foreign architecture: %#x", got)
	}
}

// TestOperators compares random rules with their meaning.
func TestOperators(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("numbers are those of amd64")
	}
	rng := rand.New(rand.NewPCG(3, 4))
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpMaskedEqual}
	names := []string{"read", "write", "open", "ioctl", "getppid", "clone3"}
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKillProcess, specs.ActTrap, specs.ActTrace, specs.ActLog, specs.ActKillThread, specs.ActNotify}
	action := func(errno *uint) (specs.LinuxSeccompAction, *uint) {
		a := actions[rng.IntN(len(actions))]
		if a != specs.ActErrno && a != specs.ActTrace {
			errno = nil
		}
		return a, errno
	}
	value := func() uint64 {
		return []uint64{0, 1, 2, 0xffffffff, 1 << 32, 1<<32 + 1, ^uint64(0), 0x7fffffffffffffff, rng.Uint64(), uint64(rng.Uint32())}[rng.IntN(10)]
	}
	for range 300 {
		errno := uint(rng.IntN(200))
		config := &specs.LinuxSeccomp{Architectures: []specs.Arch{specs.ArchX86}}
		config.DefaultAction, config.DefaultErrnoRet = action(&errno)
		for range 1 + rng.IntN(8) {
			s := specs.LinuxSyscall{Names: []string{names[rng.IntN(len(names))]}}
			s.Action, s.ErrnoRet = action(&errno)
			for _, i := range rng.Perm(6)[:1+rng.IntN(3)] {
				s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(i), Op: ops[rng.IntN(len(ops))], Value: value(), ValueTwo: value()})
			}
			config.Syscalls = append(config.Syscalls, s)
		}
		m := newMachine(t, config)
		for range 200 {
			a := abis()[rng.IntN(2)]
			args := []uint64{value(), value(), value(), value(), value(), value()}
			nr := a.calls[names[rng.IntN(len(names))]]
			if got, want := m.call(t, a.audit, nr, args...), expected(config, a, nr, args); got != want {
				t.Fatalf("%+v\n%s %d %x: got %#x, want %#x", config, a.name, nr, args, got, want)
			}
		}
	}
}

func TestX32IsRefusedUnlessAskedFor(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("x32 is of amd64")
	}
	m := newMachine(t, &specs.LinuxSeccomp{DefaultAction: specs.ActAllow})
	if got := m.call(t, 0xc000003e, x32Bit|1); got != unix.SECCOMP_RET_KILL_THREAD {
		t.Errorf("got %#x", got)
	}
	if got := m.call(t, 0xc000003e, 1); got != unix.SECCOMP_RET_ALLOW {
		t.Errorf("got %#x", got)
	}
}

func TestOneArgumentTwiceIsAlternatives(t *testing.T) {
	arg := func(v uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: 0, Op: specs.OpEqualTo, Value: v}
	}
	m := newMachine(t, &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"personality"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0), arg(8)}},
	}})
	a := abis()[0]
	for v, want := range map[uint64]uint32{0: unix.SECCOMP_RET_ALLOW, 8: unix.SECCOMP_RET_ALLOW, 1: unix.SECCOMP_RET_ERRNO | 1} {
		if got := m.call(t, a.audit, a.calls["personality"], v); got != want {
			t.Errorf("%d: got %#x", v, got)
		}
	}
}

func TestLongPrograms(t *testing.T) {
	// Every call with six conditions: trees need jumps over more than 255.
	config := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	i := uint64(0)
	for name := range abis()[0].calls {
		i++
		s := specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow}
		if i%4 == 0 {
			s.Args = []specs.LinuxSeccompArg{{Index: uint(i % 6), Op: specs.OpGreaterEqual, Value: i << 31}}
		}
		config.Syscalls = append(config.Syscalls, s)
	}
	m := newMachine(t, config)
	a := abis()[0]
	for nr := range uint32(600) {
		for _, v := range []uint64{0, 1 << 30, 1 << 38, 1 << 41} {
			args := []uint64{v, v, v, v, v, v}
			if got, want := m.call(t, a.audit, nr, args...), expected(config, a, nr, args); got != want {
				t.Fatalf("%d %x: got %#x, want %#x", nr, v, got, want)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	big := uint(1 << 16)
	for _, tt := range []struct {
		name   string
		config specs.LinuxSeccomp
		is     error
	}{
		{"notify nobody", specs.LinuxSeccomp{DefaultAction: specs.ActNotify}, errdefs.ErrInvalidArgument},
		{"metadata for nobody", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerMetadata: "x"}, errdefs.ErrInvalidArgument},
		{"errno of an action without", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, DefaultErrnoRet: new(uint)}, errdefs.ErrInvalidArgument},
		{"rule without names", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Action: specs.ActErrno}}}, errdefs.ErrInvalidArgument},
		{"action", specs.LinuxSeccomp{DefaultAction: "X"}, errdefs.ErrInvalidArgument},
		{"arch", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"X"}}, errdefs.ErrInvalidArgument},
		{"flag", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}}, errdefs.ErrInvalidArgument},
		{"errno", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &big}, errdefs.ErrInvalidArgument},
		{"operator", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: "X"}}}}}, errdefs.ErrInvalidArgument},
		{"index", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}}, errdefs.ErrInvalidArgument},
	} {
		if _, err := Compile(&tt.config); !errors.Is(err, tt.is) {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

func TestCache(t *testing.T) {
	one, err := Compile(defaultProfile(t))
	if err != nil {
		t.Fatal(err)
	}
	two, _ := Compile(defaultProfile(t))
	if one != two {
		t.Error("assembled twice")
	}
	for i := range 3 * cacheSize {
		errno := uint(i)
		if _, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(cache.programs); n > cacheSize {
		t.Error("cache holds", n)
	}
}

func BenchmarkCompileCached(b *testing.B) {
	config := defaultProfile(b)
	for b.Loop() {
		if _, err := Compile(config); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAssemble(b *testing.B) {
	config := defaultProfile(b)
	for b.Loop() {
		if _, err := compile(config); err != nil {
			b.Fatal(err)
		}
	}
}

func TestFlags(t *testing.T) {
	notify := specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/x", Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
	kill := []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv, specs.LinuxSeccompFlagLog}
	for _, tt := range []struct {
		name   string
		notify bool
		flags  []specs.LinuxSeccompFlag
		want   uint32
	}{
		{"default", false, nil, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{"none", false, []specs.LinuxSeccompFlag{}, 0},
		{"killable without a listener", false, kill, unix.SECCOMP_FILTER_FLAG_LOG},
		{"killable", true, kill, unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV},
	} {
		config := specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
		if tt.notify {
			config = notify
		}
		config.Flags = tt.flags
		p, err := Compile(&config)
		if err != nil || p.Flags != tt.want || p.Notify != tt.notify {
			t.Errorf("%s: %+v, %v", tt.name, p, err)
		}
	}
}
