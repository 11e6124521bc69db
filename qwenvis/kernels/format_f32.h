/* Weights and rows in float32. */

#define TILE f32_chunk
#define WORD float
#define WORD_ENTRY 4
#define SUM vf
#define DOT(c, a, b) ((c) + (a) * (b))
#include "gemm_tile.h"

/* Sums of QV_CHUNK products are added up: the error grows with the length of a chunk, not with K. */
static void f32_tile(ptrdiff_t rows, ptrdiff_t k, const void *a, ptrdiff_t pitch, const void *panel, ptrdiff_t width,
                     float *sums, ptrdiff_t sums_pitch, int add)
{
    for (ptrdiff_t p = 0; p < k; p += QV_CHUNK) {
        ptrdiff_t steps = k - p < QV_CHUNK ? k - p : QV_CHUNK;
        f32_chunk(rows, steps, (const float *)a + p, pitch, (const float *)panel + p * width, width, sums, sums_pitch,
                  add || p);
    }
}

static void f32_pack(const void *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, const float *factors,
                     void *panel, ptrdiff_t fill, ptrdiff_t width)
{
    (void)factors;
    transpose_words(w, 4 * pitch, columns, k, panel, width);
    for (ptrdiff_t p = 0; p < k; p++)
        zero_words((float *)panel + p * width, columns, fill);
}

static void f32_pack_transposed(const float *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, void *panel,
                                ptrdiff_t width)
{
    float *out = panel;
    if (columns == NR) /* one loop instead of NV short ones */
        for (ptrdiff_t p = 0; p < k; p++)
            UNROLL for (int v = 0; v < NV; v++)
                store(out + p * NR + v * VL, load(w + p * pitch + v * VL));
    else
        EACH_VECTOR(i, lanes, columns)
            for (ptrdiff_t p = 0; p < k; p++)
                store(out + p * width + i, load_n(w + p * pitch + i, lanes));
}

static const qv_format f32_format = {
    .name = "f32",
    .before = LAST_FORMAT,
    .attention = &f32_format,
    .rows_dtype = QV_F32,
    .source_dtype = QV_F32,
    .mr = MR,
    .nr = NR,
    .kr = 1,
    .block = 1,
    .itemsize = 4,
    .pack = f32_pack,
    .pack_transposed = f32_pack_transposed,
    .tile = f32_tile,
    .peak = f32_chunk_peak,
};
#undef LAST_FORMAT
#define LAST_FORMAT &f32_format
