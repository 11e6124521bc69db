/* Resampling of RGB bytes along one axis, by qv_resampling, in integers: the order of a sum changes no bit. */

typedef int32_t vpixel __attribute__((vector_size(16))); /* R, G, B and an unused byte */
typedef uint8_t vbytes __attribute__((vector_size(4)));

/* sum >> precision, limited to 0 .. 255; `sum` includes the half that rounds it. */
INLINE uint8_t rounded_byte(int32_t sum, int precision)
{
    int32_t x = sum >> precision;
    return (uint8_t)(x < 0 ? 0 : x > 255 ? 255 : x);
}

/* Read four bytes at a time, but only three of the last pixel: nothing past the end of the row. */
static void resample_row(const uint8_t *x, ptrdiff_t width, const qv_resampling *r, uint8_t *out)
{
    int32_t half = 1 << (r->precision - 1);
    for (ptrdiff_t i = 0; i < r->n; i++) {
        const uint8_t *p = x + 3 * r->starts[i];
        const int32_t *w = r->weights + i * r->taps;
        vpixel sum = {half, half, half, half};
        vbytes bytes = {0};
        ptrdiff_t whole = r->taps - (r->starts[i] + r->taps == width), k = 0;
        for (; k < whole; k++) {
            memcpy(&bytes, p + 3 * k, sizeof bytes);
            sum += __builtin_convertvector(bytes, vpixel) * w[k];
        }
        if (k < r->taps) {
            memcpy(&bytes, p + 3 * k, 3);
            sum += __builtin_convertvector(bytes, vpixel) * w[k];
        }
        for (int c = 0; c < 3; c++)
            out[3 * i + c] = rounded_byte(sum[c], r->precision);
    }
}

enum { RESAMPLED = 4 * VL }; /* bytes at a time: their sums stay in registers */

static void resample_column(const uint8_t *x, ptrdiff_t bytes, const qv_resampling *r, ptrdiff_t i, uint8_t *out)
{
    int32_t half = 1 << (r->precision - 1);
    const uint8_t *p = x + r->starts[i] * bytes;
    const int32_t *w = r->weights + i * r->taps;
    ptrdiff_t j = 0;
    for (; j + RESAMPLED <= bytes; j += RESAMPLED) {
        int32_t sums[RESAMPLED];
        for (int b = 0; b < RESAMPLED; b++)
            sums[b] = half;
        for (ptrdiff_t k = 0; k < r->taps; k++)
            for (int b = 0; b < RESAMPLED; b++)
                sums[b] += w[k] * p[k * bytes + j + b];
        for (int b = 0; b < RESAMPLED; b++)
            out[j + b] = rounded_byte(sums[b], r->precision);
    }
    for (; j < bytes; j++) {
        int32_t sum = half;
        for (ptrdiff_t k = 0; k < r->taps; k++)
            sum += w[k] * p[k * bytes + j];
        out[j] = rounded_byte(sum, r->precision);
    }
}
