/* NEON with dot products of int8, `asimddp` in /proc/cpuinfo: Neoverse N1 (2019), Apple M1 (2020). */
#include "kernels.h"

#define QV_ISA qv_neon_dotprod
/* Clang's header shows the intrinsics of a pragma's target since 16. */
#if defined(__aarch64__) && (defined(__clang__) ? __clang_major__ >= 16 : __GNUC__ >= 8)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
static int has_dotprod(void) { return (getauxval(AT_HWCAP) >> 20) & 1; } /* HWCAP_ASIMDDP, which old headers lack */
#elif defined(__APPLE__)
#include <sys/sysctl.h>
static int has_dotprod(void)
{
    int has = 0;
    size_t size = sizeof has;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, NULL, 0) == 0 && has;
}
#else
static int has_dotprod(void) { return 0; } /* no way to ask is known here */
#endif
#define QV_NAME "neon_dotprod"
#define QV_TARGET "arch=armv8.2-a+dotprod"
#define QV_PRESENT has_dotprod()
#define QV_I8_DOT(c, a, b) vdotq_lane_s32(c, (int8x16_t)(b), vcreate_s8((uint32_t)(a)), 0)
#define QV_I8_LEAST -128
#define QV_MAX(a, b) vmaxq_f32(a, b)
#define QV_MIN(a, b) vminq_f32(a, b)
#define VL 4
#define MR 8 /* 16 accumulators, 2 of B, 8 of A, which GCC loads ahead: 26 of 32 registers */
#define ROWS_NBYTES (256 << 10) /* half of the L2 of a Cortex-A72 or a Neoverse N1; not measured */
#include "isa.h"
#else
const qv_kernels QV_ISA = {0};
#endif
