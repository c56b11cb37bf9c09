package cgroup

import (
	"fmt"
	"os"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// any device number.
const anyNumber = -1

func number(n *int64) int64 {
	if n == nil || *n < 0 {
		return anyNumber
	}
	return *n
}

func ruleType(r *specs.LinuxDeviceCgroup) (string, error) {
	switch r.Type {
	case "", "a":
		return "a", nil
	case "b", "c":
		return r.Type, nil
	}
	return "", invalid("device rule: unknown type %q", r.Type)
}

// setDevicesV1 writes the rules in order: the kernel keeps the list.
func setDevicesV1(dir string, rules []specs.LinuxDeviceCgroup) error {
	w := writer{dir: dir}
	defer w.close()
	for i := range rules {
		r := &rules[i]
		typ, err := ruleType(r)
		if err != nil {
			return err
		}
		file := "devices.deny"
		if r.Allow {
			file = "devices.allow"
		}
		line := "a"
		if typ != "a" || number(r.Major) != anyNumber || number(r.Minor) != anyNumber {
			if line, err = ruleLine(typ, r); err != nil {
				return err
			}
		}
		if err := w.write(file, line); err != nil {
			return err
		}
	}
	return nil
}

func ruleLine(typ string, r *specs.LinuxDeviceCgroup) (string, error) {
	num := func(n *int64) string {
		if number(n) == anyNumber {
			return "*"
		}
		return i64(*n)
	}
	access := r.Access
	if access == "" {
		access = "rwm"
	}
	if _, err := accessBits(access); err != nil {
		return "", err
	}
	return typ + " " + num(r.Major) + ":" + num(r.Minor) + " " + access, nil
}

func accessBits(access string) (int32, error) {
	var bits int32
	for _, c := range access {
		switch c {
		case 'm':
			bits |= 1 // BPF_DEVCG_ACC_MKNOD
		case 'r':
			bits |= 2
		case 'w':
			bits |= 4
		default:
			return 0, invalid("device rule: unknown access %q", access)
		}
	}
	return bits, nil
}

// insn is one instruction of the kernel's BPF machine.
type insn struct {
	op   uint8
	regs uint8 // source in the high half, destination in the low one
	off  int16
	imm  int32
}

// Registers of the device program.
const (
	r0, r1, rType, rAccess, rMajor, rMinor, rTmp = 0, 1, 2, 3, 4, 5, 6
)

// devices program: later rules win, so they are tested first. No rule: denied.
func deviceProgram(rules []specs.LinuxDeviceCgroup) ([]insn, error) {
	const (
		ldxw  = 0x61 // dst = *(u32 *)(src + off)
		mov64 = 0xbf
		movk  = 0xb7
		andk  = 0x54 // 32 bit
		rshk  = 0x74
		jnek  = 0x55
		jeqk  = 0x15
		exit  = 0x95
	)
	prog := []insn{
		{ldxw, r1<<4 | rType, 0, 0},
		{mov64, rType<<4 | rAccess, 0, 0},
		{andk, rType, 0, 0xffff},
		{rshk, rAccess, 0, 16},
		{ldxw, r1<<4 | rMajor, 4, 0},
		{ldxw, r1<<4 | rMinor, 8, 0},
	}
	for i := len(rules) - 1; i >= 0; i-- {
		r := &rules[i]
		typ, err := ruleType(r)
		if err != nil {
			return nil, err
		}
		access := r.Access
		if access == "" || typ == "a" && number(r.Major) == anyNumber && number(r.Minor) == anyNumber {
			access = "rwm"
		}
		bits, err := accessBits(access)
		if err != nil {
			return nil, err
		}
		var block []insn
		verdict := int32(0)
		if r.Allow {
			verdict = 1
		}
		if typ != "a" {
			t := int32(1) // BPF_DEVCG_DEV_BLOCK
			if typ == "c" {
				t = 2
			}
			block = append(block, insn{jnek, rType, 0, t})
		}
		if bits != 7 {
			block = append(block, insn{mov64, rAccess<<4 | rTmp, 0, 0})
			if r.Allow { // all that is wanted must be allowed
				block = append(block, insn{andk, rTmp, 0, 7 &^ bits}, insn{jnek, rTmp, 0, 0})
			} else { // any that is wanted is denied
				block = append(block, insn{andk, rTmp, 0, bits}, insn{jeqk, rTmp, 0, 0})
			}
		}
		if n := number(r.Major); n != anyNumber {
			block = append(block, insn{jnek, rMajor, 0, int32(n)})
		}
		if n := number(r.Minor); n != anyNumber {
			block = append(block, insn{jnek, rMinor, 0, int32(n)})
		}
		block = append(block, insn{movk, r0, 0, verdict}, insn{exit, 0, 0, 0})
		for j := range block {
			if block[j].op == jnek || block[j].op == jeqk {
				block[j].off = int16(len(block) - j - 1)
			}
		}
		prog = append(prog, block...)
		if typ == "a" && len(block) == 2 {
			return prog, nil // nothing before it can matter
		}
	}
	return append(prog, insn{movk, r0, 0, 0}, insn{exit, 0, 0, 0}), nil
}

// loadAttempts are enough for the signals of any runtime.
const loadAttempts = 50

// setDevicesV2 attaches a program to the cgroup; it goes with it.
func setDevicesV2(dir string, rules []specs.LinuxDeviceCgroup) error {
	prog, err := deviceProgram(rules)
	if err != nil {
		return err
	}
	license := []byte("Apache\x00")
	load := struct {
		progType, count uint32
		insns, license  uint64
		logLevel, size  uint32
		log             uint64
		_               [64]byte
	}{
		progType: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(prog)),
		insns: uint64(uintptr(unsafe.Pointer(&prog[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	var fd uintptr
	errno := unix.EAGAIN
	for range loadAttempts {
		fd, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
		if errno != unix.EAGAIN { // the verifier gives way to a signal
			break
		}
	}
	if errno != 0 {
		return fmt.Errorf("load the device program: %w", errno)
	}
	defer unix.Close(int(fd))
	cg, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(cg)
	attach := struct{ target, prog, typ, flags, replace, _ uint32 }{
		target: uint32(cg), prog: uint32(fd), typ: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI,
	}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attach)), unsafe.Sizeof(attach)); errno != 0 {
		return fmt.Errorf("attach the device program: %w", errno)
	}
	return nil
}
