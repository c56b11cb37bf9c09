#include "textflag.h"

#define SYS_prctl 157
#define PR_SET_TIMERSLACK 29

// The linker makes this the program's entry (-E; see the Makefile). It gives the
// first thread, and so all others, a millisecond of timer slack, and adds
// GOMAXPROCS=01 to the environment, as its last variable. Then it goes on to the
// entry of the Go runtime, which reads that before it runs anything of ours. On
// the stack is what execve(2) left there: argc, argv, 0, the environment, 0 and
// more. Everything up to the last variable moves down by one word.
TEXT ·start(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVQ	$SYS_prctl, AX
	MOVQ	$PR_SET_TIMERSLACK, DI
	MOVQ	$1000000, SI		// ns
	SYSCALL
	MOVQ	0(SP), AX
	LEAQ	16(SP)(AX*8), AX	// the environment
next:
	ADDQ	$8, AX
	CMPQ	-8(AX), $0
	JNE	next
	SUBQ	$8, AX			// its final zero, which stays
	MOVQ	SP, SI
	SUBQ	$8, SP
	MOVQ	SP, DI
	MOVQ	AX, CX
	SUBQ	SI, CX
	SHRQ	$3, CX
	CLD
	REP; MOVSQ
	LEAQ	·oneProcessor(SB), AX
	MOVQ	AX, 0(DI)
	JMP	_rt0_amd64_linux(SB)

DATA	·oneProcessor+0(SB)/8, $"GOMAXPRO"
DATA	·oneProcessor+8(SB)/8, $"CS=01"
GLOBL	·oneProcessor(SB), NOPTR|RODATA, $16
