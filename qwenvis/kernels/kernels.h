/* The contract between the ops and one instruction set (ISA).
 *
 * A kernel knows pointers and lengths. It allocates nothing, starts no thread, cannot fail, writes only what its
 * formula names, and reads nothing past the lengths that it is given. Pointers need the alignment of their element
 * only; a pitch of rows that a tile reads is a whole number of words. Outputs must not alias inputs unless a slot
 * says so. A pitch is the distance of two rows, in elements.
 *
 * A weight is stored as panels. A panel holds `nr` columns of the product (rows of the (N, K) weight) and runs along
 * the whole of K; the last panel of a matrix may be narrow, nr / 2 columns wide, where no more are needed:
 *
 *     W (N, K)                    panel[k / kr][nr][kr]
 *     row 0    : w00 w01 w02 ...      k = 0 : w00 w10 w20 ... w(nr-1)0
 *     row 1    : w10 w11 w12 ...      k = 1 : w01 w11 w21 ... w(nr-1)1
 *     ...                             ...
 *
 * A format of two bytes may take two steps of K at a time (kr = 2), and a format of one byte four: neighbours in K
 * stand side by side, and the last group is filled up with zeros. A format may begin a panel with facts about each
 * column. Packed checkpoints are files of panels: LAYOUT in packed.py numbers this picture.
 *
 * NaN and infinity are never lost: where an entry of an operand is one of them, so is each result that depends on it,
 * and so is each result for which a sum of squares overflows. One look at the end of a layer therefore finds what went
 * wrong inside. The exception is a score of minus infinity, whose softmax weight is that of -126, the least there is.
 *
 * A tile is the product of up to `mr` rows with one panel. It leaves its sums in a small array; `finish` adds the bias,
 * applies the activation, and writes the result. So a tile knows nothing of what follows it.
 */
#ifndef QV_KERNELS_H
#define QV_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Activations of a finished tile, named as in a checkpoint's config ("none" and "silu_gate" are ours).
 * silu_gate reads a row as [gate | up], two halves of the panel, and leaves silu(gate) * up in the first half. */
#define QV_ACTIVATIONS(X) X(none) X(quick_gelu) X(gelu) X(gelu_pytorch_tanh) X(silu_gate)

#define QV_ENUM(name) QV_ACT_##name,
enum { QV_ACTIVATIONS(QV_ENUM) QV_ACTIVATION_COUNT };
#undef QV_ENUM

/* The dtypes of rows of activations, each with the type of an entry. */
#define QV_DTYPES(X) X(F32, float) X(BF16, uint16_t)

#define QV_ENUM(name, entry) QV_##name,
typedef enum { QV_DTYPES(QV_ENUM) QV_DTYPE_COUNT } qv_dtype;
#undef QV_ENUM

/* Bytes of an entry. */
static inline ptrdiff_t qv_itemsize(qv_dtype dtype)
{
#define QV_SIZE(name, entry) [QV_##name] = sizeof(entry),
    static const ptrdiff_t sizes[] = {QV_DTYPES(QV_SIZE)};
#undef QV_SIZE
    return sizes[dtype];
}

enum {
    QV_MAX_MR = 16,
    QV_MAX_NR = 32,
    QV_CHUNK = 512, /* products of f32 that are summed before they join the others */
    QV_WORD = 4,      /* bytes that a tile reads of a row at a time */
    QV_SCRATCH = 128, /* floats behind the entries of a row that `quantize` rotates: the rest of a block */
    QV_TRAILER = 8,   /* bytes behind the entries of a quantised row: scale and zero point */
};

