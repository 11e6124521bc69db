/* The rotation before quantisation: y = H S x, for blocks of BLOCK neighbours along K, and for blocks of TAIL behind
 * the last whole block. H is Sylvester's Hadamard matrix, S holds a factor for each entry. A rotation spreads an
 * outlier over its block. Where the factors of two rows are reciprocal, apart from a common power of two, the rotated
 * rows have the dot product of the rows times that power. */

enum { BLOCK = 128, BLOCK_VECTORS = BLOCK / VL, TAIL = 32, TAIL_VECTORS = TAIL / VL };

#define FOUR_LANES(i, d) (i) ^ (d), ((i) + 1) ^ (d), ((i) + 2) ^ (d), ((i) + 3) ^ (d)
#if VL == 4
#define LANES(d) FOUR_LANES(0, d)
#elif VL == 8
#define LANES(d) FOUR_LANES(0, d), FOUR_LANES(4, d)
#else
#define LANES(d) FOUR_LANES(0, d), FOUR_LANES(4, d), FOUR_LANES(8, d), FOUR_LANES(12, d)
#endif

/* Lanes i and i + d become their sum and their difference, where bit d of i is not set. */
#define ADD_LANES(x, d) (__builtin_shufflevector(x, x, LANES(d)) + (x) * alternating(d))

INLINE vf alternating(int d)
{
    vf signs;
    UNROLL for (int i = 0; i < VL; i++)
        signs[i] = i & d ? -1 : 1;
    return signs;
}

INLINE void add_and_subtract(vf x[BLOCK_VECTORS], int distance)
{
    UNROLL for (int start = 0; start < BLOCK_VECTORS; start += 2 * distance)
        UNROLL for (int i = start; i < start + distance; i++) {
            vf first = x[i], second = x[i + distance];
            x[i] = first + second;
            x[i + distance] = first - second;
        }
}

/* Rotate a block of n entries, followed by zeros, in place. */
INLINE void rotate_block(vf x[BLOCK_VECTORS], ptrdiff_t n)
{
    if (n >= BLOCK)
        UNROLL for (int d = BLOCK_VECTORS / 2; d >= TAIL_VECTORS; d /= 2)
            add_and_subtract(x, d);
    UNROLL for (int d = TAIL_VECTORS / 2; d; d /= 2)
        add_and_subtract(x, d);
    UNROLL for (int i = 0; i < BLOCK_VECTORS; i++) {
#if VL > 8
        x[i] = ADD_LANES(x[i], 8);
#endif
#if VL > 4
        x[i] = ADD_LANES(x[i], 4);
#endif
        x[i] = ADD_LANES(x[i], 2);
        x[i] = ADD_LANES(x[i], 1);
    }
}
#undef FOUR_LANES
#undef LANES
#undef ADD_LANES
