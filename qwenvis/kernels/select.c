/* The list of instruction sets: a new one is a line here. */
#include "kernels.h"

const qv_kernels *const qv_isas[] = {
    &qv_generic,     &qv_avx2, &qv_avx_vnni,     &qv_avx512,    &qv_avx512_vnni,
    &qv_avx512_bf16, &qv_neon, &qv_neon_dotprod, &qv_neon_bf16, NULL,
};
