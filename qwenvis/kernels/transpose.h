/* Transposition of four-byte words, as packing a weight into panels needs it. A word is one f32, or two neighbours in K
 * of two bytes each. Every CPU has vectors of four floats, so all ISAs use the same code. */
typedef float v4 __attribute__((vector_size(16)));
typedef float v4_anywhere __attribute__((vector_size(16), aligned(1), may_alias));

/* out[i][c] = w[c][i] for a square of 4 x 4 words; rows of w lie `stride` bytes apart. */
INLINE void transpose_square(const char *w, ptrdiff_t stride, float *out, ptrdiff_t width)
{
    v4 a = *(const v4_anywhere *)w, b = *(const v4_anywhere *)(w + stride);
    v4 c = *(const v4_anywhere *)(w + 2 * stride), d = *(const v4_anywhere *)(w + 3 * stride);
    v4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    *(v4_anywhere *)out = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    *(v4_anywhere *)(out + width) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    ab = __builtin_shufflevector(a, b, 2, 6, 3, 7), cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(v4_anywhere *)(out + 2 * width) = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    *(v4_anywhere *)(out + 3 * width) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

/* out[i][c] = w[c][i] for words, one cache line of each row at a time. */
static void transpose_words(const char *w, ptrdiff_t stride, ptrdiff_t columns, ptrdiff_t words, float *out,
                            ptrdiff_t width)
{
    ptrdiff_t whole = columns & ~3, squares = words & ~3;
    for (ptrdiff_t line = 0; line < squares; line += 16)
        for (ptrdiff_t c = 0; c < whole; c += 4)
            for (ptrdiff_t i = line; i < squares && i < line + 16; i += 4)
                transpose_square(w + c * stride + 4 * i, stride, out + i * width + c, width);
    for (ptrdiff_t c = 0; c < columns; c++)
        for (ptrdiff_t i = c < whole ? squares : 0; i < words; i++)
            memcpy(out + i * width + c, w + c * stride + 4 * i, 4);
}

INLINE void zero_words(float *out, ptrdiff_t from, ptrdiff_t to)
{
    for (ptrdiff_t c = from; c < to; c++)
        out[c] = 0;
}
