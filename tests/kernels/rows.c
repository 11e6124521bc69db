/* Functions of one row: norms, rope, the softmax, conversions. */
#include <math.h>
#include <string.h>

#include "check.h"

static const ptrdiff_t WIDTHS[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 97, 1280};
enum { WIDTH_COUNT = sizeof WIDTHS / sizeof *WIDTHS };

/* LayerNorm with a bias, RMSNorm without: tolerance.norm_tolerance. */
static void check_norm(qv_norm norm, int layer, ptrdiff_t d, qv_dtype dtype)
{
    float *x = numbers(d, 3), *weight = numbers(d, 2), *bias = numbers(d, 1);
    void *out = row_of(d, dtype);
    norm(x, d, weight, bias, 1e-6f, out, dtype);
    double mean = 0, size = 0, square = 0, units = growth(d);
    for (ptrdiff_t i = 0; i < d; i++)
        mean += layer ? (double)x[i] / (double)d : 0, size += layer ? fabs((double)x[i]) / (double)d : 0;
    for (ptrdiff_t i = 0; i < d; i++)
        square += (x[i] - mean) * (x[i] - mean) / (double)d;
    double rstd = 1 / sqrt(square + (double)1e-6f);
    for (ptrdiff_t i = 0; i < d; i++) {
        double shift = layer ? bias[i] : 0, want = (x[i] - mean) * rstd * weight[i] + shift;
        double off = (units * size + (units + 4) * fabs(x[i] - mean)) * rstd * fabs(weight[i]) + fabs(shift);
        close_to(entry(out, i, dtype), want, UNIT * off + stored(want, dtype), i);
    }
    if (dtype == QV_F32) {
        norm(x, d, weight, bias, 1e-6f, x, dtype);
        equal(x, out, (size_t)d * sizeof *x);
    }
}

static void check_rope(const qv_kernels *isa, ptrdiff_t half, qv_dtype dtype)
{
    float *x = numbers(2 * half, 2), *cosine = numbers(half, 1), *sine = numbers(half, 1), scale = 0.7f;
    void *out = row_of(2 * half, dtype);
    double squares = 0, got = isa->rope(x, cosine, sine, half, scale, out, dtype);
    for (ptrdiff_t i = 0; i < half; i++) {
        double a = x[i], b = x[half + i], c = (double)scale * cosine[i], s = (double)scale * sine[i];
        double bound = 4 * UNIT * (fabs(a) + fabs(b));
        close_to(entry(out, i, dtype), a * c - b * s, bound + stored(a * c - b * s, dtype), i);
        close_to(entry(out, half + i, dtype), b * c + a * s, bound + stored(b * c + a * s, dtype), half + i);
        squares += (a * c - b * s) * (a * c - b * s) + (b * c + a * s) * (b * c + a * s);
    }
    double lost = UNIT * (growth(2 * half) + 16) * squares;
    true_that(got >= squares - lost && got <= 2 * squares + lost, "the squares are all added, once or twice");
}

/* Conversions are exact or rounded once, so their bits are known. */
static void check_conversions(const qv_kernels *isa, ptrdiff_t n)
{
    float *x = numbers(n, 5), *wide = floats(n), *scaled = floats(n), factor = 1.3f;
    uint16_t *half = halves(n), *want = halves(n);
    const float special[] = {INFINITY, -INFINITY, 0, -0.0f, 0x1.01p0f, 0x1.03p0f, 0x1.fffffep127f,
                             0x1p-126f, 0x1p-130f, -0x1.8p-127f, 0x1p-149f, NAN};
    for (ptrdiff_t i = 0; i < n && n >= 31; i++)
        x[i] = i < (ptrdiff_t)(sizeof special / sizeof *special) ? special[i] : x[i];
    for (ptrdiff_t i = 0; i < n; i++)
        want[i] = rounded(isa, x[i]);
    isa->copy(x, n, half, QV_BF16);
    equal(half, want, (size_t)n * sizeof *half);
    isa->copy(x, n, wide, QV_F32);
    equal(wide, x, (size_t)n * sizeof *wide);
    isa->widen_bf16(half, n, wide);
    for (ptrdiff_t i = 0; i < n; i++)
        true_that(wide[i] == from_bf16(half[i]) || (isnan(wide[i]) && isnan(x[i])), "a widened entry has its value");
    isa->scale(x, n, factor, scaled, QV_F32);
    isa->scale(x, n, factor, half, QV_BF16);
    for (ptrdiff_t i = 0; i < n; i++) {
        true_that(scaled[i] == x[i] * factor || isnan(x[i]), "a scaled entry is rounded once");
        true_that(half[i] == rounded(isa, scaled[i]), "then to bfloat16");
    }
}

static void check_lookup(const qv_kernels *isa, ptrdiff_t n)
{
    float *table = numbers(256, 1), *out = floats(n);
    uint8_t pixels[3 * 1280];
    for (ptrdiff_t i = 0; i < 3 * n; i++)
        pixels[i] = (uint8_t)(i * 37);
    isa->lookup(pixels, 3, n, table, out);
    for (ptrdiff_t i = 0; i < n; i++)
        true_that(out[i] == table[(uint8_t)(3 * i * 37)], "an entry is the table's");
}

