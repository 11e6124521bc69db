/* Vectors of VL floats in GCC's and Clang's vector extensions, and arithmetic that activations and rows share. */
#include <math.h>
#include <string.h>

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef uint32_t vu __attribute__((vector_size(4 * VL)));
typedef float vf_unaligned __attribute__((vector_size(4 * VL), aligned(4), may_alias));

/* The compiler keeps accumulators in registers only if every loop over them is unrolled. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* Make the compiler assume that x has changed. */
#ifdef __aarch64__
#define OPAQUE(x) __asm__ volatile("" : "+w"(x))
#elif defined(QV_EMULATED) /* a vector may be longer than a register */
#define OPAQUE(x) __asm__ volatile("" : "+m"(x))
#else
#define OPAQUE(x) __asm__ volatile("" : "+v"(x))
#endif
#define OPAQUE_POINTER(p) __asm__("" : "+r"(p))

#define INLINE static inline __attribute__((always_inline))

INLINE vf splat(float x) { return x - (vf){0}; }
INLINE vf load(const float *p) { return *(const vf_unaligned *)p; }
INLINE void store(float *p, vf x) { *(vf_unaligned *)p = x; }

/* Load the first n entries at p, followed by zeros: a whole vector for n >= VL, zeros alone for n <= 0. */
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

