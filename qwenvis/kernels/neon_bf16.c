/* NEON with BF16, `asimd` and `bf16` in /proc/cpuinfo: Neoverse V1 and N2 (2021), Apple M2 (2022). */
#include "kernels.h"

#define QV_ISA qv_neon_bf16
/* GCC knows it since 10. Clang's header shows the intrinsics of a pragma's target since 16. */
#if defined(__aarch64__) && (defined(__clang__) ? __clang_major__ >= 16 : __GNUC__ >= 10)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
static int has_bf16(void) { return (getauxval(AT_HWCAP2) >> 14) & 1; } /* HWCAP2_BF16, which old headers lack */
#elif defined(__APPLE__)
#include <sys/sysctl.h>
static int has_bf16(void)
{
    int has = 0;
    size_t size = sizeof has;
    return sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size, NULL, 0) == 0 && has;
}
#else
static int has_bf16(void) { return 0; } /* no way to ask is known here */
#endif
#define QV_NAME "neon_bf16"
#define QV_TARGET "arch=armv8.2-a+bf16+dotprod"
#define QV_PRESENT has_bf16()
#define QV_BF16_DOT(c, a, b) vbfdotq_lane_f32(c, (bfloat16x8_t)(b), (bfloat16x4_t)vcreate_s32((uint32_t)(a)), 0)
#define QV_I8_DOT(c, a, b) vdotq_lane_s32(c, (int8x16_t)(b), vcreate_s8((uint32_t)(a)), 0)
#define QV_I8_LEAST -128
#define QV_NARROW(x) ((vh)vcvt_bf16_f32(x))
#define QV_MAX(a, b) vmaxq_f32(a, b)
#define QV_MIN(a, b) vminq_f32(a, b)
#define VL 4
#define MR 8 /* 16 accumulators, 2 of B, 8 of A, which GCC loads ahead: 26 of 32 registers */
#define ROWS_NBYTES (256 << 10) /* half of the L2 of a Cortex-A72 or a Neoverse N1; not measured */
#include "isa.h"
#else
const qv_kernels QV_ISA = {0};
#endif
