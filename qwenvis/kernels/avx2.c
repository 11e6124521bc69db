/* AVX2 with FMA: Intel Haswell (2013) and later, AMD Zen (2017) and later. */
#include "kernels.h"

#define QV_ISA qv_avx2
#ifdef __x86_64__
#include <immintrin.h>
#define QV_NAME "avx2"
#define QV_TARGET "avx2,fma"
#define QV_PRESENT (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#define QV_MAX(a, b) _mm256_max_ps(a, b)
#define QV_MIN(a, b) _mm256_min_ps(a, b)
#define VL 8
#define MR 6 /* 12 accumulators, 2 of B, 1 of A: 15 of 16 registers */
#define ROWS_NBYTES (384 << 10) /* of the 512 kB of L2 of Zen to Zen 3; the rest is for panels and results */
#include "isa.h"
#else
const qv_kernels QV_ISA = {0};
#endif
