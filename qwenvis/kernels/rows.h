/* Functions of one row: norms, rope, the softmax, conversions. Sums run in two chains of vectors, which are
 * joined at the end. */

static float sum(const float *x, ptrdiff_t d)
{
    vf even = {0}, odd = {0};
    ptrdiff_t i = 0;
    for (; i + 2 * VL <= d; i += 2 * VL) {
        even += load(x + i);
        odd += load(x + i + VL);
    }
    even += load_n(x + i, d - i);
    odd += load_n(x + i + VL, d - i - VL);
    return sum_lanes(even + odd);
}

/* sum of (x - mean)^2 */
static float sum_of_squares(const float *x, ptrdiff_t d, float mean)
{
    vf even = {0}, odd = {0};
    ptrdiff_t i = 0;
    for (; i + 2 * VL <= d; i += 2 * VL) {
        vf a = load(x + i) - mean, b = load(x + i + VL) - mean;
        even += a * a;
        odd += b * b;
    }
    float rest = 0;
    for (; i < d; i++)
        rest += (x[i] - mean) * (x[i] - mean);
    return sum_lanes(even + odd) + rest;
}

/* 1 / sqrt(squares / d + eps), or NaN if `squares` has overflowed: 0 would hide the contents of the row. */
static float inverse_root(float squares, ptrdiff_t d, float eps)
{
    return squares < INFINITY ? 1.0f / sqrtf(squares / (float)d + eps) : NAN;
}

INLINE void shift_and_scale(const float *x, ptrdiff_t d, float mean, float scale, const float *weight,
                            const float *bias, void *out, qv_dtype dtype)
{
    EACH_VECTOR(i, lanes, d) {
        vf y = (load_n(x + i, lanes) - mean) * scale;
        store_as(out, i, y * load_n(weight + i, lanes) + load_n(bias + i, lanes), lanes, dtype);
    }
}

/* torch.nn.LayerNorm */
static void layer_norm(const float *x, ptrdiff_t d, const float *weight, const float *bias, float eps, void *out,
                       qv_dtype dtype)
{
    float mean = sum(x, d) / (float)d;
    float scale = inverse_root(sum_of_squares(x, d, mean), d, eps);
    DISPATCH(dtype, shift_and_scale, x, d, mean, scale, weight, bias, out);
}

INLINE void scale_by_weight(const float *x, ptrdiff_t d, float scale, const float *weight, void *out, qv_dtype dtype)
{
    EACH_VECTOR(i, lanes, d)
        store_as(out, i, load_n(x + i, lanes) * scale * load_n(weight + i, lanes), lanes, dtype);
}

/* transformers Qwen2_5_VLRMSNorm */
static void rms_norm(const float *x, ptrdiff_t d, const float *weight, const float *bias, float eps, void *out,
                     qv_dtype dtype)
{
    (void)bias;
    float scale = inverse_root(sum_of_squares(x, d, 0), d, eps);
    DISPATCH(dtype, scale_by_weight, x, d, scale, weight, out);
}

/* Rotate entries i .. i + lanes of both halves of a row; returns their squares, added by lanes. */
INLINE vf rotate(const float *x, const float *cos, const float *sin, ptrdiff_t half, float scale, void *out,
                   ptrdiff_t i, ptrdiff_t lanes, qv_dtype dtype)
{
    vf a = load_n(x + i, lanes), b = load_n(x + half + i, lanes);
    vf c = load_n(cos + i, lanes) * scale, s = load_n(sin + i, lanes) * scale;
    vf first = a * c - b * s, second = b * c + a * s;
    store_as(out, i, first, lanes, dtype);
    store_as(out, half + i, second, lanes, dtype);
    return first * first + second * second;
}

/* Rotate a row in whole vectors: the last vector of a half overlaps the vector before it, and counts in full. */
INLINE float rotate_row(const float *x, const float *cos, const float *sin, ptrdiff_t half, float scale, void *out,
                       qv_dtype dtype)
{
    vf squares = {0};
    for (ptrdiff_t i = 0; i < half; i += VL)
        squares += rotate(x, cos, sin, half, scale, out, i + VL > half ? half - VL : i, VL, dtype);
    return sum_lanes(squares);
}

/* transformers apply_rotary_pos_emb_vision: entries i and i + half are a pair. */
static float rope(const float *x, const float *cos, const float *sin, ptrdiff_t half, float scale, void *out,
                 qv_dtype dtype)
{
    if (half < VL)
        return sum_lanes(rotate(x, cos, sin, half, scale, out, 0, half, dtype));
    return DISPATCH(dtype, rotate_row, x, cos, sin, half, scale, out);
}

/* The largest of n scores and of `top`. The last vector is filled up with minus infinity. */
INLINE float largest(float *s, ptrdiff_t n, float top)
{
    for (ptrdiff_t j = n; j % VL; j++)
        s[j] = -INFINITY;
    vf best[4] = {splat(top), splat(top), splat(top), splat(top)};
    ptrdiff_t j = 0;
    for (; j + 4 * VL <= n; j += 4 * VL)
        UNROLL for (int i = 0; i < 4; i++)
            best[i] = max(best[i], load(s + j + i * VL));
    for (; j < n; j += VL)
        best[0] = max(best[0], load(s + j));
    return max_lanes(max(max(best[0], best[1]), max(best[2], best[3])));
}

