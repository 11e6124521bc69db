/* NEON with dot products of int8, `asimddp` in /proc/cpuinfo: Neoverse N1 (2019), Apple M1 (2020). */
#include "kernels.h"

#define QV_ISA qv_neon_dotprod
/* Clang's header shows the intrinsics of a pragma's target since 16. */
#if defined(__aarch64__) && (defined(__clang__) ? __clang_major__ >= 16 : __GNUC__ >= 8)
#include "registers_neon.h"
#define QV_NAME "neon_dotprod"
#define QV_TARGET "arch=armv8.2-a+dotprod"
#define QV_PRESENT QV_CPU_HAS(AT_HWCAP, 20, "FEAT_DotProd") /* HWCAP_ASIMDDP */
#define QV_I8_DOT(c, a, b) vdotq_lane_s32(c, (int8x16_t)(b), vcreate_s8((uint32_t)(a)), 0)
#define QV_I8_LEAST -128
#include "isa.h"
#else
const qv_kernels QV_ISA = {0};
#endif
