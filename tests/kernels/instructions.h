/* The instructions of AVX512_BF16 and of VNNI, lane by lane, on any CPU: after Intel's manual, or after the behaviour of
 * CPUs where the manual says nothing. Those of AVX512_BF16 take subnormal numbers for zero and flush subnormal results,
 * whatever MXCSR says, and round to nearest, ties to even. */
#ifndef INSTRUCTIONS_H
#define INSTRUCTIONS_H

#include <stdint.h>

/* Sums of a smaller magnitude are flushed. A CPU may compare a sum before or after rounding it: the manual is silent,
 * and AMD's Zen 4 compares before. */
#define TINY_BEFORE 0x1p-126
#define TINY_AFTER (0x1p-126 - 0x1p-151)

/* vdpbf16ps: the product of the upper halves of two words is added to c, then that of the lower halves. Each sum is
 * rounded once, a product never. Of several NaN, one of a lower half comes before one of an upper half, a before b, c
 * last. */
float dot_of_pairs(float c, uint32_t a, uint32_t b, double tiny);

/* vcvtneps2bf16 */
uint16_t narrowed(float x);

/* vpdpbusd: c + the products of the bytes of a, unsigned, with those of b, signed. */
int32_t dot_of_bytes(int32_t c, uint32_t a, uint32_t b);

/* The same instructions for `lanes` lanes of a vector, in place or into `halves`. */
void dots_of_pairs(float *c, const int32_t *a, const int32_t *b, int lanes);
void dots_of_bytes(int32_t *c, const int32_t *a, const int32_t *b, int lanes);
void narrowed_halves(const float *x, uint16_t *halves, int lanes);

#endif
