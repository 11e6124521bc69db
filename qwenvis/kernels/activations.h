/* Activations: one function of a vector for each. A new activation is a name in QV_ACTIVATIONS and a function here. */

INLINE vf act_none(vf x) { return x; }

/* x sigmoid(1.702 x): transformers QuickGELUActivation */
INLINE vf act_quick_gelu(vf x) { return x * sigmoid(1.702f * x); }

/* e^(m^2 / 2) erfc(m / sqrt 2) / 2 for m >= 0, relative error 3.4e-08 before rounding. tools/minimax.py prints the
 * coefficients. */
INLINE vf scaled_tail(vf m)
{
    vf t = 1.0f / (1.0f + 0.3411f * m);
    vf p = splat(-0.0271584727f);
    p = p * t + 0.143373653f;
    p = p * t - 0.277960271f;
    p = p * t + 0.204676911f;
    p = p * t - 0.0470102988f;
    p = p * t + 0.116193548f;
    p = p * t + 0.115236998f;
    p = p * t + 0.136591554f;
    p = p * t + 0.136056393f;
    return p * t;
}

/* x (1 + erf(x / sqrt 2)) / 2: torch.nn.GELU(). With m = |x| and tail = m erfc(m / sqrt 2) / 2 this is x - tail for
 * positive x and -tail otherwise, so that small results keep their digits. GELU of minus infinity is NaN, as in torch.
 * The limit of m keeps GELU of infinity from being NaN too: infinity times a tail of zero. */
INLINE vf act_gelu(vf x)
{
    vf m = where(x > 0, min(splat(1e18f), x), -x);
    vf tail = m * scaled_tail(m) * power_below(-0.721347520f * m * m, QV_F32);
    return where(x > 0, x - tail, -tail);
}

/* x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 = x sigmoid(2 ...): transformers GELUTanh */
INLINE vf act_gelu_pytorch_tanh(vf x) { return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x)); }

/* Apply each activation to a tile, after the bias. */
#define FINISH(name)                                                                                                   \
    static void finish_##name(float *sums, ptrdiff_t rows, ptrdiff_t width, const float *bias)                         \
    {                                                                                                                  \
        for (float *row = sums; row < sums + rows * width; row += width)                                               \
            for (ptrdiff_t c = 0; c < width; c += VL)                                                                  \
                store(row + c, act_##name(load(row + c) + load(bias + c)));                                            \
    }
FINISH(none)
FINISH(quick_gelu)
FINISH(gelu)
FINISH(gelu_pytorch_tanh)
#undef FINISH

/* silu(gate) * up, in the first half of each row [gate | up] of a tile: transformers Qwen2_5_VLMLP */
static void finish_silu_gate(float *sums, ptrdiff_t rows, ptrdiff_t width, const float *bias)
{
    ptrdiff_t half = width / 2;
    for (float *row = sums; row < sums + rows * width; row += width)
        for (ptrdiff_t c = 0; c < half; c += VL) {
            vf gate = load(row + c) + load(bias + c);
            vf up = load(row + half + c) + load(bias + half + c);
            store(row + c, gate * sigmoid(gate) * up);
        }
}
