/* Packing, the tile at all its edges, and the peak. */
#include <math.h>
#include <string.h>

#include "check.h"

static const ptrdiff_t LENGTHS[] = {1, 2, 3, 4, 7, 16, 33, 64, QV_CHUNK - 1, QV_CHUNK, QV_CHUNK + 1, 2 * QV_CHUNK + 3};
enum { LENGTH_COUNT = sizeof LENGTHS / sizeof *LENGTHS, EXTRA = 6 }; /* entries of a pitch beyond its row */

/* A weight (columns, k), its panel, and rows of the left side. */
typedef struct {
    const qv_format *format;
    ptrdiff_t columns, k, width, pitch;
    float *w;    /* as the format stores it, (columns, pitch) */
    void *panel; /* as the tile reads it */
    void *a;     /* (mr, pitch) */
} product;

/* Round numbers to a dtype, in place; returns them in that dtype. */
static void *in_dtype(float *w, ptrdiff_t n, qv_dtype dtype)
{
    if (dtype == QV_F32)
        return w;
    uint16_t *half = halves(n);
    for (ptrdiff_t i = 0; i < n; i++)
        w[i] = from_bf16(half[i] = to_bf16(w[i]));
    return half;
}

static size_t panel_bytes(const product *p)
{
    ptrdiff_t block = p->format->block;
    return (size_t)((p->k + block - 1) / block * block * p->width * p->format->itemsize);
}

static void *panel_of(const product *p) { return halves((ptrdiff_t)panel_bytes(p) / 2); }

/* Packing the transpose of the weight must give the same panel. */
static void check_transposed(const product *p)
{
    if (!p->format->pack_transposed || p->columns <= p->width - p->format->nr / 2)
        return; /* attention is in another format, or these are columns of a narrower panel */
    ptrdiff_t pitch = p->columns + EXTRA;
    float *turned = floats((p->k - 1) * pitch + p->columns);
    for (ptrdiff_t c = 0; c < p->columns; c++)
        for (ptrdiff_t i = 0; i < p->k; i++)
            turned[i * pitch + c] = p->w[c * p->pitch + i];
    void *panel = panel_of(p);
    p->format->pack_transposed(turned, pitch, p->columns, p->k, panel, p->width);
    equal(panel, p->panel, panel_bytes(p));
}

/* Pack a panel in two halves of `fill` columns, as gate and up are. */
static void check_fill(const product *p, const void *w)
{
    ptrdiff_t fill = p->width / 2, step = p->format->kr * p->format->itemsize;
    if (p->columns > fill || p->width != p->format->nr)
        return;
    char *panel = panel_of(p);
    p->format->pack(w, p->pitch, p->columns, p->k, NULL, panel, fill, p->width);
    p->format->pack(w, p->pitch, p->columns, p->k, NULL, panel + fill * step, fill, p->width);
    for (ptrdiff_t i = 0; i < p->k; i += p->format->kr, panel += p->width * step) {
        equal(panel, (char *)p->panel + i / p->format->kr * p->width * step, (size_t)(fill * step));
        equal(panel, panel + fill * step, (size_t)(fill * step));
    }
}

/* Does the format store the entries that it packs as they are? */
static int keeps_entries(const qv_format *format) { return format->itemsize == qv_itemsize(format->source_dtype); }

/* Check that a panel is laid out as the picture in kernels.h. */
static void check_panel(const product *p, const char *w)
{
    ptrdiff_t kr = p->format->kr, size = p->format->itemsize;
    if (!keeps_entries(p->format))
        return; /* `expand` shows the stored entries */
    const char zero[4] = {0};
    for (ptrdiff_t c = 0; c < p->width; c++)
        for (ptrdiff_t i = 0; i < p->k || i % kr; i++) {
            const char *entry_of_w = c < p->columns && i < p->k ? w + (c * p->pitch + i) * size : zero;
            equal((const char *)p->panel + ((i / kr * p->width + c) * kr + i % kr) * size, entry_of_w, (size_t)size);
        }
}

/* Pack a weight into a panel; returns the weight in the dtype that `pack` reads. */
static void *pack(product *p)
{
    void *w = in_dtype(p->w, p->columns * p->pitch, p->format->source_dtype);
    p->panel = panel_of(p);
    p->format->pack(w, p->pitch, p->columns, p->k, NULL, p->panel, p->width, p->width);
    check_panel(p, w);
    return w;
}

/* Expand the panel if the tile wants that. A format keeps a weight as it is, or its leading 8 bits at least. */
static void expand(product *p)
{
    if (!p->format->expand)
        return;
    double unit = keeps_entries(p->format) ? 0 : UNIT_BF16;
    float *wide = floats(p->k * p->width);
    p->format->expand(p->panel, NULL, 0, p->k, p->width, wide);
    for (ptrdiff_t c = 0; c < p->width; c++)
        for (ptrdiff_t i = 0; i < p->k; i++) {
            float want = c < p->columns ? p->w[c * p->pitch + i] : 0, *entry = wide + i * p->width + c;
            close_to(*entry, want, unit * fabs((double)want), i * p->width + c);
            if (c < p->columns)
                p->w[c * p->pitch + i] = *entry;
        }
    p->panel = wide;
}

