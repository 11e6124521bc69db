/* Vectors of VL floats in GCC's and Clang's vector extensions, and the arithmetic that every row function shares. */
#include <math.h>
#include <string.h>

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef uint32_t vu __attribute__((vector_size(4 * VL)));
typedef float vf_unaligned __attribute__((vector_size(4 * VL), aligned(4), may_alias));

/* Accumulators live in registers only where every loop over them is unrolled. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* A value that the compiler has to take as changed. */
#ifdef __aarch64__
#define OPAQUE(x) __asm__ volatile("" : "+w"(x))
#elif defined(QV_EMULATED) /* a vector may be longer than a register */
#define OPAQUE(x) __asm__ volatile("" : "+m"(x))
#else
#define OPAQUE(x) __asm__ volatile("" : "+v"(x))
#endif

#define INLINE static inline __attribute__((always_inline))

INLINE vf splat(float x) { return x - (vf){0}; }
INLINE vf load(const float *p) { return *(const vf_unaligned *)p; }
INLINE void store(float *p, vf x) { *(vf_unaligned *)p = x; }

/* The first n entries at p, zeros after them; a whole vector for n >= VL, nothing for n <= 0. */
INLINE vf load_n(const float *p, ptrdiff_t n)
{
    vf x = {0};
    if (n >= VL)
        return load(p);
    if (n > 0)
        memcpy(&x, p, (size_t)n * sizeof *p);
    return x;
}

INLINE void store_n(float *p, vf x, ptrdiff_t n)
{
    if (n >= VL)
        store(p, x);
    else if (n > 0)
        memcpy(p, &x, (size_t)n * sizeof *p);
}

