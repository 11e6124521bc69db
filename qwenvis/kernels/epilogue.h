/* What follows a tile: its sums become a part of the result. */

static void store_tile(const float *sums, ptrdiff_t sums_pitch, ptrdiff_t rows, ptrdiff_t columns, void *out,
                       ptrdiff_t pitch, qv_kind kind, int add)
{
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < columns; c += VL) {
            vf x = load(sums + r * sums_pitch + c);
            if (add)
                x += load_n((const float *)out + r * pitch + c, columns - c);
            put(out, r * pitch + c, x, columns - c, kind);
        }
}