/* A number format: how a weight is stored and multiplied. */
typedef struct qv_format {
    const char *name;                  /* "f32" */
    const struct qv_format *before;    /* the format before it in formats.h, NULL for the first */
    const struct qv_format *attention; /* the format of keys and values, where weights are in this one */
    qv_dtype rows_dtype;               /* of the rows that the tile, or `quantize` before it, reads */
    qv_dtype source_dtype;             /* of the weight that `pack` reads; what is finite there is finite once packed */
    int mr, nr, kr;                    /* rows and columns of a tile, entries of K that one step takes */
    int block;                         /* entries of K of which a panel holds a whole number */
    int itemsize;                      /* bytes of one stored entry */
    int header;                        /* bytes that a panel begins with, for each of its columns */
    ptrdiff_t most_k;                  /* the longest sums that cannot overflow, 0 for any */

    /* NULL, or: entries `first` to `first + steps` of K of a panel, widened for a tile that reads f32 panels */
    void (*expand)(const void *panel, const float *factors, ptrdiff_t first, ptrdiff_t steps, ptrdiff_t width,
                   float *out);
    /* NULL, or: factors for each of k entries: those of rows, which `expand` or `quantize` take, and those of the
     * weight, which `pack` takes; `squares` are the squared norms of the columns W[:, k] of the weight (N, K) */
    void (*balance)(const float *squares, ptrdiff_t k, float *of_rows, float *of_weights);
    /* NULL, or: the row that the tile reads <- k entries x in `rows_dtype`. It has a whole number of blocks of bytes,
     * then QV_TRAILER bytes; `scratch` has k + QV_SCRATCH floats */
    void (*quantize)(const void *x, ptrdiff_t k, const float *factors, float *scratch, void *row);
    /* The first `fill` columns of a panel of `width` columns <- rows of w (columns, k) in `source_dtype`, then zeros */
    void (*pack)(const void *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, const float *factors, void *panel,
                 ptrdiff_t fill, ptrdiff_t width);
    /* A whole panel <- columns of w (k, columns) in f32, then zeros; `width` is nr / 2 where that holds them. NULL
     * where attention is in another format */
    void (*pack_transposed)(const float *w, ptrdiff_t pitch, ptrdiff_t columns, ptrdiff_t k, void *panel,
                            ptrdiff_t width);
    /* sums[r][c] = a[r][:] . panel[:][c], added to what is there if `add`, which is 0 for quantised rows; rows <= mr,
     * width nr or nr / 2, k > 0.
     * K runs in one fixed order, so a sum depends on neither `rows` nor the other rows. */
    void (*tile)(ptrdiff_t rows, ptrdiff_t k, const void *a, ptrdiff_t pitch, const void *panel, ptrdiff_t width,
                 float *sums, ptrdiff_t sums_pitch, int add);
    /* `steps` rounds of multiply-adds as the tile has them, from registers only: the instruction peak. Returns the
     * number of flops; writes one value to `sink`, so that the work is not removed. */
    double (*peak)(ptrdiff_t steps, float *sink);
} qv_format;

typedef void (*qv_norm)(const float *x, ptrdiff_t d, const float *weight, const float *bias, float eps, void *out,
                     qv_dtype dtype);

/* Output i of a resampling along one axis is the sum of weights[i * taps + k] * input[starts[i] + k] over k < taps, in
 * fixed point: over 2^precision, rounded half up, between 0 and 255. The sums fit int32. */
typedef struct {
    const int32_t *starts, *weights;
    ptrdiff_t taps, n;
    int precision;
} qv_resampling;

