/* Activations, one function of one vector each. A new one is a line in QV_ACTIVATIONS and a function here. */

INLINE vf act_none(vf x) { return x; }

/* x sigmoid(1.702 x): transformers QuickGELUActivation */
INLINE vf act_quick_gelu(vf x) { return x * sigmoid(1.702f * x); }

/* x (1 + erf(x / sqrt 2)) / 2: torch.nn.GELU(), through erfc so that the negative tail keeps its digits. Of
 * minus infinity it is no number, as there; of infinity the tail is 0, and infinity times that would be none. */
INLINE vf act_gelu(vf x)
{
    vf magnitude = choose(x > 0, min(splat(1e18f), x), -x);
    vf tail = 0.5f * magnitude * erfc_(magnitude * 0.707106781f);
    return choose(x > 0, x - tail, -tail);
}

/* x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 = x sigmoid(2 ...): transformers GELUTanh */
INLINE vf act_gelu_pytorch_tanh(vf x) { return x * sigmoid(1.59576912f * (x + 0.044715f * x * x * x)); }

/* Each activation over a tile. */
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

/* silu(gate) * up over a tile whose rows are [gate | up]: transformers Qwen2_5_VLMLP */
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
