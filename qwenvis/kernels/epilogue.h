/* The end of a tile: its sums, with the bias and through the activation, become a part of the result. */

INLINE vf biased(const float *sums, const float *bias, ptrdiff_t i) { return load(sums + i) + load(bias + i); }

/* `columns` is a constant for a whole tile, so its rows have no branch. */
#define FINISH(name)                                                                                                   \
    INLINE void write_##name(const float *sums, ptrdiff_t rows, ptrdiff_t width, const float *bias, void *out,         \
                             ptrdiff_t pitch, ptrdiff_t columns, int add, qv_dtype dtype)                              \
    {                                                                                                                  \
        for (ptrdiff_t r = 0, at = 0; r < rows; r++, sums += width, at += pitch)                                       \
            EACH_VECTOR(i, lanes, columns) {                                                                           \
                vf y = act_##name(biased(sums, bias, i), dtype);                                                       \
                if (QV_ACT_##name == QV_ACT_silu_gate)                                                                 \
                    y *= biased(sums, bias, width / 2 + i); /* up */                                                   \
                if (add)                                                                                               \
                    y += load_n((const float *)out + at + i, lanes);                                                   \
                store_as(out, at + i, y, lanes, dtype);                                                                \
            }                                                                                                          \
    }                                                                                                                  \
    static void finish_##name(const float *sums, ptrdiff_t rows, ptrdiff_t width, const float *bias, void *out,        \
                              ptrdiff_t pitch, ptrdiff_t columns, qv_dtype dtype, int add)                             \
    {                                                                                                                  \
        const ptrdiff_t whole = QV_ACT_##name == QV_ACT_silu_gate ? NR / 2 : NR;                                       \
        if (add)                                                                                                       \
            write_##name(sums, rows, width, bias, out, pitch, columns, 1, QV_F32);                                     \
        else if (columns == whole)                                                                                     \
            DISPATCH(dtype, write_##name, sums, rows, width, bias, out, pitch, whole, 0);                              \
        else                                                                                                           \
            DISPATCH(dtype, write_##name, sums, rows, width, bias, out, pitch, columns, 0);                            \
    }
QV_ACTIVATIONS(FINISH)
#undef FINISH
