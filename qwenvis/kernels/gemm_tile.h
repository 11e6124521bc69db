/* The tile, a template: MR rows by two vectors of columns, or one, every accumulator in a register.
 *
 * The file that includes this defines TILE, the name of the function, WORD, a type of four bytes, WORD_ENTRY, the bytes
 * of one entry in it, SUM, the type of a vector of sums, vf or vi, and DOT(c, a, b): c plus the product of a word of a
 * row with a vector of words of a panel. A word is one f32, or as many neighbours in K as four bytes hold, so one
 * addressing serves every format. */

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define MULTIPLY JOIN(TILE, _multiply)
#define BY_ROWS JOIN(TILE, _by_rows)
#define PEAK JOIN(TILE, _peak)
#define LINE 16 /* floats of a cache line */
/* Steps from the multiplied step to the prefetched step, as the panel streams from L2: tuned by
 * benchmarks.ops. */
#define AHEAD 32
/* Rows that share a pointer. With one offset for each row, GCC runs out of integer registers and keeps the rest in
 * vector registers, where reading them takes the time of a product: 5 % of a tile of 13 rows. */
#define GROUP 3

/* `rows` and `vectors` are constants wherever this is inlined, so each remainder is its own straight-line loop. */
INLINE void MULTIPLY(int rows, int vectors, ptrdiff_t words, const WORD *a, ptrdiff_t pitch, const float *panel,
                     float *sums, ptrdiff_t sums_pitch, int add)
{
    SUM c[MR][NV];
    const WORD *groups[MR];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++)
            c[r][v] = (SUM){0};
    UNROLL for (int r = 0; r < rows; r += GROUP) {
        groups[r / GROUP] = a + r * pitch;
        OPAQUE_POINTER(groups[r / GROUP]); /* or it computes offsets from `a` again */
    }
    for (ptrdiff_t p = 0; p < words; p++) {
        const float *step = panel + p * vectors * VL;
        UNROLL for (int i = 0; i < vectors * VL; i += LINE)
            __builtin_prefetch(step + AHEAD * vectors * VL + i);
        vf left = load(step), right = vectors == NV ? load(step + VL) : left;
        UNROLL for (int r = 0; r < rows; r++) {
            const WORD *word = groups[r / GROUP] + r % GROUP * pitch + p;
            c[r][0] = DOT(c[r][0], *word, left);
            if (vectors == NV)
                c[r][1] = DOT(c[r][1], *word, right);
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++) {
            float *out = sums + r * sums_pitch + v * VL;
            store(out, add ? (vf)((SUM)load(out) + c[r][v]) : (vf)c[r][v]);
        }
}

/* One function for each number of rows; cases beyond MR vanish. */
#define CASE(R)                                                                                                        \
    case R:                                                                                                            \
        if (R <= MR)                                                                                                   \
            MULTIPLY(R <= MR ? R : MR, vectors, words, a, pitch, panel, sums, sums_pitch, add);                        \
        return;

INLINE void BY_ROWS(ptrdiff_t rows, int vectors, ptrdiff_t words, const WORD *a, ptrdiff_t pitch, const float *panel,
                    float *sums, ptrdiff_t sums_pitch, int add)
{
    switch (rows) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
        CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14) CASE(15) CASE(16)
    }
}
#undef CASE

static void TILE(ptrdiff_t rows, ptrdiff_t words, const void *a, ptrdiff_t pitch, const void *panel, ptrdiff_t width,
                 float *sums, ptrdiff_t sums_pitch, int add)
{
    if (width == NR)
        BY_ROWS(rows, NV, words, a, pitch, panel, sums, sums_pitch, add);
    else
        BY_ROWS(rows, NV / 2, words, a, pitch, panel, sums, sums_pitch, add);
}

/* The instruction peak: as many chains as a tile has accumulators, fed from registers only. */
static double PEAK(ptrdiff_t steps, float *sink)
{
    SUM c[MR][NV], total = {0};
    vf b[NV] = {{0}};
    const WORD a = 0;
    UNROLL for (int r = 0; r < MR; r++)
        UNROLL for (int v = 0; v < NV; v++)
            c[r][v] = __builtin_convertvector(splat((float)(r * NV + v)), SUM); /* or the compiler joins the chains */
    for (ptrdiff_t i = 0; i < steps; i++) {
        UNROLL for (int r = 0; r < MR; r++)
            UNROLL for (int v = 0; v < NV; v++) {
                OPAQUE(b[v]); /* or it takes the product out of the loop, or once for all rows */
                c[r][v] = DOT(c[r][v], a, b[v]);
            }
    }
    UNROLL for (int r = 0; r < MR; r++)
        UNROLL for (int v = 0; v < NV; v++)
            total += c[r][v];
    *sink = sum_lanes(__builtin_convertvector(total, vf));
    return 2.0 * (double)steps * MR * NV * VL * (4 / WORD_ENTRY);
}

#undef MULTIPLY
#undef BY_ROWS
#undef PEAK
#undef LINE
#undef AHEAD
#undef GROUP
#undef WORD_ENTRY
#undef TILE
#undef WORD
#undef SUM
#undef DOT
