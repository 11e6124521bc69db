/* Formats of int8: factors, rotation and rounding against a double, sums against integers, bit for bit. */
#include <math.h>
#include <string.h>

#include "check.h"

enum { BLOCK = 128, TAIL = 32, EXTRA = 8, HEADER = 8, KINDS = 9 };
static const ptrdiff_t LENGTHS[] = {1, 2, 3, 4, 5, 31, 33, 127, 128, 129, 160, 300, QV_CHUNK + 5};
#define CLOSE 1e-3 /* steps that float32 may be off in rotated entries: 255 steps, 10 roundings each, and some room */

/* A weight (columns, k) whose places in K differ in size, its factors and its panel. */
typedef struct {
    const qv_kernels *isa;
    const qv_format *format;
    ptrdiff_t columns, k, padded, width;
    float *w, *of_rows, *of_weights;
    unsigned char *panel;
} weight;

static unsigned char *bytes(ptrdiff_t n) { return (unsigned char *)floats((n + 3) / 4); }

/* Entry i of the rotated row: a sum over its block, with a sign for each pair of places. */
static double rotated(const weight *t, const float *x, const float *factors, ptrdiff_t i)
{
    ptrdiff_t whole = t->k / BLOCK * BLOCK, size = i < whole ? BLOCK : TAIL, first = i / size * size;
    double sum = 0;
    if (!t->format->quantize)
        return i < t->k ? (double)x[i] * factors[i] : 0;
    for (ptrdiff_t j = first; j < first + size && j < t->k; j++) {
        int minus = __builtin_popcount((unsigned)((i - first) & (j - first))) & 1;
        sum += (minus ? -1.0 : 1.0) * x[j] * factors[j];
    }
    return sum;
}

static void check_factors(const weight *t)
{
    float *squares = floats(t->k);
    double most = 0;
    memset(squares, 0, (size_t)t->k * sizeof *squares);
    for (ptrdiff_t c = 0; c < t->columns; c++)
        t->isa->add_squares(t->w + c * t->k, t->k, QV_F32, squares);
    for (ptrdiff_t i = 0; i < t->k; i++) {
        double sum = 0;
        for (ptrdiff_t c = 0; c < t->columns; c++)
            sum += (double)t->w[c * t->k + i] * t->w[c * t->k + i];
        close_to(squares[i], sum, growth(t->columns) * UNIT * sum, i);
        most = fmax(most, sum);
    }
    t->format->balance(squares, t->k, t->of_rows, t->of_weights);
    for (ptrdiff_t i = 0; i < t->k; i++) {
        double size = !t->format->quantize ? 1 : i < t->k / BLOCK * BLOCK ? BLOCK : BLOCK / 2;
        close_to(fabs(t->of_rows[i]) * size, sqrt(squares[i] / most), 1e-5, i);
        close_to((double)t->of_rows[i] * t->of_weights[i], 1 / size / size, 4 * UNIT, i);
    }
}

static float scale_of(const weight *t, ptrdiff_t c) { return ((const float *)(const void *)t->panel)[c]; }
static int32_t sum_of(const weight *t, ptrdiff_t c) { return ((const int32_t *)(const void *)t->panel)[t->width + c]; }

static int stored_entry(const weight *t, ptrdiff_t c, ptrdiff_t i)
{
    return (signed char)t->panel[HEADER * t->width + (i / 4 * t->width + c) * 4 + i % 4];
}

