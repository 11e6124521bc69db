/* The end of a tile: its sums become a part of the result. */

INLINE void store_rows(const float *sums, ptrdiff_t sums_pitch, ptrdiff_t rows, ptrdiff_t columns, void *out,
                       ptrdiff_t pitch, qv_dtype dtype)
{
    for (ptrdiff_t r = 0; r < rows; r++, sums += sums_pitch)
        EACH_VECTOR(i, lanes, columns)
            store_as(out, r * pitch + i, load(sums + i), lanes, dtype);
}

INLINE void add_rows(const float *sums, ptrdiff_t sums_pitch, ptrdiff_t rows, ptrdiff_t columns, float *out,
                     ptrdiff_t pitch)
{
    for (ptrdiff_t r = 0; r < rows; r++, sums += sums_pitch, out += pitch)
        EACH_VECTOR(i, lanes, columns)
            store_n(out + i, load(sums + i) + load_n(out + i, lanes), lanes);
}

static void store_tile(const float *sums, ptrdiff_t sums_pitch, ptrdiff_t rows, ptrdiff_t columns, void *out,
                       ptrdiff_t pitch, qv_dtype dtype, int add)
{
    if (add)
        add_rows(sums, sums_pitch, rows, columns, out, pitch);
    else
        DISPATCH(dtype, store_rows, sums, sums_pitch, rows, columns, out, pitch);
}
