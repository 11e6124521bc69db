/* The instructions of AVX512_BF16 and of VNNI in C, checked against known values, and against the CPU where it has
 * them. */
#include "instructions.h"

#include <math.h>
#include <string.h>

#include "check.h"

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

#define SIGN 0x80000000u
#define EXPONENT 0x7F800000u
#define QUIET 0x400000u /* of a NaN */

static float without_subnormal(float x) { return bits_of(x) & EXPONENT ? x : float_of(bits_of(x) & SIGN); }

/* x + y in double, rounded to odd: an inexact result has a last bit of one. So it lies on the same side of any float as
 * the exact sum, and rounding it to float gives the rounding of the exact sum. */
static double odd_sum(double x, double y)
{
    double sum = x + y, of_y = sum - x, error = (x - (sum - of_y)) + (y - of_y); /* Knuth's TwoSum */
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    if (!isfinite(sum) || error == 0 || bits & 1)
        return sum;
    return nextafter(sum, error > 0 ? INFINITY : -INFINITY);
}

static float multiplied_and_added(float c, float a, float b, double tiny)
{
    const float read[] = {without_subnormal(a), without_subnormal(b), without_subnormal(c)};
    for (int i = 0; i < 3; i++)
        if (isnan(read[i]))
            return float_of(bits_of(read[i]) | QUIET);
    double sum = odd_sum((double)read[0] * read[1], read[2]); /* the product of two bfloat16 is exact */
    if (isnan(sum))
        return float_of(SIGN | EXPONENT | QUIET); /* infinity less infinity, or times zero */
    return fabs(sum) < tiny ? (float)copysign(0, sum) : (float)sum;
}

float dot_of_pairs(float c, uint32_t a, uint32_t b, double tiny)
{
    c = multiplied_and_added(c, float_of(a & 0xFFFF0000u), float_of(b & 0xFFFF0000u), tiny);
    return multiplied_and_added(c, float_of(a << 16), float_of(b << 16), tiny);
}

