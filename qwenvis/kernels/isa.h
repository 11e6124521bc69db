/* Everything that one ISA compiles, and its table. The file that includes this gives QV_ISA, QV_NAME, QV_PRESENT, VL
 * and MR, and QV_TARGET unless the compiler's own default is meant. All but the table is static, so that the linker can never
 * hand one ISA's helper to another. */
#include "target.h"

#include "vector.h"

#include "activations.h"
#include "gemm_tile.h"
#include "rows.h"

static int present(void) { return QV_PRESENT; }

#define QV_FINISH(name) finish_##name,

const qv_kernels QV_ISA = {
    .name = QV_NAME,
    .present = present,
    .f32 = {.name = "f32",
            .mr = MR,
            .nr = NR,
            .kr = 1,
            .itemsize = 4,
            .pack = pack,
            .pack_transposed = pack_transposed,
            .tile = tile},
    .finish = {QV_ACTIVATIONS(QV_FINISH)},
    .store = store_tile,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .rope = rope,
    .softmax = softmax,
    .scale = scale,
    .lookup = lookup,
    .widen_bf16 = widen_bf16,
    .peak = peak,
};
