#include "textflag.h"
#include "go_asm.h"

// func cloneShared(c *child, args *cloneArgs, size uintptr) int
//
// The child goes on below this frame, on the stack of the parent, which the
// kernel keeps waiting (CLONE_VFORK) until the child has executed or exited. If it
// did so in the middle of something, no Go code can run here any more.
TEXT ·cloneShared(SB), NOSPLIT, $8-32
	MOVQ	args+8(FP), DI
	MOVQ	size+16(FP), SI
	MOVQ	$435, AX // clone3
	SYSCALL
	TESTQ	AX, AX
	JZ	child
	JLT	done
	MOVQ	c+0(FP), CX
	CMPB	child_ended(CX), $0
	JEQ	broken
done:
	MOVQ	AX, ret+24(FP)
	RET
broken:
	MOVQ	$1, DI
	MOVQ	$231, AX // exit_group
	SYSCALL
	INT	$3
child:
	MOVQ	c+0(FP), AX
	MOVQ	AX, 0(SP)
	CALL	·become(SB)
	INT	$3
