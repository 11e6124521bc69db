/* Weights in int8 with a scale for each column: multiplied as they are, or expanded for the f32 tile where the ISA
 * cannot.
 *
 * A panel begins with the scales of its columns (f32) and the sums of their entries (int32), a word each. Then follow
 * words of four neighbours in K, filled up with zeros. The weight is multiplied by a factor for each entry of K before
 * it is rounded. Where rows are rounded too, both are rotated. docs/int8.md has the formulas. */
#include "hadamard.h"

#ifdef QV_BF16_DOT /* such a set multiplies int8 too */
#define I8_ROWS QV_BF16 /* which one instruction rounds to */
#define I8_ATTENTION &bf16_format
#else
#define I8_ROWS QV_F32
#define I8_ATTENTION &f32_format
#endif
#ifdef QV_I8_DOT
enum { ROTATED = 1, PRODUCT = BLOCK }; /* times the dot product of rotated rows gives that of the rows */
#else
enum { ROTATED = 0, PRODUCT = 1 };
#endif
enum { LARGEST_I8 = 127, HEADER_WORDS = 2 };

/* The signs of the factors: without them a block of equal entries would become one outlier. The Hadamard transform of
 * these is nearly flat, for blocks of BLOCK and of TAIL (`benchmarks.int8` compares others). */
static const uint32_t NEGATIVE[BLOCK / 32] = {0x78887888, 0x87777888, 0x78887888, 0x87777888};

/* Rows are multiplied by the norms of the weight's columns along K, relative to the largest, and the weight by their
 * reciprocals: then each entry of a row is as large as its part in the sums. With the powers of two here the sums of a
 * rotation cannot overflow, and a dot product of rotated rows is that of the rows over BLOCK. */
static void i8_balance(const float *squares, ptrdiff_t k, float *of_rows, float *of_weights)
{
    float most = 0x1p-126f;
    for (ptrdiff_t i = 0; i < k; i++)
        most = fmaxf(most, fminf(squares[i], 0x1p127f));
    for (ptrdiff_t i = 0; i < k; i++) {
        float norm = fmaxf(sqrtf(fminf(squares[i], 0x1p127f) / most), 0x1p-60f);
        float sign = ROTATED && NEGATIVE[i % BLOCK / 32] >> i % 32 & 1 ? -1 : 1;
        float unit = ROTATED && i >= k / BLOCK * BLOCK ? sign * 2 / PRODUCT : sign / PRODUCT; /* 2^2 = BLOCK / TAIL */
        of_rows[i] = unit * norm;
        of_weights[i] = unit / norm;
    }
}

INLINE ptrdiff_t whole_tails(ptrdiff_t k) { return (k + TAIL - 1) / TAIL * TAIL; }

/* The first n entries at x, times their factors, then zeros; rotated, if rows are. */
INLINE void load_block(const void *x, ptrdiff_t n, const float *factors, vf block[BLOCK_VECTORS], qv_dtype dtype)
{
    float filled[BLOCK], of_filled[BLOCK];
    if (n < BLOCK) { /* a whole block is read */
        memset(filled, 0, sizeof filled);
        memset(of_filled, 0, sizeof of_filled);
        x = memcpy(filled, x, (size_t)(n * qv_itemsize(dtype)));
        factors = memcpy(of_filled, factors, (size_t)n * sizeof *factors);
    }
    UNROLL for (int i = 0; i < BLOCK_VECTORS; i++) {
        vh half;
        if (dtype == QV_F32) {
            block[i] = load((const float *)x + i * VL);
        } else {
            memcpy(&half, (const uint16_t *)x + i * VL, sizeof half);
            block[i] = widen(half);
        }
        block[i] *= load(factors + i * VL);
    }
    if (ROTATED)
        rotate_block(block, n);
}