INLINE vf where(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

/* Vector extensions have no maximum in C; where the ISA's file names an instruction, it is one instead of three. */
#ifndef QV_MAX
#define QV_MAX(a, b) where((a) > (b), a, b)
#endif
INLINE vf max(vf a, vf b) { return QV_MAX(a, b); }
INLINE vf min(vf a, vf b) { return -max(-a, -b); }

/* bfloat16 is the upper half of a float: rounded to nearest, ties to even; a NaN stays one. */
typedef uint16_t vh __attribute__((vector_size(2 * VL)));

#ifdef QV_NARROW
INLINE vh narrow(vf x) { return QV_NARROW(x); }
#else
INLINE vh narrow(vf x)
{
    vu bits = (vu)x;
    vu rounded = bits + 0x7FFF + ((bits >> 16) & 1);
    return __builtin_convertvector((vu)where(x == x, (vf)rounded, (vf)(bits | 0x400000)) >> 16, vh);
}
#endif

/* Entries i .. i + n of a row of either dtype; a whole vector for n >= VL, nothing for n <= 0. */
INLINE void store_as(void *row, ptrdiff_t i, vf x, ptrdiff_t n, qv_dtype dtype)
{
    if (dtype == QV_F32) {
        store_n((float *)row + i, x, n);
    } else if (n > 0) {
        vh half = narrow(x);
        memcpy((uint16_t *)row + i, &half, n >= VL ? sizeof half : (size_t)n * 2);
    }
}

/* A call for every vector of a row of `size` entries: `lanes` of them, from i on. All but perhaps the last are whole,
 * and know it, so their loop has no branch. */
#define EACH_VECTOR(size, call)                                                                                        \
    do {                                                                                                               \
        ptrdiff_t i = 0;                                                                                               \
        for (; i + VL <= (size); i += VL) {                                                                            \
            const ptrdiff_t lanes = VL;                                                                                \
            call;                                                                                                      \
        }                                                                                                              \
        if (i < (size)) {                                                                                              \
            const ptrdiff_t lanes = (size) - i;                                                                        \
            call;                                                                                                      \
        }                                                                                                              \
    } while (0)

/* Call an inline function, whose last argument is a dtype, with that dtype as a constant: each has loops of its own. */
#define DISPATCH(dtype, function, ...)                                                                                 \
    ((dtype) == QV_F32 ? function(__VA_ARGS__, QV_F32) : function(__VA_ARGS__, QV_BF16))

/* Lanes are joined in one fixed order, by halves, so a sum has the same bits on every run. */
#define BY_HALVES(x, join)                                                                                             \
    float lane[VL];                                                                                                    \
    memcpy(lane, &(x), sizeof lane);                                                                                   \
    UNROLL for (int width = VL / 2; width; width /= 2)                                                                 \
        UNROLL for (int i = 0; i < width; i++)                                                                         \
            lane[i] = join(lane[i], lane[i + width]);                                                                  \
    return lane[0]
#define PLUS(a, b) ((a) + (b))
#define LARGER(a, b) ((a) > (b) ? (a) : (b))

INLINE float sum_lanes(vf x) { BY_HALVES(x, PLUS); }
INLINE float max_lanes(vf x) { BY_HALVES(x, LARGER); }

#undef BY_HALVES
#undef PLUS
#undef LARGER

/* 1.5 * 2^23: at this size the last bits of a float count in ones, so a sum with it ends in the integer part. */
#define ROUNDER 12582912.0f

/* To the nearest integer, for |x| < 2^22. */
INLINE vf nearest(vf x) { return (x + ROUNDER) - ROUNDER; }

/* e^r for |r| <= ln(2)/2, to 1 ulp: the Taylor polynomial of degree 7. */
INLINE vf exp_reduced(vf r)
{
    vf p = splat(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    return p * r + 1.0f;
}

/* x * 2^n for integral n in [-126, 127], through the exponent bits. */
INLINE vf times_power(vf x, vf n) { return x * (vf)((__builtin_convertvector(n, vi) + 127) << 23); }

/* x <= 0 as n + r with |r| <= 1/2; n ends up in the last bits of `shifted`. Under -126, where 2^x is no normal number,
 * x is taken for -126. */
INLINE vf fraction(vf x, vf *shifted)
{
    x = max(splat(-126.0f), x); /* in this order, not a number stays one */
    *shifted = x + ROUNDER;
    return x - (*shifted - ROUNDER);
}

/* p 2^n */
INLINE vf shift_exponent(vf p, vf shifted) { return (vf)((vi)p + ((vi)shifted << 23)); }

/* 2^x for x <= 0, relative error 2.1e-8 before rounding, from a polynomial for 2^r. 2^0 is 1. */
INLINE vf exp2_(vf x)
{
    vf shifted, r = fraction(x, &shifted);
    vf p = splat(1.5345811e-4f);
    p = p * r + 1.3399931e-3f;
    p = p * r + 9.6184890e-3f;
    p = p * r + 5.5503288e-2f;
    p = p * r + 2.4022647e-1f;
    p = p * r + 6.9314721e-1f;
    p = p * r + 1.0f;
    return shift_exponent(p, shifted);
}

/* 2^x for x <= 0, relative error 1.0e-04, a thirtieth of what rounding to bfloat16 may add. tools/minimax.py prints the
 * coefficients. */
INLINE vf exp2_coarse(vf x)
{
    vf shifted, r = fraction(x, &shifted);
    vf p = splat(0.0550089329f);
    p = p * r + 0.242210954f;
    p = p * r + 0.693282902f;
    p = p * r + 1.0f;
    return shift_exponent(p, shifted);
}

/* e^x, clamped to the range of normal numbers; ln 2 in two parts keeps the reduced argument exact. */
INLINE vf exp_(vf x)
{
    x = max(splat(-87.0f), min(splat(88.0f), x)); /* in this order, not a number stays one */
    vf n = nearest(x * 1.44269504f);
    vf r = x - n * 0.693359375f;
    return times_power(exp_reduced(r + n * 2.12194440e-4f), n);
}

INLINE vf sigmoid(vf x) { return 1.0f / (1.0f + exp_(-x)); }
