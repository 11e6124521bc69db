/* The end of a tile: bias and activation in place, then the store. */
#include <math.h>
#include <string.h>

#include "check.h"

#define QV_WORD(name) #name,
static const char *const NAMES[] = {QV_ACTIVATIONS(QV_WORD)};

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static double activated(int activation, double x)
{
    switch (activation) {
    case QV_ACT_quick_gelu:
        return x * sigmoid(1.702 * x);
    case QV_ACT_gelu:
        return x * erfc(-x / sqrt(2)) / 2;
    case QV_ACT_gelu_pytorch_tanh:
        return x * sigmoid(2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
    case QV_ACT_silu_gate:
        return x * sigmoid(x);
    default:
        return x;
    }
}

/* tolerance.activation_tolerance: the steepest slope of an activation, and its own error. */
static double bound_of(double x, double size) { return UNIT * (1.13 * size + ELEMENTARY * fabs(x)); }

static void check_finish(const qv_kernels *isa, int activation, ptrdiff_t rows, ptrdiff_t width)
{
    int gated = activation == QV_ACT_silu_gate;
    ptrdiff_t n = gated ? width / 2 : width;
    float *before = numbers(rows * width, 12), *bias = numbers(width, 2), *sums = floats(rows * width);
    memcpy(sums, before, (size_t)(rows * width) * sizeof *sums);
    isa->finish[activation](sums, rows, width, bias);
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < n; c++) {
            const float *row = before + r * width;
            double x = (double)row[c] + bias[c], size = fabs((double)row[c]) + fabs((double)bias[c]);
            double want = activated(activation, x), bound = bound_of(x, size);
            if (gated) {
                double up = (double)row[n + c] + bias[n + c];
                bound = bound * fabs(up) + UNIT * (2 * fabs(want * up) + fabs(want) * (fabs(up) + fabs(bias[n + c])));
                want *= up;
            }
            close_to(sums[r * width + c], want, bound, r * width + c);
        }
}

/* A result is rounded at most once, so its bits are known. Between rows nothing is written. */
static void check_store(const qv_kernels *isa, ptrdiff_t rows, ptrdiff_t columns, qv_dtype dtype, int add)
{
    ptrdiff_t sums_pitch = QV_MAX_NR + 3, pitch = columns + 5;
    float *sums = numbers(rows * sums_pitch, 4), *before = numbers(rows * pitch, 4);
    void *out = row_of((rows - 1) * pitch + columns, dtype);
    for (ptrdiff_t r = 0; add && r < rows; r++)
        memcpy((float *)out + r * pitch, before + r * pitch, (size_t)columns * sizeof *before);
    isa->store(sums, sums_pitch, rows, columns, out, pitch, dtype, add);
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t c = 0; c < columns; c++) {
            float x = sums[r * sums_pitch + c];
            if (add)
                x += before[r * pitch + c];
            true_that(entry(out, r * pitch + c, dtype) == (dtype == QV_F32 ? x : from_bf16(to_bf16(x))), "it is stored");
        }
        for (ptrdiff_t c = columns; r + 1 < rows && c < pitch; c++)
            true_that(isnan(entry(out, r * pitch + c, dtype)), "nothing is written between rows");
    }
}

void check_epilogue(const qv_kernels *isa)
{
    ptrdiff_t mr = isa->formats->mr, nr = isa->formats->nr;
    for (int activation = 0; activation < QV_ACTIVATION_COUNT; activation++)
        for (ptrdiff_t rows = 1; rows <= mr; rows++) {
            subject("%s %s of %td rows", isa->name, NAMES[activation], rows);
            check_finish(isa, activation, rows, nr);
            if (activation != QV_ACT_silu_gate) /* a panel of gate and up is never narrow */
                check_finish(isa, activation, rows, nr / 2);
            release();
        }
    for (ptrdiff_t columns = 1; columns <= nr; columns++) {
        subject("%s store of %td columns", isa->name, columns);
        check_store(isa, mr, columns, QV_F32, 0);
        check_store(isa, mr, columns, QV_F32, 1);
        check_store(isa, mr, columns, QV_BF16, 0);
        release();
    }
}
