/* The instructions of AVX512_BF16, a lane at a time, on any CPU: written after Intel's manual, and where that is silent
 * after what CPUs do. They take subnormal numbers for zero and flush such results, whatever MXCSR says, and round to
 * nearest, ties to even. */
#ifndef INSTRUCTIONS_H
#define INSTRUCTIONS_H

#include <stdint.h>

/* Sums below this in magnitude are flushed. CPUs may look at a sum before its rounding or after it; the manual does not
 * say, and AMD's Zen 4 looks before. */
#define TINY_BEFORE 0x1p-126
#define TINY_AFTER (0x1p-126 - 0x1p-151)

/* vdpbf16ps: the product of the upper halves of two words is added to c, then that of the lower halves. Each sum is
 * rounded once, a product never. A NaN of a lower half goes before one of an upper half, a's before b's, c's last. */
float dot_of_pairs(float c, uint32_t a, uint32_t b, double tiny);

/* vcvtneps2bf16 */
uint16_t narrowed(float x);

/* The same for `lanes` of a vector, in place or into `halves`. */
void dots_of_pairs(float *c, const int32_t *a, const int32_t *b, int lanes);
void narrowed_halves(const float *x, uint16_t *halves, int lanes);

#endif