/* out = 2^(s - top) for n scores; returns their sum. */
INLINE float powers_below(const float *s, ptrdiff_t n, float top, void *out, ptrdiff_t at, qv_dtype dtype)
{
    vf total = {0};
    for (ptrdiff_t j = 0; j < n; j += VL) {
        vf e = power_below(load(s + j) - top, dtype);
        store_as(out, at + j, e, VL, dtype);
        total += e;
    }
    return sum_lanes(total);
}

/* Find the maxima of all rows first: joining the lanes of a maximum takes long, and the rows overlap while it does. */
static void softmax(float *s, ptrdiff_t pitch, ptrdiff_t rows, ptrdiff_t n, float *m, float *l, float *factors,
                    void *out, qv_dtype dtype)
{
    float tops[QV_MAX_MR];
    for (ptrdiff_t r = 0; r < rows; r++)
        tops[r] = largest(s + r * pitch, n, m[r]);
    for (ptrdiff_t r = 0; r < rows; r++) {
        float total = DISPATCH(dtype, powers_below, s + r * pitch, n, tops[r], out, r * pitch);
        factors[r] = power_below(splat(m[r] - tops[r]), QV_F32)[0];
        l[r] = l[r] * factors[r] + total;
        m[r] = tops[r];
    }
}

/* Panel by panel: one long loop, where a loop for each row would end, and be predicted wrongly, once a row. */
INLINE void powers_of_rows(float *s, ptrdiff_t pitch, ptrdiff_t rows, ptrdiff_t n, const float *tops, float *totals,
                           void *out, qv_dtype dtype)
{
    for (ptrdiff_t r = 0; r < rows && n % NR; r++)
        for (ptrdiff_t j = n; j % NR; j++)
            s[r * pitch + j] = -126;
    for (ptrdiff_t j = 0; j < n; j += NR)
        for (ptrdiff_t r = 0; r < rows; r++) {
            vf left = power(load(s + r * pitch + j) - tops[r], dtype);
            vf right = power(load(s + r * pitch + j + VL) - tops[r], dtype);
            store(totals + r * VL, store_two(out, r * pitch + j, left, right, load(totals + r * VL), dtype));
        }
}

static void powers(float *s, ptrdiff_t pitch, ptrdiff_t rows, ptrdiff_t n, const float *tops, float *totals, void *out,
                   qv_dtype dtype)
{
    DISPATCH(dtype, powers_of_rows, s, pitch, rows, n, tops, totals, out);
}

INLINE void scale_row(const float *x, ptrdiff_t d, float factor, void *out, qv_dtype dtype)
{
    EACH_VECTOR(i, lanes, d)
        store_as(out, i, load_n(x + i, lanes) * factor, lanes, dtype);
}

static void scale(const float *x, ptrdiff_t d, float factor, void *out, qv_dtype dtype)
{
    DISPATCH(dtype, scale_row, x, d, factor, out);
}

INLINE void copy_row(const float *x, ptrdiff_t n, void *out, qv_dtype dtype)
{
    EACH_VECTOR(i, lanes, n)
        store_as(out, i, load_n(x + i, lanes), lanes, dtype);
}

static void copy(const float *x, ptrdiff_t n, void *out, qv_dtype dtype)
{
    DISPATCH(dtype, copy_row, x, n, out);
}

static void lookup(const uint8_t *x, ptrdiff_t stride, ptrdiff_t n, const float *table, float *out)
{
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = table[x[i * stride]];
}

static void widen_bf16(const uint16_t *x, ptrdiff_t n, float *out)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)x[i] << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
}

static void add_squares(const void *x, ptrdiff_t n, qv_dtype dtype, float *squares)
{
    float part[4 * VL];
    for (ptrdiff_t i = 0; i < n; i += 4 * VL) {
        const ptrdiff_t count = n - i < 4 * VL ? n - i : 4 * VL;
        const float *wide = (const float *)x + i;
        if (dtype == QV_BF16) {
            widen_bf16((const uint16_t *)x + i, count, part);
            wide = part;
        }
        EACH_VECTOR(j, lanes, count) {
            vf entries = load_n(wide + j, lanes);
            store_n(squares + i + j, load_n(squares + i + j, lanes) + entries * entries, lanes);
        }
    }
}

/* All bits of the exponent of NaN and infinity are set, so adding one step of the exponent carries into the sign. A
 * word is one entry of f32 or two entries of bfloat16. */
static int all_finite(const void *x, ptrdiff_t n, qv_dtype dtype)
{
    const char *bytes = x;
    const ptrdiff_t size = n * qv_itemsize(dtype), whole = size - size % (ptrdiff_t)sizeof(vu);
    const uint32_t step = dtype == QV_BF16 ? 0x00800080 : 0x00800000;
    const uint32_t signs = dtype == QV_BF16 ? 0x80008000 : 0x80000000;
    vu last = {0}, changed;
    memcpy(&last, bytes + whole, (size_t)(size - whole));
    changed = (last + step) ^ last;
    for (ptrdiff_t i = 0; i < whole; i += (ptrdiff_t)sizeof(vu)) {
        vu words = (vu)load((const float *)(bytes + i));
        changed |= (words + step) ^ words;
    }
    uint32_t any = 0;
    for (int i = 0; i < VL; i++)
        any |= changed[i];
    return !(any & signs);
}
