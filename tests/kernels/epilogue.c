/* The end of a tile: bias, activation, and the store. */
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
static double bound_of(double x, double size, qv_dtype dtype)
{
    return UNIT * (1.13 * size + ELEMENTARY * fabs(x)) + coarse(dtype) * fabs(x);
}

/* Columns up to the whole tile. Between rows nothing is written. */
static void check_finish(const qv_kernels *isa, int activation, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t columns,
                         qv_dtype dtype, int add)
{
    int gated = activation == QV_ACT_silu_gate;
    ptrdiff_t half = width / 2, pitch = columns + 5;
    float *sums = numbers(rows * width, 12), *bias = numbers(width, 2), *before = numbers(rows * pitch, 4);
    void *out = row_of((rows - 1) * pitch + columns, dtype);
    for (ptrdiff_t r = 0; add && r < rows; r++)
        memcpy((float *)out + r * pitch, before + r * pitch, (size_t)columns * sizeof *before);
    isa->finish[activation](sums, rows, width, bias, out, pitch, columns, dtype, add);
    for (ptrdiff_t r = 0; r < rows; r++) {
        for (ptrdiff_t c = 0; c < columns; c++) {
            const float *row = sums + r * width;
            double x = (double)row[c] + bias[c], size = fabs((double)row[c]) + fabs((double)bias[c]);
            double want = activated(activation, x);
            double bound = activation == QV_ACT_none ? UNIT * size : bound_of(x, size, dtype);
            if (gated) {
                double up = (double)row[half + c] + bias[half + c];
                bound = bound * fabs(up) + UNIT * (2 * fabs(want * up) + fabs(want) * (fabs(up) + fabs(bias[half + c])));
                want *= up;
            }
            if (add) {
                want += before[r * pitch + c];
                bound += UNIT * fabs(want);
            }
            close_to(entry(out, r * pitch + c, dtype), want, bound + stored(want, dtype), r * width + c);
        }
        for (ptrdiff_t c = columns; r + 1 < rows && c < pitch; c++)
            true_that(isnan(entry(out, r * pitch + c, dtype)), "nothing is written between rows");
    }
}

static void check_dtypes(const qv_kernels *isa, int activation, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t columns)
{
    check_finish(isa, activation, rows, width, columns, QV_F32, 0);
    check_finish(isa, activation, rows, width, columns, QV_F32, 1);
    check_finish(isa, activation, rows, width, columns, QV_BF16, 0);
    release();
}

void check_epilogue(const qv_kernels *isa)
{
    ptrdiff_t mr = isa->formats->mr, nr = isa->formats->nr;
    for (int activation = 0; activation < QV_ACTIVATION_COUNT; activation++) {
        int gated = activation == QV_ACT_silu_gate;
        for (ptrdiff_t rows = 1; rows <= mr; rows++) {
            subject("%s %s of %td rows", isa->name, NAMES[activation], rows);
            check_dtypes(isa, activation, rows, nr, gated ? nr / 2 : nr);
            if (!gated) /* a panel of gate and up is never narrow */
                check_dtypes(isa, activation, rows, nr / 2, nr / 2);
        }
        for (ptrdiff_t columns = 1; columns < (gated ? nr / 2 : nr); columns++) {
            subject("%s %s of %td columns", isa->name, NAMES[activation], columns);
            check_dtypes(isa, activation, mr, nr, columns);
        }
    }
}
