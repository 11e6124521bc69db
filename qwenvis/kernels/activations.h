/* Activations: one function of a vector for each, as exact as rows of the dtype need. A new activation is a name in
 * QV_ACTIVATIONS and a function here. */

INLINE vf act_none(vf x, qv_dtype dtype)
{
    (void)dtype;
    return x;
}

/* x sigmoid(1.702 x): transformers QuickGELUActivation */
INLINE vf act_quick_gelu(vf x, qv_dtype dtype) { return x * sigmoid(1.702f * x, dtype); }

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
INLINE vf act_gelu(vf x, qv_dtype dtype)
{
    (void)dtype;
    vf m = where(x > 0, min(splat(1e18f), x), -x);
    vf tail = m * scaled_tail(m) * power_below(-0.721347520f * m * m, QV_F32);
    return where(x > 0, x - tail, -tail);
}

/* x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 = x sigmoid(2 ...): transformers GELUTanh */
INLINE vf act_gelu_pytorch_tanh(vf x, qv_dtype dtype)
{
    return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x), dtype);
}

/* x sigmoid(x), which the epilogue multiplies by up: transformers Qwen2_5_VLMLP */
INLINE vf act_silu_gate(vf x, qv_dtype dtype) { return x * sigmoid(x, dtype); }
