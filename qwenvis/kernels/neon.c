/* NEON, `asimd` in /proc/cpuinfo: every 64-bit Arm CPU since the Cortex-A57 and Apple's A7 (2013). */
#include "kernels.h"

#define QV_ISA qv_neon
#ifdef __aarch64__
#include "registers_neon.h"
#define QV_NAME "neon"
#define QV_PRESENT 1 /* a part of AArch64, and what the compiler targets anyway */
#include "isa.h"
#else
const qv_kernels QV_ISA = {0};
#endif