/* numpy.where: entries of `yes` where the mask is set, entries of `no` elsewhere. */
INLINE vf where(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

/* C's vector extensions have no maximum and no minimum. An instruction that the file of an ISA names replaces three. */
#ifndef QV_MAX
#define QV_MAX(a, b) where((a) > (b), a, b)
#define QV_MIN(a, b) where((a) < (b), a, b)
#endif
INLINE vf max(vf a, vf b) { return QV_MAX(a, b); }
INLINE vf min(vf a, vf b) { return QV_MIN(a, b); }

/* bfloat16 is the upper half of a float. Round to nearest, ties to even; NaN stays NaN. */
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

/* The floats of bfloat16 entries. */
#ifndef QV_WIDEN
#define QV_WIDEN(x) __builtin_convertvector(x, vu)
#endif
INLINE vf widen(vh x) { return (vf)(QV_WIDEN(x) << 16); }

/* Store x as entries i .. i + n of a row of `dtype`: a whole vector for n >= VL, nothing for n <= 0. */
INLINE void store_as(void *row, ptrdiff_t i, vf x, ptrdiff_t n, qv_dtype dtype)
{
    if (dtype == QV_F32) {
        store_n((float *)row + i, x, n);
    } else if (n > 0) {
        vh half = narrow(x);
        memcpy((uint16_t *)row + i, &half, n >= VL ? sizeof half : (size_t)n * 2);
    }
}

/* Two vectors rounded to bfloat16, side by side. */
#ifdef QV_NARROW_TWO
INLINE vf narrow_two(vf left, vf right) { return QV_NARROW_TWO(left, right); }
#else
INLINE vf narrow_two(vf left, vf right)
{
    vf words;
    vh halves[2] = {narrow(left), narrow(right)};
    memcpy(&words, halves, sizeof words);
    return words;
}
#endif

/* total + both halves of each word, which are bfloat16 */
INLINE vf plus_words(vf total, vf words)
{
#ifdef QV_BF16_DOT
    return QV_BF16_DOT(total, 0x3F803F80, words); /* 1 a0 + 1 a1 */
#else
    return total + ((vf)((vu)words << 16) + (vf)((vu)words & 0xFFFF0000));
#endif
}

/* Store two vectors as entries from i on; returns `total` plus what is stored. */
INLINE vf store_two(void *row, ptrdiff_t i, vf left, vf right, vf total, qv_dtype dtype)
{
    if (dtype == QV_F32) {
        store((float *)row + i, left);
        store((float *)row + i + VL, right);
        return total + (left + right);
    }
    vf words = narrow_two(left, right);
    store((float *)((uint16_t *)row + i), words);
    return plus_words(total, words);
}

/* Loop over the vectors of a row of `size` entries, each of `lanes` entries from i on. The outer loop is unrolled into
 * one over whole vectors, where `lanes` is the constant VL, and one over the rest, so the inner loop has no branch. */
#define EACH_VECTOR(i, lanes, size)                                                                                    \
    UNROLL for (int rest_ = 0; rest_ < 2; rest_++)                                                                     \
        for (ptrdiff_t i = rest_ ? (size) / VL * VL : 0, lanes = rest_ ? (size) % VL : VL;                             \
             lanes > 0 && i + lanes <= (size); i += VL)

/* Call an inline function, whose last argument is a dtype, with that dtype as a constant: each has loops of its own. */
#define DISPATCH(dtype, function, ...)                                                                                 \
    ((dtype) == QV_F32 ? function(__VA_ARGS__, QV_F32) : function(__VA_ARGS__, QV_BF16))

/* Join the lanes of a vector by halves: a fixed order, so a sum has the same bits on every run. */
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

/* 1.5 * 2^23: floats of this size are integers, so adding it rounds to an integer, which is left in the last bits. */
#define ROUNDER 12582912.0f

/* Round to the nearest integer, for |x| < 2^22. */
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

/* Split x <= 127 into n + r with |r| <= 1/2; returns r, and n in the form that `times_two_to` takes. Below -126, where
 * 2^x is not normal, x becomes -126, except where QV_SCALE takes any finite n. */
#ifdef QV_SCALE
INLINE vf fraction(vf x, vf *n)
{
    *n = QV_NEAREST(x);
    return x - *n;
}

INLINE vf times_two_to(vf p, vf n) { return QV_SCALE(p, n); }
#else
INLINE vf fraction(vf x, vf *n)
{
    x = max(splat(-126.0f), x); /* NaN stays NaN if x is the second operand */
    *n = x + (ROUNDER + 127);   /* the last bits are n + 127, the exponent bits of 2^n */
    return x - (*n - (ROUNDER + 127));
}

/* A product, because NaN times anything is NaN: added to exponent bits, some payloads would make it finite. */
INLINE vf times_two_to(vf p, vf n) { return p * (vf)((vi)n << 23); }
#endif

/* 2^x for finite x <= 127, relative error 2.1e-8 before rounding, from a polynomial for 2^r. 2^0 is 1. */
INLINE vf exp2_(vf x)
{
    vf n, r = fraction(x, &n);
    vf p = splat(1.5345811e-4f);
    p = p * r + 1.3399931e-3f;
    p = p * r + 9.6184890e-3f;
    p = p * r + 5.5503288e-2f;
    p = p * r + 2.4022647e-1f;
    p = p * r + 6.9314721e-1f;
    p = p * r + 1.0f;
    return times_two_to(p, n);
}

/* 2^x for finite x <= 127, relative error 1.0e-04, a thirtieth of what rounding to bfloat16 may add. tools/minimax.py
 * prints the coefficients. */
INLINE vf exp2_coarse(vf x)
{
    vf n, r = fraction(x, &n);
    vf p = splat(0.0550089329f);
    p = p * r + 0.242210954f;
    p = p * r + 0.693282902f;
    p = p * r + 1.0f;
    return times_two_to(p, n);
}

/* 2^x for finite x <= 127, as exact as rows of this dtype need. */
INLINE vf power(vf x, qv_dtype dtype) { return dtype == QV_F32 ? exp2_(x) : exp2_coarse(x); }

/* 2^x for x <= 0; below -126, minus infinity included, 2^-126. */
INLINE vf power_below(vf x, qv_dtype dtype)
{
#ifdef QV_SCALE
    x = max(splat(-126.0f), x);
#endif
    return power(x, dtype);
}

/* e^x, limited to normal numbers. ln 2 in two parts keeps the reduced argument exact. */
INLINE vf exp_(vf x)
{
    x = max(splat(-87.0f), min(splat(88.0f), x)); /* NaN stays NaN if x is the second operand */
    vf n = nearest(x * 1.44269504f);
    vf r = x - n * 0.693359375f;
    return times_power(exp_reduced(r + n * 2.12194440e-4f), n);
}

/* 1 / (1 + e^-x), as exact as rows of this dtype need. NaN stays NaN, as the second operand of the minimum. */
INLINE vf sigmoid(vf x, qv_dtype dtype)
{
    if (dtype == QV_F32)
        return 1.0f / (1.0f + exp_(-x));
    return 1.0f / (1.0f + exp2_coarse(min(splat(126.0f), x * -1.44269504f)));
}
