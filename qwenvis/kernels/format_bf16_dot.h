/* Weights and rows in bfloat16, multiplied in pairs into f32 sums by one instruction: c += a0 b0 + a1 b1. */

#define TILE bf16_words
#define WORD int32_t
#define WORD_ENTRY 2
#define SUM vf
#define DOT(c, a, b) QV_BF16_DOT(c, a, b)
#include "gemm_tile.h"

/* Pitches count entries; an odd K ends in half a word. */
static void bf16_tile(ptrdiff_t rows, ptrdiff_t k, const void *a, ptrdiff_t pitch, const void *panel, ptrdiff_t width,
                      float *sums, ptrdiff_t sums_pitch, int add)
{
    const uint16_t *from = a;
    bf16_words(rows, k / 2, a, pitch / 2, panel, width, sums, sums_pitch, add);
    if (k % 2) {
        int32_t last[MR];
        for (ptrdiff_t r = 0; r < rows; r++)
            last[r] = from[r * pitch + k - 1];
        bf16_words(rows, 1, last, 1, (const float *)panel + k / 2 * width, width, sums, sums_pitch, 1);
    }
}

static void bf16_pack(const void *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, const float *factors,
                      void *panel, ptrdiff_t fill, ptrdiff_t width)
{
    (void)factors;
    const uint16_t *from = w;
    float *out = panel;
    transpose_words(w, 2 * pitch, columns, k / 2, out, width);
    if (k % 2)
        for (ptrdiff_t c = 0; c < columns; c++) {
            uint32_t last = from[c * pitch + k - 1];
            memcpy(out + k / 2 * width + c, &last, sizeof last);
        }
    for (ptrdiff_t p = 0; p < k; p += 2, out += width)
        zero_words(out, columns, fill);
}

/* A word of a panel: neighbours in K, the first in the lower half. */
INLINE vu pair(vf first, vf second)
{
    return __builtin_convertvector(narrow(first), vu) | __builtin_convertvector(narrow(second), vu) << 16;
}

static void bf16_pack_transposed(const float *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, void *panel,
                                 ptrdiff_t width)
{
    float *out = panel;
    EACH_VECTOR(i, lanes, columns)
        for (ptrdiff_t p = 0; p < k; p += 2) {
            const float *first = w + p * pitch + i;
            vf second = p + 1 < k ? load_n(first + pitch, lanes) : (vf){0};
            store(out + p / 2 * width + i, (vf)pair(load_n(first, lanes), second));
        }
}

static const qv_format bf16_format = {
    .name = "bf16",
    .before = LAST_FORMAT,
    .attention = &bf16_format,
    .rows_dtype = QV_BF16,
    .source_dtype = QV_BF16,
    .mr = MR,
    .nr = NR,
    .kr = 2,
    .block = 2,
    .itemsize = 2,
    .pack = bf16_pack,
    .pack_transposed = bf16_pack_transposed,
    .tile = bf16_tile,
    .peak = bf16_words_peak,
};
#undef LAST_FORMAT
#define LAST_FORMAT &bf16_format