/* Store entries of [-128, 255], rounded to whole numbers: the lowest byte of a sum with ROUNDER is the number. */
INLINE void store_bytes(void *out, vf x)
{
    typedef uint8_t vb __attribute__((vector_size(VL)));
    vb bytes = __builtin_convertvector(__builtin_convertvector((vu)(x + ROUNDER), vh), vb); /* faster than at once */
    memcpy(out, &bytes, sizeof bytes);
}

/* Steps / range, finite where the range is zero or so small that the quotient would overflow. */
INLINE float steps_over(float steps, float range)
{
    float inverse = steps / range;
    return inverse > 0x1p127f ? 0x1p127f : inverse;
}

/* The largest magnitude of a column of k entries, as they will be rounded. */
INLINE float largest_entry(const float *w, ptrdiff_t k, const float *factors)
{
    vf most = {0}, block[BLOCK_VECTORS];
    for (ptrdiff_t p = 0; p < k; p += BLOCK) {
        load_block(w + p, k - p, factors + p, block, QV_F32);
        UNROLL for (int i = 0; i < BLOCK_VECTORS; i++)
            most = max(most, max(block[i], -block[i]));
    }
    return max_lanes(most);
}

/* One block of a column, rounded to multiples of its scale; returns the sum of the entries. */
INLINE int32_t round_block(const float *w, ptrdiff_t n, const float *factors, float inverse, int8_t *out)
{
    vf block[BLOCK_VECTORS], total = {0};
    load_block(w, n, factors, block, QV_F32);
    UNROLL for (int i = 0; i < BLOCK_VECTORS; i++) {
        vf entry = nearest(block[i] * inverse);
        total += entry;
        store_bytes(out + i * VL, entry);
    }
    return (int32_t)sum_lanes(total);
}

static void i8_pack(const void *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, const float *factors, void *panel,
                    ptrdiff_t fill, ptrdiff_t width)
{
    float *scales = panel, *words = scales + HEADER_WORDS * width, inverse[NR];
    int32_t sums[NR] = {0};
    int8_t bytes[NR * BLOCK];
    for (ptrdiff_t c = 0; c < columns; c++) {
        inverse[c] = steps_over(LARGEST_I8, largest_entry((const float *)w + c * pitch, k, factors));
        scales[c] = PRODUCT / inverse[c];
    }
    for (ptrdiff_t p = 0; p < k; p += BLOCK) {
        const ptrdiff_t count = (k - p < BLOCK ? whole_tails(k - p) : BLOCK) / 4;
        for (ptrdiff_t c = 0; c < columns; c++)
            sums[c] += round_block((const float *)w + c * pitch + p, k - p, factors + p, inverse[c],
                                   bytes + c * BLOCK);
        transpose_words((const char *)bytes, BLOCK, columns, count, words, width);
        for (ptrdiff_t i = 0; i < count; i++, words += width)
            zero_words(words, columns, fill);
    }
    zero_words(scales, columns, fill);
    memcpy(scales + width, sums, (size_t)fill * sizeof *sums);
}

#ifdef QV_I8_DOT
#include "format_i8_dot.h"
#else
#include "format_i8_expand.h"
#endif

static const qv_format i8_format = {
    .name = "i8",
    .before = LAST_FORMAT,
    .attention = I8_ATTENTION,
    .rows_dtype = I8_ROWS,
    .source_dtype = QV_F32,
    .mr = MR,
    .nr = NR,
    .kr = 4,
    .block = TAIL,
    .itemsize = 1,
    .header = 4 * HEADER_WORDS,
    .balance = i8_balance,
    .pack = i8_pack,
#ifdef QV_I8_DOT
    .most_k = 1 << 16, /* 255 * 127 * 2^16 < 2^31 */
    .quantize = i8_quantize,
    .tile = i8_tile,
    .peak = i8_words_peak,
#else
    .expand = i8_expand,
    .tile = f32_tile,
    .peak = f32_chunk_peak,
#endif
};
#undef I8_ROWS
#undef I8_ATTENTION
#undef LAST_FORMAT
#define LAST_FORMAT &i8_format
