package seccomp

import (
	"runtime"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// x32Bit marks the calls of x32, which shares its audit number with x86_64.
const x32Bit = 0x40000000

// notX32 are calls of x86_64 that x32 lacks.
const notX32 = "uselib _sysctl create_module get_kernel_syms query_module nfsservctl set_thread_area get_thread_area " +
	"epoll_ctl_old epoll_wait_old vserver map_shadow_stack uretprobe uprobe"

// abi is one way into the kernel.
type abi struct {
	name  specs.Arch
	audit uint32 // AUDIT_ARCH_… in seccomp_data
	wide  bool   // arguments have 64 bits
	calls map[string]uint32
	// max is the highest call known to the table.
	max uint32
}

// abis are those of this machine's kernel, the native one first.
var abis = sync.OnceValue(func() []*abi {
	switch runtime.GOARCH {
	case "amd64":
		native := parse(specs.ArchX86_64, 0xc000003e, true, callsX8664)
		x32 := &abi{name: specs.ArchX32, audit: native.audit, wide: true, calls: map[string]uint32{}}
		for name, nr := range native.calls {
			x32.calls[name] = nr | x32Bit
		}
		for name := range strings.FieldsSeq(notX32) {
			delete(x32.calls, name)
		}
		for name, nr := range parse("", 0, true, callsX32).calls {
			x32.calls[name] = nr | x32Bit
		}
		x32.max = max(native.max, 547) | x32Bit
		return []*abi{native, parse(specs.ArchX86, 0x40000003, false, callsX86), x32}
	case "arm64":
		return []*abi{parse(specs.ArchAARCH64, 0xc00000b7, true, callsAArch64), parse(specs.ArchARM, 0x40000028, false, callsARM)}
	}
	return nil
})

func parse(name specs.Arch, audit uint32, wide bool, table string) *abi {
	a := &abi{name: name, audit: audit, wide: wide, calls: make(map[string]uint32, 512)}
	for f := range strings.FieldsSeq(table) {
		call, number, _ := strings.Cut(f, "=")
		nr, _ := strconv.ParseUint(number, 10, 32)
		a.calls[call] = uint32(nr)
		if nr < 0xf0000 {
			a.max = max(a.max, uint32(nr))
		}
	}
	return a
}

// foreign are architectures that specifications list and this kernel does not run.
func foreign(a specs.Arch) bool {
	switch a {
	case specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS, specs.ArchMIPS64,
		specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64,
		specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64,
		specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB:
		return true
	}
	return false
}
