/* Checks of the kernels without Python: fenced arrays, numbers by a seed, and comparisons with a double and its bound.
 *
 * Bounds follow tests/oracle/tolerance.py. An array lies between fences of NaN, at an address that suits one entry only: what
 * is read beyond it spoils the result, and what is written beyond it is seen by `release`. */
#ifndef CHECK_H
#define CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

/* What is checked now, for the line that tells of a failure. */
void subject(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* got within `bound` of want; a NaN is within nothing. */
void close_to(double got, double want, double bound, ptrdiff_t at);
void equal(const void *got, const void *want, size_t bytes);
void true_that(int holds, const char *what);

/* An array of n entries that lives until `release`, which checks all fences. It is filled with NaN of either dtype. */
float *floats(ptrdiff_t n);
uint16_t *halves(ptrdiff_t n);
void release(void);

/* n numbers of [-size, size], the same on every run. */
float *numbers(ptrdiff_t n, float size);

uint16_t to_bf16(float x);
float from_bf16(uint16_t x);
/* x in bfloat16 as this set rounds it; and whether its products of bfloat16 take subnormal numbers for zero and flush
 * such sums: docs/kernels.md. Some instructions do. */
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
/* What rounding a result to the dtype of its row adds to its bound. */
double stored(double want, qv_dtype dtype);

void check_instructions(void);
void check_products(const qv_kernels *isa);
void check_rows(const qv_kernels *isa);
void check_softmax(const qv_kernels *isa);
void check_epilogue(const qv_kernels *isa);

#endif