/* The panel holds the rotated columns, rounded to 127 steps of their largest entry, and zeros for columns that fail. */
static void check_panel(const weight *t)
{
    t->format->pack(t->w, t->k, t->columns, t->k, t->of_weights, t->panel, t->width, t->width);
    for (ptrdiff_t c = 0; c < t->width; c++) {
        int32_t sum = 0;
        double largest = 0, product = t->format->quantize ? BLOCK : 1;
        for (ptrdiff_t i = 0; i < t->padded; i++) {
            double want = c < t->columns ? rotated(t, t->w + c * t->k, t->of_weights, i) : 0;
            largest = fmax(largest, fabs(want));
            sum += stored_entry(t, c, i);
            close_to(stored_entry(t, c, i) * (double)scale_of(t, c) / product, want,
                     (0.5 + CLOSE) * scale_of(t, c) / product, i);
        }
        close_to(scale_of(t, c), largest / 127 * product, 1e-5 * largest * product, c);
        true_that(sum_of(t, c) == sum, "the sum of a column is that of its entries");
    }
}

/* An expanded panel holds the weight itself, wherever a chunk begins. */
static void check_expanded(const weight *t)
{
    float *whole = floats(t->k * t->width), *part;
    t->format->expand(t->panel, t->of_rows, 0, t->k, t->width, whole);
    for (ptrdiff_t i = 0; i < t->k; i++)
        for (ptrdiff_t c = 0; c < t->width; c++)
            close_to(whole[i * t->width + c], c < t->columns ? t->w[c * t->k + i] : 0,
                     0.51 * scale_of(t, c) * t->of_rows[i], i);
    for (ptrdiff_t first = 4; first < t->k; first += 60) {
        part = floats((t->k - first) * t->width);
        t->format->expand(t->panel, t->of_rows, first, t->k - first, t->width, part);
        equal(part, whole + first * t->width, (size_t)((t->k - first) * t->width) * sizeof *part);
    }
}

typedef struct {
    float scale;
    int32_t zero;
} trailer;

static trailer trailer_of(const weight *t, const unsigned char *row)
{
    trailer end;
    memcpy(&end, row + t->padded, sizeof end);
    return end;
}

/* Entries are bytes whose sign depends on the instruction: the zero point of a row of zeros is the least of them. */
static int entry_of_row(const unsigned char *row, ptrdiff_t i, int least) { return (row[i] - least) % 256 + least; }

/* Quantise a row of numbers, and return its least entry. */
static void quantize(const weight *t, const float *x, unsigned char *row)
{
    uint16_t *half = halves(t->k);
    float *scratch = floats(t->k + QV_SCRATCH);
    for (ptrdiff_t i = 0; i < t->k; i++)
        half[i] = to_bf16(x[i]);
    t->format->quantize(t->format->rows_dtype == QV_F32 ? (const void *)x : half, t->k, t->of_rows, scratch, row);
}

static void check_row(const weight *t, const float *x, const unsigned char *row, int least)
{
    trailer end = trailer_of(t, row);
    double low = 0, high = 0;
    for (ptrdiff_t i = 0; i < t->padded; i++) {
        double want = rotated(t, x, t->of_rows, i), got = entry_of_row(row, i, least) - end.zero;
        low = fmin(low, want), high = fmax(high, want);
        close_to(end.scale * got, want, (0.5 + CLOSE) * end.scale + 0x1p-149, i);
    }
    close_to(end.scale, (high - low) / 255, 1e-5 * (high - low) + 0x1p-126, 0);
    true_that(end.zero >= least && end.zero <= least + 255, "zero is an entry");
}

/* Rows of numbers, one of zeros, one with a NaN, one with an infinity, rows at the ends of the range of float32, and one
 * whose first block is rotated into equal entries. */
static void fill_row(const weight *t, ptrdiff_t r, float *x)
{
    const float sizes[KINDS] = {1, 0, 1, 1, 0x1p120f, 0x1p-120f, 0x1p-149f, 1000, 1};
    float *drawn = numbers(t->k, r < KINDS ? sizes[r] : 1);
    if (r == 8)
        memset(drawn + 1, 0, (size_t)(t->k - 1) * sizeof *drawn);
    for (ptrdiff_t i = 0; i < t->k; i++)
        x[i] = from_bf16(to_bf16(r == 7 ? 1000 + 0 * drawn[i] : drawn[i])); /* exact in either dtype */
    if (r == 2 || r == 3)
        x[t->k - 1] = r == 2 ? NAN : -INFINITY;
}

