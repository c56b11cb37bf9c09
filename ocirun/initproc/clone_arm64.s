#include "textflag.h"

// func cloneShared(c *child, args *cloneArgs, size uintptr) int
//
// The child goes on below this frame, on the stack of the parent, which the
// kernel keeps waiting (CLONE_VFORK) until the child has executed or exited.
TEXT ·cloneShared(SB), NOSPLIT, $16-32
	MOVD	args+8(FP), R0
	MOVD	size+16(FP), R1
	MOVD	$435, R8 // clone3
	SVC
	CBZ	R0, child
	MOVD	R0, ret+24(FP)
	RET
child:
	MOVD	c+0(FP), R0
	MOVD	R0, 8(RSP)
	CALL	·become(SB)
	BRK
