// Sums over the elements of two arrays. P(0): student, P(1): teacher, OUT(2): gradient, OUT(3): sum of each group. N(0): elements.
// F(0): what the gradient is times.
#define PAIRS(...)                                               \
  {                                                              \
    SHARED float shared[256];                                    \
    float sum = 0.0f;                                            \
    EACH(i, N(0)) {                                              \
      float s = P(0)[i], t = P(1)[i], value = 0.0f, slope = 0.0f; \
      __VA_ARGS__;                                               \
      sum += value, OUT(2)[i] = F(0) * slope;                    \
    }                                                            \
    sum = group_sum(shared, sum);                                \
    if (THREAD == 0) OUT(3)[GROUP] = sum;                        \
  }

DEVICE float bend(float x, float delta) { return x > delta ? delta : x < -delta ? -delta : x; }

// F(1): margin.
KERNEL(activation_boundary) PAIRS(
  float side = t > 0.0f ? 1.0f : -1.0f, missing = F(1) - side * s;
  missing = missing < 0.0f ? 0.0f : missing;
  value = missing * missing, slope = -2.0f * side * missing)

KERNEL(distance_squared) PAIRS(value = (s - t) * (s - t), slope = 2.0f * (s - t))
// Nothing where both are 0 or less.
KERNEL(distance_masked) PAIRS(if (!(s <= 0.0f && t <= 0.0f)) value = (s - t) * (s - t), slope = 2.0f * (s - t))
// Of N(2) channels of N(1) places each, whose margins (P(4)) targets do not fall below: nothing where s is below a
// target of 0 or less.
KERNEL(distance_partial) PAIRS(
  float margin = P(4)[i / N(1) % N(2)], target = t < margin ? margin : t;
  float off = s <= target && target <= 0.0f ? 0.0f : s - target;
  value = off * off, slope = 2.0f * off)
KERNEL(distance_absolute) PAIRS(value = fabsf(s - t), slope = s > t ? 1.0f : s < t ? -1.0f : 0.0f)

// F(1): what is this or less is masked, and counts as 0.
KERNEL(distance_scores) PAIRS(
  float kept = s <= F(1) ? 0.0f : s, off = kept - (t <= F(1) ? 0.0f : t);
  value = off * off, slope = s <= F(1) ? 0.0f : 2.0f * off)

// F(1): delta, F(2): 1, or 1 / delta.
KERNEL(distance_huber) PAIRS(
  float bent = bend(s - t, F(1));
  value = bent * (s - t - 0.5f * bent) * F(2), slope = bent * F(2))
