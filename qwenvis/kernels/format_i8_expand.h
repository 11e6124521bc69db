/* Weights in int8, rows in float32: a quarter of the memory, on a CPU without dot products of int8. */

/* Byte j of a vector of words, as signed integers. */
INLINE vi byte_of(vu words, int j) { return (vi)(words << (24 - 8 * j)) >> 24; }

static void i8_expand(const void *panel, const float *factors, ptrdiff_t first, ptrdiff_t steps, ptrdiff_t width,
                      float *out)
{
    const float *scales = panel, *words = scales + (HEADER_WORDS + first / 4) * width;
    for (ptrdiff_t p = 0; p < steps; p += 4, words += width, out += 4 * width)
        for (ptrdiff_t c = 0; c < width; c += VL)
            for (int j = 0; j < 4 && p + j < steps; j++)
                store(out + j * width + c,
                      __builtin_convertvector(byte_of((vu)load(words + c), j), vf) * load(scales + c) *
                          factors[first + p + j]);
}
