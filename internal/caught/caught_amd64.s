#include "textflag.h"

#define SYS_write 1
#define SYS_rt_sigreturn 15

// func addresses() (handler, restorer uintptr)
TEXT ·addresses(SB),NOSPLIT,$0-16
	LEAQ	·handler(SB), AX
	MOVQ	AX, handler+0(FP)
	LEAQ	·restorer(SB), AX
	MOVQ	AX, restorer+8(FP)
	RET

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
