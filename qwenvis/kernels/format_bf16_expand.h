/* Weights in bfloat16, rows in float32: half the memory, on a CPU that cannot multiply bfloat16.
 *
 * Panels are those of f32 with two bytes an entry. They are expanded, a chunk of K at a time, and multiplied by the
 * f32 tile. */

static void bf16_expand(const void *panel, ptrdiff_t steps, ptrdiff_t width, float *out)
{
    widen_bf16(panel, steps * width, out);
}

static void bf16_pack(const void *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, void *panel, ptrdiff_t fill,
                      ptrdiff_t width)
{
    const uint16_t *from = w;
    uint16_t *out = panel;
    for (ptrdiff_t p = 0; p < k; p++, out += width)
        for (ptrdiff_t c = 0; c < fill; c++)
            out[c] = c < columns ? from[c * pitch + p] : 0;
}

static void bf16_pack_transposed(const float *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, void *panel,
                                 ptrdiff_t width)
{
    uint16_t *out = panel;
    for (ptrdiff_t p = 0; p < k; p++, w += pitch, out += width)
        EACH_VECTOR(i, lanes, columns)
            store_as(out, i, load_n(w + i, lanes), VL, QV_BF16);
}

#define BF16_FORMAT                                                                                                    \
    {                                                                                                                  \
        .name = "bf16", .rows_kind = QV_F32, .mr = MR, .nr = NR, .kr = 1, .itemsize = 2, .expand = bf16_expand,        \
        .pack = bf16_pack, .pack_transposed = bf16_pack_transposed, .tile = f32_tile, .peak = f32_chunk_peak           \
    }
