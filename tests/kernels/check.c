/* The program, and what all checks share. It checks the slots of every instruction set that this CPU has, but not those
 * of resampling, which tests/ops/test_resample.py checks.
 *
 *     kernels [ISA ...]     fails if one of these sets is not present, or if any check fails */
#include "check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "instructions.h"

#ifndef FENCE
#define FENCE 17 /* floats on either side of an array; 0 leaves the watch to an address sanitizer */
#endif
enum { ARRAYS = 128, SHOWN = 20 };

static char subject_[256];
static int failed;
static long compared;
static struct {
    unsigned char *start;
    size_t bytes;
} arrays[ARRAYS];
static int array_count;

void subject(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(subject_, sizeof subject_, format, arguments);
    va_end(arguments);
}

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (failed++ < SHOWN) {
        printf("FAILED %s: ", subject_);
        vprintf(format, arguments);
        printf("\n");
    }
    va_end(arguments);
}

void close_to(double got, double want, double bound, ptrdiff_t at)
{
    compared++;
    if (!(fabs(got - want) <= bound))
        fail("entry %td is %.9g; expected %.9g within %.2g", at, got, want, bound);
}

void equal(const void *got, const void *want, size_t bytes)
{
    compared++;
    if (memcmp(got, want, bytes))
        fail("the bits differ");
}

void true_that(int holds, const char *what)
{
    compared++;
    if (!holds)
        fail("not true: %s", what);
}

static void *fenced(size_t bytes, size_t fence)
{
    if (array_count == ARRAYS) {
        fprintf(stderr, "more than %d arrays at once\n", (int)ARRAYS);
        exit(2);
    }
    unsigned char *start = malloc(bytes + 2 * fence + 1);
    if (!start)
        exit(2);
    memset(start, 0xFF, bytes + 2 * fence);
    arrays[array_count].start = start;
    arrays[array_count++].bytes = bytes;
    return start + fence;
}

float *floats(ptrdiff_t n) { return fenced((size_t)n * sizeof(float), 4 * FENCE); }
uint16_t *halves(ptrdiff_t n) { return fenced((size_t)n * sizeof(uint16_t), 4 * FENCE); }

void release(void)
{
    while (array_count) {
        unsigned char *start = arrays[--array_count].start, *stop = start + arrays[array_count].bytes + 4 * FENCE;
        for (int i = 0; i < 4 * FENCE; i++)
            if (start[i] != 0xFF || stop[i] != 0xFF) {
                fail("wrote beyond an array");
                break;
            }
        free(start);
    }
}

float *numbers(ptrdiff_t n, float size)
{
    static uint32_t state = 1;
    float *x = floats(n);
    for (ptrdiff_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u; /* Knuth's linear congruence: the upper bits are good enough */
        x[i] = size * ((float)(state >> 8) / 8388608.0f - 1);
    }
    return x;
}

uint16_t to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float from_bf16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static int is(const qv_kernels *isa, const char *name) { return !strcmp(isa->name, name); }

uint16_t rounded(const qv_kernels *isa, float x) { return is(isa, "avx512_bf16") ? narrowed(x) : to_bf16(x); }

int multiplies_without_subnormals(const qv_kernels *isa) { return is(isa, "avx512_bf16") || is(isa, "neon_bf16"); }

float entry(const void *row, ptrdiff_t i, qv_dtype dtype)
{
    return dtype == QV_F32 ? ((const float *)row)[i] : from_bf16(((const uint16_t *)row)[i]);
}

void *row_of(ptrdiff_t n, qv_dtype dtype) { return dtype == QV_F32 ? (void *)floats(n) : (void *)halves(n); }

double growth(ptrdiff_t length) { return fmin((double)length, 8 * sqrt((double)length)) + 2; }
double stored(double want, qv_dtype dtype) { return dtype == QV_F32 ? UNIT * fabs(want) : UNIT_BF16 * fabs(want); }
double coarse(qv_dtype dtype) { return dtype == QV_BF16 ? 1.1e-4 : 0; }

static int present(const char *name)
{
    for (const qv_kernels *const *isa = qv_isas; *isa; isa++)
        if ((*isa)->name && is(*isa, name))
            return (*isa)->present();
    return 0;
}

int main(int count, char **names)
{
    for (int i = 1; i < count; i++) {
        subject("%s", names[i]);
        true_that(present(names[i]), "it is compiled, and this CPU has it");
    }
    check_instructions();
    for (const qv_kernels *const *isa = qv_isas; *isa; isa++) {
        if (!(*isa)->name)
            continue;
        int before = failed;
        long already = compared;
        if ((*isa)->present()) {
            check_products(*isa);
            check_quantized(*isa);
            check_epilogue(*isa);
            check_rows(*isa);
            check_softmax(*isa);
            printf("%-12s %ld comparisons, %d failed\n", (*isa)->name, compared - already, failed - before);
        } else {
            printf("%-12s not on this CPU\n", (*isa)->name);
        }
    }
    return failed != 0;
}
