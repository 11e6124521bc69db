/* What the instruction sets with registers of 512 bits share. */
#include <immintrin.h>

#define QV_MAX(a, b) _mm512_max_ps(a, b)
#define QV_MIN(a, b) _mm512_min_ps(a, b)
#define QV_NEAREST(x) _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define QV_SCALE(x, n) _mm512_scalef_ps(x, n)
#define VL 16
#define MR 14 /* 28 accumulators, 2 of B, 1 of A: 31 of 32 registers */
#define ROWS_NBYTES (4 << 20) /* tuned with 12 tiles at any K: a limit only above K = 6200 in float32 */
