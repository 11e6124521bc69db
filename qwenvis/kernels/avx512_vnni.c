/* AVX-512 with VNNI: Intel Cascade Lake (2019) and Ice Lake (2019, 2021). */
#include "kernels.h"

#define QV_ISA qv_avx512_vnni
/* GCC knows it since 8, Clang since 6. */
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 6 : __GNUC__ >= 8)
#include "registers_512.h"
#define QV_NAME "avx512_vnni"
#define QV_TARGET "avx512vnni,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"
#define QV_PRESENT                                                                                                     \
    (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vl") &&                                     \
     __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
#define QV_I8_DOT(c, a, b) ((vi)_mm512_dpbusd_epi32((__m512i)(c), _mm512_set1_epi32(a), (__m512i)(b)))
#define QV_I8_LEAST 0
#include "isa.h"
#else
const qv_kernels QV_ISA = {0};
#endif
