#include "textflag.h"

#define SYS_write 64
#define SYS_exit_group 94

// func addresses() (handler, faults, restorer uintptr)
TEXT ·addresses(SB),NOSPLIT,$0-24
	MOVD	$·handler(SB), R0
	MOVD	R0, handler+0(FP)
	MOVD	$·faults(SB), R0
	MOVD	R0, faults+8(FP)
	MOVD	ZR, restorer+16(FP)
	RET

// faults is the handler of signals that the kernel sends to a thread for what
// that did: nothing can go on then. A siginfo_t in R1 has si_code at 8, which is
// positive if the kernel made it.
TEXT ·faults(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVW	8(R1), R3
	CMPW	$0, R3
	BLE	sent
	ADD	$128, R0
	MOVD	$SYS_exit_group, R8
	SVC
sent:
	JMP	·handler(SB)

// handler is called by the kernel, on the thread's signal stack, with the
// signal's number in R0, and returns into the vDSO. Registers are what they were
// when it has. A pipe that is full loses the signal.
TEXT ·handler(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	SUB	$16, RSP
	MOVD	R0, 8(RSP)
	MOVW	·pipe(SB), R0
	ADD	$8, RSP, R1
	MOVD	$1, R2
	MOVD	$SYS_write, R8
	SVC
	ADD	$16, RSP
	RET
