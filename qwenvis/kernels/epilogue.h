/* What follows a tile: its sums become a part of the result. */

static void store_tile(const float *sums, ptrdiff_t sums_pitch, ptrdiff_t rows, ptrdiff_t columns, void *out,
                       ptrdiff_t pitch, qv_kind kind, int add)
{
    for (ptrdiff_t r = 0; r < rows; r++, sums += sums_pitch) {
        float *row = (float *)out + r * pitch;
        if (add)
            EACH_VECTOR(columns, store_n(row + i, load(sums + i) + load_n(row + i, lanes), lanes));
        else
            BY_KIND(kind, EACH_VECTOR(columns, store_as(out, r * pitch + i, load(sums + i), lanes, KIND)));
    }
}
