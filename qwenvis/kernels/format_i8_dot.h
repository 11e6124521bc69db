/* Rows rounded to a byte an entry, multiplied with weights in int8 in groups of four, into exact int32 sums.
 *
 * Entry e of a quantised row stands for scale * (e - zero), with one scale and one zero point for each row, which
 * follow its entries. So with the sums of the entries of each column,
 *
 *     row . column = row's scale * column's scale * (dot - zero * sum of the column's entries) */

#define TILE i8_words
#define WORD int32_t
#define WORD_ENTRY 1
#define SUM vi
#define DOT(c, a, b) QV_I8_DOT(c, a, b)
#include "gemm_tile.h"

typedef struct {
    float scale;
    int32_t zero;
} trailer;
_Static_assert(sizeof(trailer) == QV_TRAILER, "the ops leave other room for a trailer");

/* Bytes of a cache line; bytes from the rotated block to the prefetched one, which may be in the next row. */
enum { LINE_NBYTES = 64, AHEAD_NBYTES = 2048 };

/* rotated <- k entries of x, rotated block by block; low and high become the ends of their range, with 0 in it. Returns
 * zero, or NaN if an entry is not finite. */
INLINE float rotate_blocks(const void *x, ptrdiff_t k, const float *factors, float *rotated, float *low, float *high)
{
    vf most = {0}, least = {0}, zero = {0}, block[BLOCK_VECTORS];
    for (ptrdiff_t p = 0; p < k; p += BLOCK) {
        const char *from = (const char *)x + p * qv_itemsize(I8_ROWS);
        for (ptrdiff_t i = 0; i < BLOCK * qv_itemsize(I8_ROWS); i += LINE_NBYTES)
            __builtin_prefetch(from + AHEAD_NBYTES + i);
        load_block(from, k - p, factors + p, block, I8_ROWS);
        UNROLL for (int i = 0; i < BLOCK_VECTORS; i++) {
            most = max(most, block[i]);
            least = min(least, block[i]);
            if (i % TAIL_VECTORS == 0) /* an entry that is not finite spreads over its block */
                zero += block[i] * 0.0f;
            store(rotated + p + i * VL, block[i]);
        }
    }
    *low = -max_lanes(-least), *high = max_lanes(most);
    return sum_lanes(zero);
}

static void i8_quantize(const void *x, ptrdiff_t k, const float *factors, float *scratch, void *row)
{
    float low, high, poison = rotate_blocks(x, k, factors, scratch, &low, &high);
    if (poison != 0) /* no zero point follows from such a range */
        low = high = 0;
    float inverse = steps_over(127.5f, 0.5f * high - 0.5f * low); /* the range may overflow */
    float zero = QV_I8_LEAST + rintf(-low * inverse);
    uint8_t *out = row;
    const ptrdiff_t padded = whole_tails(k);
    for (ptrdiff_t i = 0; i < padded; i += VL) {
        vf entry = load(scratch + i) * inverse + zero;
        store_bytes(out + i, max(splat(QV_I8_LEAST), min(splat(QV_I8_LEAST + 255), entry)));
    }
    trailer end = {1 / inverse + poison, (int32_t)zero};
    memcpy(out + padded, &end, sizeof end);
}

/* sums <- products, in place, from the sums of a tile as integers */
static void dequantize(const uint8_t *trailers, ptrdiff_t rows, ptrdiff_t pitch, const float *header, ptrdiff_t width,
                       float *sums, ptrdiff_t sums_pitch)
{
    for (ptrdiff_t r = 0; r < rows; r++) {
        trailer end;
        memcpy(&end, trailers + r * pitch, sizeof end);
        for (ptrdiff_t c = 0; c < width; c += VL) {
            float *out = sums + r * sums_pitch + c;
            vi dot = (vi)load(out) - (vi)load(header + width + c) * end.zero;
            store(out, __builtin_convertvector(dot, vf) * load(header + c) * end.scale);
        }
    }
}

static void i8_tile(ptrdiff_t rows, ptrdiff_t k, const void *a, ptrdiff_t pitch, const void *panel, ptrdiff_t width,
                    float *sums, ptrdiff_t sums_pitch, int add)
{
    const ptrdiff_t padded = whole_tails(k);
    const float *header = panel;
    (void)add;
    i8_words(rows, padded / 4, a, pitch / 4, header + HEADER_WORDS * width, width, sums, sums_pitch, 0);
    dequantize((const uint8_t *)a + padded, rows, pitch, header, width, sums, sums_pitch);
}
