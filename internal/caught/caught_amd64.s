#include "textflag.h"

#define SYS_write 1
#define SYS_rt_sigreturn 15
#define SYS_exit_group 231

// func addresses() (handler, faults, restorer uintptr)
TEXT ·addresses(SB),NOSPLIT,$0-24
	LEAQ	·handler(SB), AX
	MOVQ	AX, handler+0(FP)
	LEAQ	·faults(SB), AX
	MOVQ	AX, faults+8(FP)
	LEAQ	·restorer(SB), AX
	MOVQ	AX, restorer+16(FP)
	RET

// faults is the handler of signals that the kernel sends to a thread for what
// that did: nothing can go on then. A siginfo_t in SI has si_code at 8, which is
// positive if the kernel made it.
TEXT ·faults(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	CMPL	8(SI), $0
	JLE	sent
	LEAL	128(DI), DI
	MOVL	$SYS_exit_group, AX
	SYSCALL
sent:
	JMP	·handler(SB)

// handler is called by the kernel, on the thread's signal stack, with the
// signal's number in DI. Registers are what they were when it has returned. A
// pipe that is full loses the signal.
TEXT ·handler(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	SUBQ	$24, SP
	MOVQ	DI, 8(SP)
	MOVL	$SYS_write, AX
	MOVL	·pipe(SB), DI
	LEAQ	8(SP), SI
	MOVL	$1, DX
	SYSCALL
	ADDQ	$24, SP
	RET

// restorer is where handler returns to.
TEXT ·restorer(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVL	$SYS_rt_sigreturn, AX
	SYSCALL
	INT	$3	// not reached
