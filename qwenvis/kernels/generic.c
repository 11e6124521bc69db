/* Any CPU: 16-byte vectors of the compiler's default target (SSE2 on x86-64, NEON on aarch64). */
#include "kernels.h"

#define QV_ISA qv_generic
#define QV_NAME "generic"
#define QV_PRESENT 1
#define VL 4
#define MR 6 /* 12 accumulators, 2 of B, 1 of A: 15 of 16 registers */
#define ROWS_NBYTES (256 << 10) /* an L2 that most CPUs have */
#include "isa.h"
