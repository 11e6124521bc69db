/* AVX2 with VNNI in 256 bits: Intel Alder Lake (2021) and later clients, AMD Zen 5 (2024). */
#include "kernels.h"

#define QV_ISA qv_avx_vnni
/* GCC knows it since 11, Clang since 12. */
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#include "registers_256.h"

#include <cpuid.h>
static int has_avx_vnni(void) /* which not every compiler's __builtin_cpu_supports knows */
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#define QV_NAME "avx_vnni"
#define QV_TARGET "avxvnni,avx2,fma"
#define QV_PRESENT (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_avx_vnni())
#define QV_I8_DOT(c, a, b) ((vi)_mm256_dpbusd_avx_epi32((__m256i)(c), _mm256_set1_epi32(a), (__m256i)(b)))
#define QV_I8_LEAST 0
#include "isa.h"
#else
const qv_kernels QV_ISA = {0};
#endif