typedef struct {
    const char *name;     /* as in /proc/cpuinfo; NULL where the compiler or the CPU family lacks it */
    int (*present)(void); /* does this CPU have it? */
    ptrdiff_t rows_nbytes; /* most bytes of the rows that one task of a product should take */
    const qv_format *formats; /* the last one of formats.h; each knows the one before it */

    /* Epilogue of a tile: out[r][c] = activation(sums[r][c] + bias[c]) for c < columns; an f32 out adds it to what is
     * there if `add`. Sums, and the bias, lie `width` apart: a whole number of vectors, and twice that for silu_gate */
    void (*finish[QV_ACTIVATION_COUNT])(const float *sums, ptrdiff_t rows, ptrdiff_t width, const float *bias,
                                        void *out, ptrdiff_t pitch, ptrdiff_t columns, qv_dtype dtype, int add);

    /* Rows. `dtype` is that of out; bfloat16 is rounded to nearest, ties to even.
     *
     * out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, over d entries; out may be x, if it is f32 */
    qv_norm layer_norm;
    /* out = x / sqrt(mean(x^2) + eps) * weight; `bias` is ignored; out may be x, if it is f32 */
    qv_norm rms_norm;
    /* out = scale * (x cos + rotate_half(x) sin), over 2 * half entries; cos and sin have `half`. Returns the sum of
     * squares of out before its rounding, or up to twice as much: entries that are computed twice count twice */
    float (*rope)(const float *x, const float *cos, const float *sin, ptrdiff_t half, float scale, void *out,
                 qv_dtype dtype);
    /* One block of n scores of each of `rows` <= mr queries, in units of log 2, online: with m the running maximum and
     * l the running sum of a query, m' = max(m, max s), factor = 2^(m - m'), out = 2^(s - m'), l <- l factor + sum out,
     * m <- m'. Earlier results of a query take its factor. For a bf16 out, powers are off by up to 1.1e-4 before their
     * rounding, in l too. Rows of s and of out lie `pitch` apart and are written up to a whole vector; out may be s, if
     * it is f32. */
    void (*softmax)(float *s, ptrdiff_t pitch, ptrdiff_t rows, ptrdiff_t n, float *m, float *l, float *factors,
                    void *out, qv_dtype dtype);
    /* One block of n finite scores of each of `rows` <= mr queries, in units of log 2, at most 127 above the top of the
     * query: out = 2^(s - top), and totals += out, in nr / 2 sums a query, which together are the sum of its powers.
     * Powers below 2^-126 become 2^-126 or less. As above, powers for bf16 are off by up to 1.1e-4 before their
     * rounding, and rows lie `pitch` apart. s and out are written up to a whole panel: scores beyond n are -126 */
    void (*powers)(float *s, ptrdiff_t pitch, ptrdiff_t rows, ptrdiff_t n, const float *tops, float *totals, void *out,
                   qv_dtype dtype);
    /* squares += x^2, over n entries of this dtype */
    void (*add_squares)(const void *x, ptrdiff_t n, qv_dtype dtype, float *squares);
    /* The sum of d entries */
    float (*sum)(const float *x, ptrdiff_t d);
    /* out = x * factor, over d entries; out may be x, if it is f32 */
    void (*scale)(const float *x, ptrdiff_t d, float factor, void *out, qv_dtype dtype);
    /* out = x, over n entries */
    void (*copy)(const float *x, ptrdiff_t n, void *out, qv_dtype dtype);
    /* out[i] = table[x[i * stride]], over n entries; table has 256 */
    void (*lookup)(const uint8_t *x, ptrdiff_t stride, ptrdiff_t n, const float *table, float *out);
    /* One row of n pixels of RGB bytes, resampled from the row x of `width` pixels */
    void (*resample_row)(const uint8_t *x, ptrdiff_t width, const qv_resampling *r, uint8_t *out);
    /* Row i of a picture whose rows are resampled: `bytes` of them, from rows that lie `bytes` apart at x */
    void (*resample_column)(const uint8_t *x, ptrdiff_t bytes, const qv_resampling *r, ptrdiff_t i, uint8_t *out);
    /* out = x, widened from bfloat16 */
    void (*widen_bf16)(const uint16_t *x, ptrdiff_t n, float *out);
    /* 1 if each of n entries is finite, else 0 */
    int (*all_finite)(const void *x, ptrdiff_t n, qv_dtype dtype);
} qv_kernels;

extern const qv_kernels qv_generic, qv_avx2, qv_avx_vnni, qv_avx512, qv_avx512_vnni, qv_avx512_bf16, qv_neon,
    qv_neon_dotprod, qv_neon_bf16;

/* Every ISA that the source has, plainest first, ended by NULL. One that is not compiled has no name. */
extern const qv_kernels *const qv_isas[];

#endif
