/* Checks of the kernels without Python: fenced arrays, seeded numbers, and comparisons with a double within a bound.
 *
 * Bounds follow tests/oracle/tolerance.py. An array lies between fences of NaN, at an address that is aligned for one
 * entry only. A read beyond the array spoils the result, and `release` finds a write beyond it. */
#ifndef CHECK_H
#define CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

/* Name the subject of the following checks, for messages about failures. */
void subject(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Check that got is within `bound` of want; NaN never is. */
void close_to(double got, double want, double bound, ptrdiff_t at);
void equal(const void *got, const void *want, size_t bytes);
void true_that(int holds, const char *what);

/* Allocate an array of n entries, filled with NaN of its dtype, that lives until `release`, which checks all fences. */
float *floats(ptrdiff_t n);
uint16_t *halves(ptrdiff_t n);
void release(void);

/* n numbers of [-size, size], the same on every run. */
float *numbers(ptrdiff_t n, float size);

uint16_t to_bf16(float x);
float from_bf16(uint16_t x);
/* Round x to bfloat16 as this set does; and whether its products of bfloat16 take subnormal numbers for zero and flush
 * subnormal sums, as some instructions do: docs/kernels.md. */
uint16_t rounded(const qv_kernels *isa, float x);
int multiplies_without_subnormals(const qv_kernels *isa);
/* Entry i of a row of either dtype. */
float entry(const void *row, ptrdiff_t i, qv_dtype dtype);
void *row_of(ptrdiff_t n, qv_dtype dtype);

/* Units of round-off that a sum of `length` products may gather (tolerance.growth); UNIT is half an ulp of 1. */
double growth(ptrdiff_t length);
#define ELEMENTARY 8 /* units of an elementary function (tolerance.ELEMENTARY) */
#define UNIT 0x1p-24
#define UNIT_BF16 0x1p-8
/* The part of a bound that rounding a result to the dtype of its row adds. */
double stored(double want, qv_dtype dtype);
/* The relative error of a power of two that is computed for a row of this dtype. */
double coarse(qv_dtype dtype);

void check_instructions(void);
void check_products(const qv_kernels *isa);
void check_quantized(const qv_kernels *isa);
void check_rows(const qv_kernels *isa);
void check_softmax(const qv_kernels *isa);
void check_epilogue(const qv_kernels *isa);

#endif
