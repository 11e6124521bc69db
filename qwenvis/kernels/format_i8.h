/* Weights in int8 with a scale for each column: multiplied as they are, or expanded for the f32 tile where the ISA
 * cannot.
 *
 * A panel begins with the scales of its columns (f32) and the sums of their entries (int32), a word each. Then follow
 * words of four neighbours in K. K is filled up with zeros to whole blocks, which are rotated, as the rows are, where
 * both are multiplied as integers. */
#include "hadamard.h"

#ifdef QV_I8_DOT
enum { ROTATED = 1 };
#else
enum { ROTATED = 0 };
#endif
enum { LARGEST_I8 = 127, HEADER_WORDS = 2 };

/* The entries of a block, n of them at x, then zeros. */
INLINE void load_block(const void *x, ptrdiff_t n, vf block[BLOCK_VECTORS], qv_dtype dtype)
{
    float filled[BLOCK] = {0};
    if (n < BLOCK)
        x = memcpy(filled, x, (size_t)(n * qv_itemsize(dtype)));
    UNROLL for (int i = 0; i < BLOCK_VECTORS; i++) {
        vh half;
        if (dtype == QV_F32) {
            block[i] = load((const float *)x + i * VL);
        } else {
            memcpy(&half, (const uint16_t *)x + i * VL, sizeof half);
            block[i] = (vf)(__builtin_convertvector(half, vu) << 16);
        }
    }
}

/* Store entries of [-128, 255], rounded to whole numbers: the lowest byte of a sum with ROUNDER is the number. */
INLINE void store_bytes(void *out, vf x)
{
    typedef uint8_t vb __attribute__((vector_size(VL)));
    vb bytes = __builtin_convertvector((vu)(x + ROUNDER), vb);
    memcpy(out, &bytes, sizeof bytes);
}

/* Steps / range, finite where the range is zero or so small that the quotient would overflow. */
INLINE float steps_over(float steps, float range)
{
    float inverse = steps / range;
    return inverse > 0x1p127f ? 0x1p127f : inverse; /* NaN stays NaN */
}

/* The largest magnitude of a column of n entries, as it will be rounded. */
INLINE float largest_entry(const float *w, ptrdiff_t n, const vf *signs)
{
    vf most = {0}, block[BLOCK_VECTORS];
    for (ptrdiff_t p = 0; p < n; p += BLOCK) {
        load_block(w + p, n - p, block, QV_F32);
        if (ROTATED)
            rotate_block(block, signs);
        UNROLL for (int i = 0; i < BLOCK_VECTORS; i++)
            most = max(most, max(block[i], -block[i]));
    }
    return max_lanes(most);
}

/* One block of a column, rounded to multiples of its scale; returns the sum of the entries. */
INLINE int32_t round_block(const float *w, ptrdiff_t n, float inverse, const vf *signs, int8_t *out)
{
    vf block[BLOCK_VECTORS], total = {0};
    load_block(w, n, block, QV_F32);
    if (ROTATED)
        rotate_block(block, signs);
    UNROLL for (int i = 0; i < BLOCK_VECTORS; i++) {
        vf entry = nearest(block[i] * inverse);
        total += entry;
        store_bytes(out + i * VL, entry);
    }
    return (int32_t)sum_lanes(total);
}

static void i8_pack(const void *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, void *panel, ptrdiff_t fill,
                    ptrdiff_t width)
{
    float *scales = panel, *words = scales + HEADER_WORDS * width, inverse[NR];
    int32_t sums[NR] = {0};
    int8_t bytes[NR * BLOCK];
    vf signs[BLOCK_VECTORS];
    fill_signs(signs);
    for (ptrdiff_t c = 0; c < columns; c++) {
        inverse[c] = steps_over(LARGEST_I8, largest_entry((const float *)w + c * pitch, k, signs));
        scales[c] = (ROTATED ? BLOCK : 1) / inverse[c];
    }
    for (ptrdiff_t p = 0; p < k; p += BLOCK, words += BLOCK / 4 * width) {
        for (ptrdiff_t c = 0; c < columns; c++)
            sums[c] += round_block((const float *)w + c * pitch + p, k - p, inverse[c], signs, bytes + c * BLOCK);
        transpose_words((const char *)bytes, BLOCK, columns, BLOCK / 4, words, width);
        for (ptrdiff_t i = 0; i < BLOCK / 4; i++)
            zero_words(words + i * width, columns, fill);
    }
    zero_words(scales, columns, fill);
    memcpy(scales + width, sums, (size_t)fill * sizeof *sums);
}

#ifdef QV_I8_DOT
#include "format_i8_dot.h"
#else
#include "format_i8_expand.h"
#endif
