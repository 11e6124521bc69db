/* The rotation before quantisation: y = H S x / BLOCK, for blocks of BLOCK neighbours along K.
 *
 * S holds a sign for each entry of a block, H is Sylvester's Hadamard matrix, and H S / sqrt(BLOCK) is orthogonal. Two
 * rows that are rotated alike have the dot product y1 . y2 = x1 . x2 / BLOCK. The rotation spreads an outlier over its
 * block, and no entry of y is larger than the largest of x. */

enum { BLOCK = 128, BLOCK_VECTORS = BLOCK / VL };

/* The signs are bits of the fraction of pi: without them a block of equal entries would become one outlier. */
static const uint32_t NEGATIVE[BLOCK / 32] = {0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344};

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

/* Signs over BLOCK, exact factors: the sums of the rotation cannot overflow. */
INLINE void fill_signs(vf signs[BLOCK_VECTORS])
{
    for (int i = 0; i < BLOCK; i++) {
        float sign = NEGATIVE[i / 32] >> i % 32 & 1 ? -1.0f / BLOCK : 1.0f / BLOCK;
        memcpy((char *)signs + 4 * i, &sign, sizeof sign);
    }
}

INLINE void rotate_block(vf x[BLOCK_VECTORS], const vf signs[BLOCK_VECTORS])
{
    UNROLL for (int i = 0; i < BLOCK_VECTORS; i++)
        x[i] *= signs[i];
    UNROLL for (int d = BLOCK_VECTORS / 2; d; d /= 2)
        UNROLL for (int i = 0; i < BLOCK_VECTORS; i++)
            if (!(i & d)) {
                vf first = x[i], second = x[i + d];
                x[i] = first + second;
                x[i + d] = first - second;
            }
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
