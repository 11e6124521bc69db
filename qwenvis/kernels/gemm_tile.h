/* The f32 tile: MR rows by NV vectors of columns, every accumulator in a register. */

enum { NV = 2, NR = NV * VL };

/* `rows` and `vectors` are constants wherever this is inlined, so each remainder is its own straight-line loop. */
INLINE void multiply(int rows, int vectors, ptrdiff_t k, const float *a, ptrdiff_t pitch, const float *panel,
                     float *sums, ptrdiff_t sums_pitch, int add)
{
    vf c[MR][NV];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++)
            c[r][v] = add ? load(sums + r * sums_pitch + v * VL) : (vf){0};
    for (ptrdiff_t p = 0; p < k; p++) {
        vf b[NV];
        UNROLL for (int v = 0; v < vectors; v++)
            b[v] = load(panel + (p * vectors + v) * VL);
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int v = 0; v < vectors; v++)
                c[r][v] += a[r * pitch + p] * b[v];
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++)
            store(sums + r * sums_pitch + v * VL, c[r][v]);
}

/* One function for each number of rows; cases beyond MR vanish. */
#define CASE(R)                                                                                                        \
    case R:                                                                                                            \
        if (R <= MR)                                                                                                   \
            multiply(R <= MR ? R : MR, vectors, k, a, pitch, panel, sums, sums_pitch, add);                            \
        return;

INLINE void by_rows(ptrdiff_t rows, int vectors, ptrdiff_t k, const float *a, ptrdiff_t pitch, const float *panel,
                    float *sums, ptrdiff_t sums_pitch, int add)
{
    switch (rows) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
        CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14) CASE(15) CASE(16)
    }
}
#undef CASE

static void tile(ptrdiff_t rows, ptrdiff_t k, const void *a, ptrdiff_t pitch, const void *panel, ptrdiff_t width,
                 float *sums, ptrdiff_t sums_pitch, int add)
{
    if (width == NR)
        by_rows(rows, NV, k, a, pitch, panel, sums, sums_pitch, add);
    else
        by_rows(rows, NV / 2, k, a, pitch, panel, sums, sums_pitch, add);
}

static void pack(const float *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, void *panel, ptrdiff_t fill,
                 ptrdiff_t width)
{
    float *out = panel;
    for (ptrdiff_t p = 0; p < k; p++, out += width)
        for (ptrdiff_t c = 0; c < fill; c++)
            out[c] = c < columns ? w[c * pitch + p] : 0;
}

static void pack_transposed(const float *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, void *panel,
                            ptrdiff_t width)
{
    float *out = panel;
    for (ptrdiff_t p = 0; p < k; p++, w += pitch, out += width)
        for (ptrdiff_t c = 0; c < width; c += VL)
            store(out + c, load_n(w + c, columns - c));
}

static void store_tile(const float *sums, ptrdiff_t sums_pitch, ptrdiff_t rows, ptrdiff_t columns, float *out,
                       ptrdiff_t pitch, int add)
{
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < columns; c += VL) {
            vf x = load(sums + r * sums_pitch + c);
            float *to = out + r * pitch + c;
            store_n(to, add ? load_n(to, columns - c) + x : x, columns - c);
        }
}

/* As many chains as a tile has accumulators, fed from registers only. */
static double peak(ptrdiff_t steps, float *sink)
{
    vf c[MR][NV], factor = splat(1.0f), term = splat(1e-9f);
    __asm__ volatile("" : "+m"(factor), "+m"(term));
    UNROLL for (int r = 0; r < MR; r++)
        UNROLL for (int v = 0; v < NV; v++)
            c[r][v] = splat((float)(r * NV + v)); /* all different, or the compiler joins the chains */
    for (ptrdiff_t i = 0; i < steps; i++)
        UNROLL for (int r = 0; r < MR; r++)
            UNROLL for (int v = 0; v < NV; v++)
                c[r][v] = c[r][v] * factor + term;
    vf total = {0};
    UNROLL for (int r = 0; r < MR; r++)
        UNROLL for (int v = 0; v < NV; v++)
            total += c[r][v];
    *sink = sum_lanes(total);
    return 2.0 * (double)steps * MR * NV * VL;
}
