/* AVX-512 F: Intel Skylake-SP (2017) and later servers, AMD Zen 4 (2022) and later. */
#include "kernels.h"

#define QV_ISA qv_avx512
#ifdef __x86_64__
#include <immintrin.h>
#define QV_NAME "avx512"
#define QV_TARGET "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"
#define QV_PRESENT                                                                                                     \
    (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&  \
     __builtin_cpu_supports("avx512dq"))
#define QV_MAX(a, b) _mm512_max_ps(a, b)
#define QV_MIN(a, b) _mm512_min_ps(a, b)
#define QV_NEAREST(x) _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define QV_SCALE(x, n) _mm512_scalef_ps(x, n)
#define VL 16
#define MR 14 /* 28 accumulators, 2 of B, 1 of A: 31 of 32 registers */
#define ROWS_NBYTES (4 << 20) /* tuned with 12 tiles at any K: a limit only above K = 6200 in float32 */
#include "isa.h"
#else
const qv_kernels QV_ISA = {0};
#endif
