/* AVX-512 with BF16 and VNNI: Intel Cooper Lake (2020), Sapphire Rapids (2023) and later, AMD Zen 4 (2022) and
 * later. */
#include "kernels.h"

#define QV_ISA qv_avx512_bf16
/* GCC knows it since 10, Clang since 9; an older compiler leaves this ISA out. */
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 9 : __GNUC__ >= 10)
#include "registers_512.h"
#define QV_NAME "avx512_bf16"
#define QV_TARGET "avx512bf16,avx512vnni,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"
#define QV_PRESENT                                                                                                     \
    (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") &&                                   \
     __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
#define QV_BF16_DOT(c, a, b) ((vf)_mm512_dpbf16_ps((__m512)(c), (__m512bh)_mm512_set1_epi32(a), (__m512bh)(b)))
#define QV_I8_DOT(c, a, b) ((vi)_mm512_dpbusd_epi32((__m512i)(c), _mm512_set1_epi32(a), (__m512i)(b)))
#define QV_I8_LEAST 0
#define QV_NARROW(x) ((vh)_mm512_cvtneps_pbh(x))
#define QV_NARROW_TWO(left, right) ((vf)_mm512_cvtne2ps_pbh(right, left))
#define QV_WIDEN(x) ((vu)_mm512_cvtepu16_epi32((__m256i)(x)))
#include "isa.h"
#else
const qv_kernels QV_ISA = {0};
#endif
