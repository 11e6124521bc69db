/* Weights and rows in float32. */

#define TILE f32_tile
#define WORD float
#define WORD_ENTRY 4
#define DOT(c, a, b) ((c) + (a) * (b))
#include "gemm_tile.h"

static void f32_pack(const float *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, void *panel, ptrdiff_t fill,
                     ptrdiff_t width)
{
    float *out = panel;
    for (ptrdiff_t p = 0; p < k; p++, out += width)
        for (ptrdiff_t c = 0; c < fill; c++)
            out[c] = c < columns ? w[c * pitch + p] : 0;
}

static void f32_pack_transposed(const float *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, void *panel,
                                ptrdiff_t width)
{
    float *out = panel;
    for (ptrdiff_t p = 0; p < k; p++, w += pitch, out += width)
        for (ptrdiff_t c = 0; c < width; c += VL)
            store(out + c, load_n(w + c, columns - c));
}

#define F32_FORMAT                                                                                                     \
    {                                                                                                                  \
        .name = "f32", .rows = QV_F32, .mr = MR, .nr = NR, .kr = 1, .itemsize = 4, .pack = f32_pack,                   \
        .pack_transposed = f32_pack_transposed, .tile = f32_tile, .peak = f32_tile_peak                                                       \
    }
