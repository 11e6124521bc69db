/* NEON with BF16, `asimd` and `bf16` in /proc/cpuinfo: Neoverse V1 and N2 (2021), Apple M2 (2022). */
#include "kernels.h"

#define QV_ISA qv_neon_bf16
/* GCC knows it since 10. Clang's header shows the intrinsics of a pragma's target since 16. */
#if defined(__aarch64__) && (defined(__clang__) ? __clang_major__ >= 16 : __GNUC__ >= 10)
#include "registers_neon.h"
#define QV_NAME "neon_bf16"
#define QV_TARGET "arch=armv8.2-a+bf16+dotprod"
#define QV_PRESENT /* HWCAP2_BF16 and HWCAP_ASIMDDP */                                                                 \
    (QV_CPU_HAS(AT_HWCAP2, 14, "FEAT_BF16") && QV_CPU_HAS(AT_HWCAP, 20, "FEAT_DotProd"))
#define QV_BF16_DOT(c, a, b) vbfdotq_lane_f32(c, (bfloat16x8_t)(b), (bfloat16x4_t)vcreate_s32((uint32_t)(a)), 0)
#define QV_I8_DOT(c, a, b) vdotq_lane_s32(c, (int8x16_t)(b), vcreate_s8((uint32_t)(a)), 0)
#define QV_I8_LEAST -128
#define QV_NARROW(x) ((vh)vcvt_bf16_f32(x))
#include "isa.h"
#else
const qv_kernels QV_ISA = {0};
#endif
