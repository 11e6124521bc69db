/* Everything that one ISA compiles, and its table. The file that includes this defines, in part through a header of
 * registers,
 *
 *     QV_ISA, QV_NAME, QV_PRESENT   the table, its name, and the test for this CPU
 *     VL, MR                        floats of a vector, rows of a tile
 *     ROWS_NBYTES                   most bytes of the rows that a task of a product takes
 *     QV_TARGET                     unless the compiler's own default is meant
 *     QV_BF16_DOT                   c + a0 b0 + a1 b1 of pairs of bfloat16, if they can be multiplied: a is a word
 *     QV_I8_DOT                     c + a0 b0 + a1 b1 + a2 b2 + a3 b3 in int32, if the ISA has it: a is a word of a
 *                                   row, b a vector of words of int8
 *     QV_I8_LEAST                   with QV_I8_DOT: the least entry of a row, 0 for uint8, or -128 for int8
 *     QV_MAX, QV_MIN                where instructions take a maximum and a minimum
 *     QV_NARROW, QV_WIDEN           where one instruction rounds to bfloat16, or widens integers of 16 bits to 32
 *     QV_NARROW_TWO                 where one instruction rounds two vectors to bfloat16, side by side in a third
 *     QV_NEAREST, QV_SCALE          where instructions round to an integer n, and compute x 2^n
 *
 * All but the table is static, so that the linker can never hand one ISA's helper to another. */
#include "target.h"

#include "vector.h"

enum { NV = 2, NR = NV * VL };
#include "activations.h"
#include "epilogue.h"
#include "resample.h"
#include "rows.h"
#include "transpose.h"

_Static_assert(MR <= (int)QV_MAX_MR && NR <= (int)QV_MAX_NR, "the ops' tiles are too small for this ISA");

#include "formats.h"

static int present(void) { return QV_PRESENT; }

#define QV_FINISH(name) finish_##name,

const qv_kernels QV_ISA = {
    .name = QV_NAME,
    .present = present,
    .rows_nbytes = ROWS_NBYTES,
    .formats = LAST_FORMAT,
    .finish = {QV_ACTIVATIONS(QV_FINISH)},
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .rope = rope,
    .softmax = softmax,
    .powers = powers,
    .add_squares = add_squares,
    .sum = sum,
    .scale = scale,
    .copy = copy,
    .lookup = lookup,
    .resample_row = resample_row,
    .resample_column = resample_column,
    .widen_bf16 = widen_bf16,
    .all_finite = all_finite,
};

#if defined(__clang__) && defined(QV_TARGET)
#pragma clang attribute pop
#endif