uint16_t narrowed(float x)
{
    uint32_t bits = bits_of(without_subnormal(x));
    if (isnan(x))
        return (uint16_t)((bits | QUIET) >> 16);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

void dots_of_pairs(float *c, const int32_t *a, const int32_t *b, int lanes)
{
    for (int i = 0; i < lanes; i++)
        c[i] = dot_of_pairs(c[i], (uint32_t)a[i], (uint32_t)b[i], TINY_BEFORE);
}

int32_t dot_of_bytes(int32_t c, uint32_t a, uint32_t b)
{
    uint32_t sum = (uint32_t)c; /* which wraps around */
    for (int shift = 0; shift < 32; shift += 8)
        sum += (uint32_t)((int32_t)(a >> shift & 0xFF) * (int8_t)(b >> shift));
    return (int32_t)sum;
}

void dots_of_bytes(int32_t *c, const int32_t *a, const int32_t *b, int lanes)
{
    for (int i = 0; i < lanes; i++)
        c[i] = dot_of_bytes(c[i], (uint32_t)a[i], (uint32_t)b[i]);
}

void narrowed_halves(const float *x, uint16_t *halves, int lanes)
{
    for (int i = 0; i < lanes; i++)
        halves[i] = narrowed(x[i]);
}

static uint32_t word(float upper, float lower) { return (uint32_t)to_bf16(upper) << 16 | to_bf16(lower); }

static uint32_t dotted(float c, uint32_t a, uint32_t b) { return bits_of(dot_of_pairs(c, a, b, TINY_BEFORE)); }

/* Sums and products that a reader can check by hand. */
static void check_dot_of_pairs(void)
{
    const struct {
        float c, a1, b1, a0, b0, want;
        const char *what;
    } known[] = {
        {1, 2, 3, 4, 5, 27, "a sum of two products"},
        {0x1p-127f, 0, 0, 0, 0, 0, "a subnormal sum is taken for zero"},
        {-0x1p-127f, 0, -1, 0, -1, -0.0f, "which keeps its sign"},
        {0, 0x1p-127f, 0x1p100f, 0, 0, 0, "a subnormal factor is taken for zero"},
        {0, 0, 0, 0x1p100f, -0x1p-130f, 0, "on either side"},
        {0, 0x1p-64f, 0x1p-64f, 0, 0, 0, "a subnormal result is flushed"},
        {0, -0x1p-64f, 0x1p-64f, 0, 1, 0, "after each of both products"},
        {0, 0, -1, -0x1p-64f, 0x1p-64f, -0.0f, "to a zero with its sign"},
        {0x1.8p-126f, 0x1p-63f, -0x1p-63f, 1, 0x1p-126f, 0x1p-126f, "the first sum as well as the second"},
        {0x1p-126f, 0, 0, 0, 0, 0x1p-126f, "the smallest normal number stays"},
        {1, 0x1p-12f, 0x1p-12f, 0x1p-12f, 0x1p-12f, 1, "each sum is rounded, a tie to even"},
        {0, 0x1p-12f, 0x1p-12f, 1, 1, 1, "the upper product is added first"},
        {0, 1, 1, 0x1p-12f, 0x1.02p-12f, 0x1.000002p0f, "a product is not rounded before its sum"},
        {0, 0x1p127f, 2, 0x1p127f, -2, INFINITY, "an overflow ends in infinity"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t a = word(known[i].a1, known[i].a0), b = word(known[i].b1, known[i].b0);
        true_that(dotted(known[i].c, a, b) == bits_of(known[i].want), known[i].what);
    }
    true_that(dotted(INFINITY, 0xBF800000, 0x7F800000) == 0xFFC00000, "infinity less infinity is the default NaN");
    true_that(dotted(1, 0x7F810000, 0x3F80FF82) == 0xFFC20000, "the lower NaN goes first");
    true_that(dotted(NAN, 0x7F810000, 0x3F803F80) == 0x7FC10000, "a factor's before the sum's, and it is quiet");
}

static void check_narrowed(void)
{
    const float subnormal[] = {0x1p-127f, 0x1p-149f, 0x1.fffffcp-127f};
    for (int i = 0; i < 3; i++) {
        true_that(narrowed(subnormal[i]) == 0, "a subnormal number becomes zero");
        true_that(narrowed(-subnormal[i]) == 0x8000, "which keeps its sign");
    }
    true_that(narrowed(0x1p-126f) == 0x0080, "the smallest normal number stays");
    true_that(narrowed(float_of(0x7F800001)) == 0x7FC0, "a NaN stays one, and quiet");
    const float other[] = {0,  -0.0f, 0x1.01p0f, 0x1.03p0f, 0x1.010002p0f, 0x1.fffffep127f, INFINITY,
                           -3, 0x1.fffffep-126f};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        true_that(narrowed(other[i]) == to_bf16(other[i]), "any other number is rounded to nearest, ties to even");
}

static void check_dot_of_bytes(void)
{
    true_that(dot_of_bytes(7, 0x01020304, 0x01010101) == 17, "four products are added to the sum");
    true_that(dot_of_bytes(0, 0x000000FF, 0x00000080) == -32640, "the first factor is unsigned, the second signed");
    true_that(dot_of_bytes(0, 0xFFFFFFFF, 0x80808080) == -130560, "no sum of two saturates");
}

/* GCC knows them since 10, Clang since 9. */
#if defined(__x86_64__) && !defined(QV_EMULATED) && (defined(__clang__) ? __clang_major__ >= 9 : __GNUC__ >= 10)
#include <immintrin.h>
#define HARDWARE __attribute__((target("avx512bf16,avx512vl,avx512vnni")))

HARDWARE static int32_t cpu_dot_of_bytes(int32_t c, uint32_t a, uint32_t b)
{
    __m128i lanes_a = _mm_set1_epi32((int32_t)a), lanes_b = _mm_set1_epi32((int32_t)b);
    return _mm_cvtsi128_si32(_mm_dpbusd_epi32(_mm_set1_epi32(c), lanes_a, lanes_b));
}

HARDWARE static float cpu_dot_of_pairs(float c, uint32_t a, uint32_t b)
{
    __m128bh lanes_a = (__m128bh)_mm_set1_epi32((int32_t)a), lanes_b = (__m128bh)_mm_set1_epi32((int32_t)b);
    return _mm_cvtss_f32(_mm_dpbf16_ps(_mm_set1_ps(c), lanes_a, lanes_b));
}

HARDWARE static uint16_t cpu_narrowed(float x)
{
    __m128i lanes = (__m128i)_mm_cvtneps_pbh(_mm_set1_ps(x));
    return (uint16_t)_mm_cvtsi128_si32(lanes);
}

static uint32_t drawn(void)
{
    static uint64_t state = 1;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17; /* Marsaglia's xorshift */
    return (uint32_t)(state >> 16);
}

/* Half of the numbers are any bits at all; of the others half lie at the ends of the range, and half have exponents at
 * which products and sums are about as large as the smallest normal number. */
static uint32_t drawn_float(void)
{
    static const uint32_t ends[] = {0,          1,          0x7FFFFF,   0x800000,   0x800001,   0xC00000,
                                    0x3F800000, 0x3F810000, 0x7F7FFFFF, 0x7F800000, 0x7F810000, 0x7FC12345};
    uint32_t bits = drawn(), choice = drawn() % 4;
    if (choice == 0)
        return (bits & SIGN) | ends[drawn() % (sizeof ends / sizeof *ends)];
    if (choice == 1)
        return (bits & ~EXPONENT) | (drawn() % 4 << 23);
    return bits;
}

static uint32_t drawn_pair(void)
{
    uint32_t lower = drawn_float() >> 16, upper = drawn_float() & 0xFFFF0000u;
    if (drawn() % 2) /* the square root of the smallest normal number */
        return ((lower | upper) & ~0x7F807F80u) | (drawn() % 8 + 60) << 23 | (drawn() % 8 + 60) << 7;
    return lower | upper;
}

enum { DRAWS = 1 << 20 };

/* Compare bit for bit, NaN included. A CPU detects tiny sums either always before rounding or always after it. */
static void check_against_cpu(void)
{
    long before = 0, after = 0, halves_off = 0, bytes_off = 0;
    if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vnni"))
        return;
    for (int i = 0; i < DRAWS; i++) {
        float c = float_of(drawn_float());
        uint32_t a = drawn_pair(), b = drawn_pair(), cpu = bits_of(cpu_dot_of_pairs(c, a, b));
        before += bits_of(dot_of_pairs(c, a, b, TINY_BEFORE)) != cpu;
        after += bits_of(dot_of_pairs(c, a, b, TINY_AFTER)) != cpu;
        bytes_off += dot_of_bytes((int32_t)a, b, cpu) != cpu_dot_of_bytes((int32_t)a, b, cpu);
        halves_off += narrowed(c) != cpu_narrowed(c);
    }
    true_that(before == 0 || after == 0, "the CPU's vdpbf16ps has the same bits");
    true_that(bytes_off == 0, "the CPU's vpdpbusd has the same bits");
    true_that(halves_off == 0, "the CPU's vcvtneps2bf16 has the same bits");
}
#else
static void check_against_cpu(void) {}
#endif

void check_instructions(void)
{
    subject("instructions");
    check_dot_of_pairs();
    check_narrowed();
    check_dot_of_bytes();
    check_against_cpu();
}
