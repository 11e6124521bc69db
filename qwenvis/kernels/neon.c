/* NEON, `asimd` in /proc/cpuinfo: every 64-bit Arm CPU since the Cortex-A57 and Apple's A7 (2013). */
#include "kernels.h"

#define QV_ISA qv_neon
#ifdef __aarch64__
#include <arm_neon.h>
#define QV_NAME "neon"
#define QV_PRESENT 1 /* a part of AArch64, and what the compiler targets anyway */
#define QV_MAX(a, b) vmaxq_f32(a, b)
#define QV_MIN(a, b) vminq_f32(a, b)
#define VL 4
#define MR 8 /* 16 accumulators, 2 of B, 8 of A, which GCC loads ahead: 26 of 32 registers */
#define ROWS_NBYTES (256 << 10) /* half of the L2 of a Cortex-A72 or a Neoverse N1; not measured */
#include "isa.h"
#else
const qv_kernels QV_ISA = {0};
#endif