static product made(const qv_format *format, ptrdiff_t width, ptrdiff_t columns, ptrdiff_t k)
{
    product p = {.format = format, .columns = columns, .k = k, .width = width};
    p.pitch = (k + format->block - 1) / format->block * format->block + EXTRA;
    p.w = numbers(columns * p.pitch, 1);
    void *w = pack(&p);
    check_transposed(&p);
    check_fill(&p, w);
    expand(&p);
    p.a = in_dtype(numbers(format->mr * p.pitch, 1), format->mr * p.pitch, format->rows_dtype);
    return p;
}

/* The sums of `rows` rows, with NaN between the rows. */
static float *sums_of(const product *p, ptrdiff_t rows, float before, int add)
{
    ptrdiff_t pitch = p->width + EXTRA;
    float *sums = floats((rows - 1) * pitch + p->width);
    for (ptrdiff_t r = 0; add && r < rows; r++)
        for (ptrdiff_t c = 0; c < p->width; c++)
            sums[r * pitch + c] = before;
    p->format->tile(rows, p->k, p->a, p->pitch, p->panel, p->width, sums, pitch, add);
    for (ptrdiff_t r = 0; r + 1 < rows; r++)
        for (ptrdiff_t c = p->width; c < pitch; c++)
            true_that(isnan(sums[r * pitch + c]), "nothing is written between rows");
    return sums;
}

static void check_sums(const product *p, const float *sums, double before)
{
    /* An instruction that takes two products may round each step to odd: twice the error of rounding to nearest. */
    double units = growth(p->k) * p->format->kr + 2;
    for (ptrdiff_t r = 0; r < p->format->mr; r++)
        for (ptrdiff_t c = 0; c < p->width; c++) {
            double want = before, size = fabs(before);
            for (ptrdiff_t i = 0; c < p->columns && i < p->k; i++) {
                double term = (double)entry(p->a, r * p->pitch + i, p->format->rows_dtype) * p->w[c * p->pitch + i];
                want += term;
                size += fabs(term);
            }
            close_to(sums[r * (p->width + EXTRA) + c], want, units * UNIT * size, r * p->width + c);
        }
}

/* Check that any number of rows has the bits of the full tile. */
static void check_tile(const product *p)
{
    float *whole = sums_of(p, p->format->mr, 0, 0);
    check_sums(p, whole, 0);
    check_sums(p, sums_of(p, p->format->mr, 3, 1), 3);
    for (ptrdiff_t rows = 1; rows < p->format->mr; rows++) {
        float *sums = sums_of(p, rows, 0, 0);
        for (ptrdiff_t r = 0; r < rows; r++)
            equal(sums + r * (p->width + EXTRA), whole + r * (p->width + EXTRA), (size_t)p->width * sizeof *sums);
    }
}

/* k equal products, with a subnormal factor or subnormal themselves: the sum is exact, or zero. */
static void check_subnormals(const qv_kernels *isa, const qv_format *format, ptrdiff_t k)
{
    const float factors[][2] = {{0x1p-130f, 0x1p100f}, {-0x1p100f, 0x1p-130f}, {0x1p-64f, -0x1p-70f}};
    int kept = format->rows_dtype == QV_F32 || !multiplies_without_subnormals(isa);
    for (int i = 0; i < 3; i++) {
        subject("%s %s product of %g and %g, K %td", isa->name, format->name, factors[i][0], factors[i][1], k);
        product p = {.format = format, .columns = format->nr, .k = k, .width = format->nr, .pitch = k + k % 2 + EXTRA};
        float *a = floats(format->mr * p.pitch);
        p.w = floats(p.columns * p.pitch);
        for (ptrdiff_t j = 0; j < format->mr * p.pitch; j++)
            a[j] = factors[i][0];
        for (ptrdiff_t j = 0; j < p.columns * p.pitch; j++)
            p.w[j] = factors[i][1];
        pack(&p);
        expand(&p);
        p.a = in_dtype(a, format->mr * p.pitch, format->rows_dtype);
        float want = kept ? (float)k * factors[i][0] * factors[i][1] : 0, *sums = sums_of(&p, format->mr, 0, 0);
        for (ptrdiff_t r = 0; r < format->mr; r++)
            for (ptrdiff_t c = 0; c < p.width; c++)
                true_that(sums[r * (p.width + EXTRA) + c] == want, kept ? "it is exact" : "it counts for nothing");
        release();
    }
}

static void check_peak(const qv_kernels *isa, const qv_format *format)
{
    float sink = NAN;
    subject("%s %s peak", isa->name, format->name);
    double products = 100.0 * format->mr * format->nr * (format->expand ? 1 : format->kr);
    true_that(format->peak(100, &sink) == 2 * products, "it counts its flops");
    true_that(isfinite(sink), "it ends in a number");
}

void check_products(const qv_kernels *isa)
{
    for (const qv_format *format = isa->formats; format; format = format->before) {
        true_that(format->mr <= QV_MAX_MR && format->nr <= QV_MAX_NR, "the ops have room for the tile");
        check_peak(isa, format);
        if (format->balance)
            continue; /* quantized.c checks it */
        for (ptrdiff_t k = 1; k <= 3; k++)
            check_subnormals(isa, format, k);
        for (ptrdiff_t width = format->nr; width >= format->nr / 2; width -= format->nr / 2)
            for (int length = 0; length < LENGTH_COUNT; length++)
                for (ptrdiff_t columns = width; columns > 0; columns -= columns > 1 ? width / 2 - 1 : 1) {
                    subject("%s %s product of %td columns in %td, K %td", isa->name, format->name, columns, width,
                            LENGTHS[length]);
                    product p = made(format, width, columns, LENGTHS[length]);
                    check_tile(&p);
                    release();
                }
    }
}
