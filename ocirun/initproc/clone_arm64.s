#include "textflag.h"
#include "go_asm.h"

// func cloneShared(c *child, args *cloneArgs, size uintptr) int
//
// The child goes on below this frame, on the stack of the parent, which the
// kernel keeps waiting (CLONE_VFORK) until the child has executed or exited. If it
// did so in the middle of something, no Go code can run here any more.
TEXT ·cloneShared(SB), NOSPLIT, $16-32
	MOVD	args+8(FP), R0
	MOVD	size+16(FP), R1
	MOVD	$435, R8 // clone3
	SVC
	CBZ	R0, child
	CMP	$0, R0
	BLT	done
	MOVD	c+0(FP), R1
	MOVBU	child_ended(R1), R2
	CBZ	R2, broken
done:
	MOVD	R0, ret+24(FP)
	RET
broken:
	MOVD	$1, R0
	MOVD	$94, R8 // exit_group
	SVC
	BRK
child:
	MOVD	c+0(FP), R0
	MOVD	R0, 8(RSP)
	CALL	·become(SB)
	BRK
