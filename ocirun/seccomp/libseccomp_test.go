package seccomp

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// libseccomp assembles the same configuration with the library everyone else
// uses. It also returns the names the library is too old for.
func libseccomp(t *testing.T, config *specs.LinuxSeccomp) (*machine, []string) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the comparison is written for amd64")
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3")
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "testdata/libseccomp.py")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &out, &errs
	if err := cmd.Run(); err != nil {
		if strings.Contains(errs.String(), "libseccomp.so.2: cannot open") {
			t.Skip("needs libseccomp.so.2")
		}
		t.Fatal(err, errs.String())
	}
	var insns []bpf.Instruction
	for b := out.Bytes(); len(b) >= 8; b = b[8:] {
		raw := bpf.RawInstruction{Op: binary.NativeEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.NativeEndian.Uint32(b[4:])}
		insns = append(insns, raw.Disassemble())
	}
	vm, err := bpf.NewVM(insns)
	if err != nil {
		t.Fatal(err)
	}
	return &machine{vm}, strings.Fields(errs.String())
}

// without drops names from a configuration.
func without(config *specs.LinuxSeccomp, names []string) *specs.LinuxSeccomp {
	out := *config
	out.Syscalls = nil
	for _, s := range config.Syscalls {
		s.Names = slices.DeleteFunc(slices.Clone(s.Names), func(n string) bool { return slices.Contains(names, n) })
		if len(s.Names) > 0 {
			out.Syscalls = append(out.Syscalls, s)
		}
	}
	return &out
}

// TestAgainstLibseccomp compares both programs for every call of the profile's
// ABIs and many arguments. Where ours says ENOSYS, for calls newer than the
// profile, the library says EPERM.
func TestAgainstLibseccomp(t *testing.T) {
	config := defaultProfile(t)
	theirs, unknown := libseccomp(t, config)
	t.Logf("unknown to libseccomp: %v", unknown)
	ours := newMachine(t, without(config, unknown))
	compareFilters(t, ours, theirs, []uint64{0, 1, 8, 0x20000, 0x20008, 0xffffffff, 39, 40, 41, 0x10000000, 0x7e020000, 1 << 32, ^uint64(0)})
}

// TestRulesAgainstLibseccomp does the same for configurations made up.
func TestRulesAgainstLibseccomp(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpMaskedEqual}
	names := []string{"read", "write", "openat", "ioctl", "clone", "mmap", "personality", "kill"}
	values := []uint64{0, 1, 2, 3, 0xfffffffe, 0xffffffff, 1 << 32, 1<<32 + 1, ^uint64(0)}
	for range 12 {
		config := &specs.LinuxSeccomp{DefaultAction: specs.ActKillProcess, Architectures: []specs.Arch{specs.ArchX86_64}}
		for _, name := range names {
			s := specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow}
			for _, i := range rng.Perm(6)[:rng.IntN(4)] {
				s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(i), Op: ops[rng.IntN(len(ops))], Value: values[rng.IntN(len(values))], ValueTwo: values[rng.IntN(len(values))]})
			}
			config.Syscalls = append(config.Syscalls, s)
		}
		theirs, _ := libseccomp(t, config)
		compareFilters(t, newMachine(t, config), theirs, values)
	}
}

func compareFilters(t *testing.T, ours, theirs *machine, values []uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(7, 8))
	for _, abi := range []struct{ audit, base uint32 }{{0xc000003e, 0}, {0xc000003e, x32Bit}, {0x40000003, 0}, {0x12345, 0}} {
		for nr := abi.base; nr < abi.base+600; nr++ {
			for range 30 {
				args := make([]uint64, 6)
				for i := range args {
					args[i] = values[rng.IntN(len(values))]
					if abi.audit == 0x40000003 || abi.base == x32Bit {
						// What such a process can pass; an x32 one can pass more, which
						// libseccomp ignores.
						args[i] = uint64(uint32(args[i]))
					}
				}
				a, b := ours.call(t, abi.audit, nr, args...), theirs.call(t, abi.audit, nr, args...)
				if a == unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS) {
					a = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
				}
				if b == unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS) {
					b = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
				}
				if a != b {
					t.Errorf("audit %#x number %d arguments %x: ours %#x, libseccomp %#x", abi.audit, nr, args, a, b)
					break
				}
			}
		}
	}
}
