/* AVX-512 F: Intel Skylake-SP (2017) and later servers, AMD Zen 4 (2022) and later. */
#include "kernels.h"

#define QV_ISA qv_avx512
#ifdef __x86_64__
#include "registers_512.h"
#define QV_NAME "avx512"
#define QV_TARGET "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"
#define QV_PRESENT                                                                                                     \
    (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&  \
     __builtin_cpu_supports("avx512dq"))
#include "isa.h"
#else
const qv_kernels QV_ISA = {0};
#endif
