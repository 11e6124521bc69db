/* Weights in bfloat16, rows in float32: half the memory, on a CPU that cannot multiply bfloat16.
 *
 * Panels are those of f32 with two bytes an entry. They are expanded, a chunk of K at a time, and multiplied by the
 * f32 tile. */

static void bf16_expand(const void *panel, const float *factors, ptrdiff_t first, ptrdiff_t steps, ptrdiff_t width,
                        float *out)
{
    (void)factors;
    widen_bf16((const uint16_t *)panel + first * width, steps * width, out);
}

static void bf16_pack(const void *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, const float *factors,
                      void *panel, ptrdiff_t fill, ptrdiff_t width)
{
    (void)factors;
    const uint16_t *from = w;
    uint16_t *out = panel;
    for (ptrdiff_t p = 0; p < k; p++, out += width)
        for (ptrdiff_t c = 0; c < fill; c++)
            out[c] = c < columns ? from[c * pitch + p] : 0;
}

static const qv_format bf16_format = {
    .name = "bf16",
    .before = LAST_FORMAT,
    .attention = &f32_format, /* whose keys and values need no expansion */
    .rows_dtype = QV_F32,
    .source_dtype = QV_BF16,
    .mr = MR,
    .nr = NR,
    .kr = 1,
    .block = 1,
    .itemsize = 2,
    .expand = bf16_expand,
    .pack = bf16_pack,
    .tile = f32_tile,
    .peak = f32_chunk_peak,
};
#undef LAST_FORMAT
#define LAST_FORMAT &bf16_format