void check_rows(const qv_kernels *isa)
{
    for (int i = 0; i < WIDTH_COUNT; i++) {
        subject("%s row of %td", isa->name, WIDTHS[i]);
        for (int dtype = 0; dtype < QV_DTYPE_COUNT; dtype++) {
            check_norm(isa->layer_norm, 1, WIDTHS[i], (qv_dtype)dtype);
            check_norm(isa->rms_norm, 0, WIDTHS[i], (qv_dtype)dtype);
            check_rope(isa, WIDTHS[i], (qv_dtype)dtype);
        }
        check_conversions(isa, WIDTHS[i]);
        check_lookup(isa, WIDTHS[i]);
        release();
    }
}

enum { BLOCKS = 3, PITCH = 528 }; /* a whole number of vectors of any set */

/* The bound of 2^below. Below the smallest normal number, a result may be that number. */
static double off(double below, double error)
{
    return below < -126 ? 0x1p-125 : exp2(below) * (UNIT * (ELEMENTARY + fabs(below)) + error) + 0x1p-125;
}

/* Blocks of scores of some queries, with rising maxima, against the softmax of all scores in double. */
static void check_online(const qv_kernels *isa, ptrdiff_t rows, ptrdiff_t n, float span, qv_dtype dtype)
{
    float *m = floats(rows), *l = floats(rows), *factors = floats(rows), top[QV_MAX_MR];
    double total[QV_MAX_MR] = {0};
    for (ptrdiff_t r = 0; r < rows; r++)
        top[r] = m[r] = -INFINITY, l[r] = 0;
    for (int block = 0; block < BLOCKS; block++) {
        float *s = numbers(rows * PITCH, span), *scores = floats(rows * PITCH);
        memcpy(scores, s, (size_t)(rows * PITCH) * sizeof *s);
        void *out = dtype == QV_F32 && n % 2 ? (void *)s : row_of(rows * PITCH, dtype); /* in place too */
        isa->softmax(s, PITCH, rows, n, m, l, factors, out, dtype);
        for (ptrdiff_t r = 0; r < rows; r++) {
            float before = top[r];
            for (ptrdiff_t j = 0; j < n; j++)
                top[r] = fmaxf(top[r], scores[r * PITCH + j]);
            true_that(m[r] == top[r], "the maximum is that of all blocks");
            double rise = (double)before - top[r], factor = exp2(rise);
            close_to(factors[r], factor, off(rise, 0), r);
            total[r] *= factor;
            for (ptrdiff_t j = 0; j < n; j++) {
                double below = (double)scores[r * PITCH + j] - top[r], want = exp2(below);
                close_to(entry(out, r * PITCH + j, dtype), want, off(below, coarse(dtype)) + stored(want, dtype), j);
                total[r] += want;
            }
            double units = growth((block + 1) * n) + 3 * (ELEMENTARY + 2 * span);
            close_to(l[r], total[r], (UNIT * units + coarse(dtype)) * total[r], r);
        }
    }
}

/* The powers of a block of scores, and what is added to sums that are there already. */
static void check_powers(const qv_kernels *isa, ptrdiff_t rows, ptrdiff_t n, float span, qv_dtype dtype)
{
    const ptrdiff_t lanes = isa->formats->nr / 2;
    float *s = numbers(rows * PITCH, span), *scores = floats(rows * PITCH);
    float *tops = numbers(rows, span), *totals = floats(rows * lanes);
    memcpy(scores, s, (size_t)(rows * PITCH) * sizeof *s);
    void *out = dtype == QV_F32 && n % 2 ? (void *)s : row_of(rows * PITCH, dtype); /* in place too */
    for (ptrdiff_t i = 0; i < rows * lanes; i++)
        totals[i] = 0.25f;
    isa->powers(s, PITCH, rows, n, tops, totals, out, dtype);
    for (ptrdiff_t r = 0; r < rows; r++) {
        double total = 0.25 * (double)lanes, sum = isa->sum(totals + r * lanes, lanes);
        for (ptrdiff_t j = 0; j < n; j++) {
            double x = (double)scores[r * PITCH + j] - tops[r], want = exp2(x), got = entry(out, r * PITCH + j, dtype);
            close_to(got, want, off(x, coarse(dtype)) + stored(want, dtype), j);
            total += got;
        }
        close_to(sum, total, UNIT * growth(n + lanes) * total, r);
    }
}

void check_softmax(const qv_kernels *isa)
{
    const ptrdiff_t lengths[] = {1, 3, 4, 16, 63, 64, 65, 512};
    const float spans[] = {0, 1, 30, 200};
    for (int dtype = 0; dtype < QV_DTYPE_COUNT; dtype++)
        for (int i = 0; i < 8; i++)
            for (int j = 0; j < 4; j++) {
                subject("%s softmax of %td scores to %g", isa->name, lengths[i], spans[j]);
                check_online(isa, 1 + (i + j) % isa->formats->mr, lengths[i], spans[j], (qv_dtype)dtype);
                check_powers(isa, 1 + (i + j) % isa->formats->mr, lengths[i], fminf(spans[j], 60), (qv_dtype)dtype);
                release();
            }
}
