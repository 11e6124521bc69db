/* Included before every file, this header compiles each instruction set of x86-64 for the compiler's default CPU:
 *
 *     CC="cc -Wno-psabi -include tests/kernels/emulated.h" python tools/check_kernels.py avx2 avx512
 *
 * Vectors of 64 bytes become several shorter vectors, and the intrinsics in the kernels become the macros below. */
#ifndef EMULATED_H
#define EMULATED_H

#include <cpuid.h>
#include <immintrin.h>

#include "instructions.h"

#ifndef __clang__
#pragma GCC optimize("O1") /* else the compiler takes half a minute for unrolled loops of split vectors */
#endif

#define QV_EMULATED /* target.h then enables no instructions */
#define __builtin_cpu_supports(feature) 1
#define __get_cpuid_count(leaf, subleaf, a, b, c, d) (*(a) = 1 << 4, *(b) = *(c) = *(d) = 0, 1) /* AVX-VNNI */

#define _mm256_max_ps(a, b) where((a) > (b), a, b)
#define _mm512_max_ps(a, b) where((a) > (b), a, b)
#define _mm256_min_ps(a, b) where((a) < (b), a, b)
#define _mm512_min_ps(a, b) where((a) < (b), a, b)
#define _mm512_cvtepu16_epi32(x) __builtin_convertvector((vh)(x), vu)
#define _mm256_set1_epi32(a) (((vi){0} + (a)))
#define _mm512_set1_epi32(a) (((vi){0} + (a)))
#define _mm256_dpbusd_avx_epi32(c, a, b) _mm512_dpbusd_epi32(c, a, b)
#define _mm512_dpbusd_epi32(c, a, b)                                                                                   \
    __extension__({                                                                                                    \
        vi sums_ = (vi)(c);                                                                                            \
        const vi a_ = (vi)(a), b_ = (vi)(b);                                                                           \
        dots_of_bytes((int32_t *)&sums_, (const int32_t *)&a_, (const int32_t *)&b_, VL);                              \
        sums_;                                                                                                         \
    })
#define _mm512_dpbf16_ps(c, a, b)                                                                                      \
    __extension__({                                                                                                    \
        vf sums_ = (vf)(c);                                                                                            \
        const vi a_ = (vi)(a), b_ = (vi)(b);                                                                           \
        dots_of_pairs((float *)&sums_, (const int32_t *)&a_, (const int32_t *)&b_, VL);                                \
        sums_;                                                                                                         \
    })
#define _mm512_cvtneps_pbh(x)                                                                                          \
    __extension__({                                                                                                    \
        vh halves_;                                                                                                    \
        const vf x_ = (x);                                                                                             \
        narrowed_halves((const float *)&x_, (uint16_t *)&halves_, VL);                                                 \
        halves_;                                                                                                       \
    })
#define _mm512_cvtne2ps_pbh(b, a)                                                                                      \
    __extension__({                                                                                                    \
        vf words_;                                                                                                     \
        const vf a_ = (a), b_ = (b);                                                                                   \
        narrowed_halves((const float *)&a_, (uint16_t *)&words_, VL);                                                  \
        narrowed_halves((const float *)&b_, (uint16_t *)&words_ + VL, VL);                                             \
        words_;                                                                                                        \
    })
/* For |x| < 2^22: the kernels ask for no more. */
#define _mm512_roundscale_ps(x, mode) (((x) + ROUNDER) - ROUNDER)
/* For -252 <= n <= 127, in two steps, since 2^n may be subnormal; for less, as for -252. */
#define _mm512_scalef_ps(x, n)                                                                                         \
    __extension__({                                                                                                    \
        const vf n_ = (n), first_ = max(splat(-126.0f), n_), second_ = max(splat(-126.0f), n_ - first_);               \
        where(n_ == n_, times_power(times_power((x), first_), second_), n_);                                           \
    })

#endif