/* Check rows of all kinds, and return the least entry. */
static int check_each_kind(const weight *t)
{
    unsigned char *row = bytes(t->padded + QV_TRAILER);
    float *x = floats(t->k);
    memset(x, 0, (size_t)t->k * sizeof *x);
    quantize(t, x, row);
    const int least = trailer_of(t, row).zero;
    for (ptrdiff_t r = 0; r < KINDS; r++) {
        fill_row(t, r, x);
        quantize(t, x, row);
        if (r != 2 && r != 3)
            check_row(t, x, row, least);
    }
    return least;
}

/* Sums have the bits of the formula in integers; rows have them in any tile. */
static void check_tile(const weight *t)
{
    const ptrdiff_t mr = t->format->mr, pitch = t->padded + QV_TRAILER + EXTRA, sums_pitch = t->width + 3;
    const int least = check_each_kind(t);
    unsigned char *rows = bytes(mr * pitch);
    float *x = floats(t->k), *whole = floats(mr * sums_pitch);
    for (ptrdiff_t r = 0; r < mr; r++) {
        fill_row(t, r, x);
        quantize(t, x, rows + r * pitch);
    }
    t->format->tile(mr, t->k, rows, pitch, t->panel, t->width, whole, sums_pitch, 0);
    for (ptrdiff_t r = 0; r < mr; r++)
        for (ptrdiff_t c = 0; c < t->width; c++) {
            trailer end = trailer_of(t, rows + r * pitch);
            int32_t dot = -end.zero * sum_of(t, c);
            for (ptrdiff_t i = 0; i < t->padded; i++)
                dot += entry_of_row(rows + r * pitch, i, least) * stored_entry(t, c, i);
            float want = (float)dot * scale_of(t, c) * end.scale, got = whole[r * sums_pitch + c];
            true_that(r == 2 || r == 3 ? isnan(got) : got == want, "a sum is that of the integers, or NaN");
        }
    for (ptrdiff_t count = 1; count < mr; count++) {
        float *sums = floats(count * sums_pitch);
        t->format->tile(count, t->k, rows, pitch, t->panel, t->width, sums, sums_pitch, 0);
        for (ptrdiff_t r = 0; r < count; r++)
            equal(sums + r * sums_pitch, whole + r * sums_pitch, (size_t)t->width * sizeof *sums);
    }
}

static void check_weight(const qv_kernels *isa, const qv_format *format, ptrdiff_t width, ptrdiff_t columns,
                         ptrdiff_t k)
{
    weight t = {.isa = isa, .format = format, .columns = columns, .k = k, .width = width};
    t.padded = (k + format->block - 1) / format->block * format->block;
    t.w = numbers(columns * k, 1), t.of_rows = floats(k), t.of_weights = floats(k);
    t.panel = bytes(width * (t.padded + HEADER));
    for (ptrdiff_t i = 0; i < columns * k; i++)
        t.w[i] *= (float)(1 + i % k % 9);
    check_factors(&t);
    check_panel(&t);
    if (format->expand)
        check_expanded(&t);
    else
        check_tile(&t);
}

void check_quantized(const qv_kernels *isa)
{
    for (const qv_format *format = isa->formats; format; format = format->before)
        for (ptrdiff_t width = format->nr; format->balance && width >= format->nr / 2; width -= format->nr / 2)
            for (size_t length = 0; length < sizeof LENGTHS / sizeof *LENGTHS; length++)
                for (ptrdiff_t columns = width; columns > 0; columns -= columns > 1 ? width - 1 : 1) {
                    subject("%s %s of %td columns in %td, K %td", isa->name, format->name, columns, width,
                            LENGTHS[length]);
                    true_that(format->header == HEADER, "a panel begins with a scale and a sum for each column");
                    check_weight(isa, format, width, columns, LENGTHS[length]);
                    release();
                }
}
