// Functions of each element. Values and slopes are those of trainer/src/ops: at corners they are torch's, and a NaN passes.

DEVICE float clamped(float x) { return x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x; }
DEVICE float phi(float x) { return 0.5f * (1.0f + erff(x * 0.70710678f)); }
DEVICE float gate(float x) { return tanhf(0.79788456f * (x + 0.044715f * x * x * x)); }
DEVICE float gate_slope(float x) {
  float t = gate(x), inner = 0.79788456f * (1.0f + 3.0f * 0.044715f * x * x);
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
}

// P(0): x, of which both are functions (of a gradient by the output: y). P(1): d_y. N(0): elements, N(1): whether to add.
#define FORWARD(value) { EACH(i, N(0)) { float x = P(0)[i]; OUT(1)[i] = (value); } }
#define BACKWARD(slope) { EACH(i, N(0)) { float x = P(0)[i]; GIVE(OUT(2)[i], P(1)[i] * (slope), N(1)); } }

KERNEL(copy_forward) FORWARD(x)
KERNEL(copy_backward) { EACH(i, N(0)) GIVE(OUT(2)[i], P(1)[i], N(1)); }
KERNEL(bent_forward) FORWARD(x <= 0.0f ? (F(0) == 0.0f ? 0.0f : x * F(0)) : x)
KERNEL(bent_backward) BACKWARD(x > 0.0f ? 1.0f : F(0))
KERNEL(clip_forward) FORWARD(x < F(0) ? F(0) : x > F(1) ? F(1) : x)
KERNEL(clip_backward) BACKWARD(x < F(0) || x > F(1) ? 0.0f : 1.0f)
KERNEL(elu_forward) FORWARD(x > 0.0f ? x : F(0) * (expf(x) - 1.0f))
KERNEL(elu_backward) BACKWARD(x > 0.0f ? 1.0f : F(0) * expf(x))
KERNEL(erf_forward) FORWARD(erff(x))
KERNEL(erf_backward) BACKWARD(1.12837917f * expf(-x * x))
KERNEL(gelu_forward) FORWARD(x * phi(x))
KERNEL(gelu_backward) BACKWARD(phi(x) + x * 0.39894228f * expf(-0.5f * x * x))
KERNEL(gelu_tanh_forward) FORWARD(0.5f * x * (1.0f + gate(x)))
KERNEL(gelu_tanh_backward) BACKWARD(gate_slope(x))
KERNEL(hard_sigmoid_forward) FORWARD(clamped(F(0) * x + F(1)))
KERNEL(hard_sigmoid_backward) BACKWARD(F(0) * x + F(1) > 0.0f && F(0) * x + F(1) < 1.0f ? F(0) : 0.0f)
KERNEL(hard_swish_forward) FORWARD(x * clamped(x / 6.0f + 0.5f))
KERNEL(hard_swish_backward) BACKWARD(x <= -3.0f ? 0.0f : x < 3.0f ? x / 3.0f + 0.5f : 1.0f)
KERNEL(pow_forward) FORWARD(F(0) == 2.0f ? x * x : F(0) == 0.0f ? 1.0f : powf(x, F(0)))
KERNEL(pow_backward) BACKWARD(F(0) == 2.0f ? 2.0f * x : F(0) == 0.0f ? 0.0f : F(0) * powf(x, F(0) - 1.0f))
KERNEL(softplus_forward) FORWARD((x > 0.0f ? x : 0.0f) + log1pf(expf(-fabsf(x))))
KERNEL(softplus_backward) BACKWARD(logistic(x))
KERNEL(sqrt_forward) FORWARD(sqrtf(x))
KERNEL(sqrt_backward) BACKWARD(0.5f / sqrtf(x))
KERNEL(sigmoid_forward) FORWARD(logistic(x))
KERNEL(sigmoid_backward) BACKWARD(x * (1.0f - x))
KERNEL(tanh_forward) FORWARD(tanhf(x))
KERNEL(tanh_backward) BACKWARD((1.0f - x) * (1.0f + x))

// OUT(0) of N(0) elements: F(0).
KERNEL(fill) { EACH(i, N(0)) OUT(0)[i] = F(0); }

// OUT(0) = F(0) OUT(0) + F(1) P(1); with F(0) = 0 whatever was there is gone.
KERNEL(blend) { EACH(i, N(0)) OUT(0)[i] = (F(0) == 0.0f ? 0.0f : OUT(0)[i] * F(0)) + P(1)[i] * F(1); }

// OUT(1) = P(0), or added to it; what is smaller than F(0) is 0.
KERNEL(take_in) { EACH(i, N(0)) GIVE(OUT(1)[i], fabsf(P(0)[i]) < F(0) ? 0.0f : P(0)[i], N(1)); }

// OUT(0) = F(0) OUT(0).
KERNEL(scale) { EACH(i, N(0)) OUT(0)[i] *= F(0); }
