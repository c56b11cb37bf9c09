#include "textflag.h"

#define SYS_write 64

// func addresses() (handler, restorer uintptr)
TEXT ·addresses(SB),NOSPLIT,$0-16
	MOVD	$·handler(SB), R0
	MOVD	R0, handler+0(FP)
	MOVD	ZR, restorer+8(FP)
	RET

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
