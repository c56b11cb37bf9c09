#include "textflag.h"

// func cloneShared(c *child, args *cloneArgs, size uintptr) int
//
// The child goes on below this frame, on the stack of the parent, which the
// kernel keeps waiting (CLONE_VFORK) until the child has executed or exited.
TEXT ·cloneShared(SB), NOSPLIT, $8-32
	MOVQ	args+8(FP), DI
	MOVQ	size+16(FP), SI
	MOVQ	$435, AX // clone3
	SYSCALL
	TESTQ	AX, AX
	JZ	child
	MOVQ	AX, ret+24(FP)
	RET
child:
	MOVQ	c+0(FP), AX
	MOVQ	AX, 0(SP)
	CALL	·become(SB)
	INT	$3
