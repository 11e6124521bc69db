/* What the instruction sets with registers of 256 bits share. */
#include <immintrin.h>

#define QV_MAX(a, b) _mm256_max_ps(a, b)
#define QV_MIN(a, b) _mm256_min_ps(a, b)
#define VL 8
#define MR 6 /* 12 accumulators, 2 of B, 1 of A: 15 of 16 registers */
#define ROWS_NBYTES (384 << 10) /* of the 512 kB of L2 of Zen to Zen 3; the rest is for panels and results.
                               * Not measured with AVX-VNNI */
