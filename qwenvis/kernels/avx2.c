/* AVX2 with FMA: Intel Haswell (2013) and later, AMD Zen (2017) and later. */
#include "kernels.h"

#define QV_ISA qv_avx2
#ifdef __x86_64__
#include "registers_256.h"
#define QV_NAME "avx2"
#define QV_TARGET "avx2,fma"
#define QV_PRESENT (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#include "isa.h"
#else
const qv_kernels QV_ISA = {0};
#endif
