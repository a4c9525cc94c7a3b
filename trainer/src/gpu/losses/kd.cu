// Soft targets: divergence of the softmax of rows of N(0) logits; a group does a row. P(0): student, P(1): teacher, OUT(2):
// gradient, OUT(3): value of each row. F(0): 1 / temperature, F(1): what the gradient is times. N(1): whether rows are
// standardized first, N(2): whether the gradient is added (of rows as they are).
KERNEL(soft_targets) {
  SHARED float shared[256];
  const float *s = P(0) + GROUP * N(0), *t = P(1) + GROUP * N(0);
  float *d = OUT(2) + GROUP * N(0), n = (float)N(0), value = 0.0f;
  float mean_s = 0.0f, mean_t = 0.0f, deviation = 1.0f, by_s = 1.0f, by_t = 1.0f;
  if (N(1)) {
    float sum_s = 0.0f, sum_t = 0.0f, squares_s = 0.0f, squares_t = 0.0f, others = n > 1.0f ? n - 1.0f : 1.0f;
    float most_s = 0.0f, most_t = 0.0f;
    for (long long k = THREAD; k < N(0); k += THREADS) {
      sum_s += s[k], sum_t += t[k];
      most_s = fmaxf(most_s, fabsf(s[k])), most_t = fmaxf(most_t, fabsf(t[k]));
    }
    mean_s = group_sum(shared, sum_s) / n;
    mean_t = group_sum(shared, sum_t) / n;
    for (long long k = THREAD; k < N(0); k += THREADS) {
      squares_s += (s[k] - mean_s) * (s[k] - mean_s);
      squares_t += (t[k] - mean_t) * (t[k] - mean_t);
    }
    deviation = sqrtf(group_sum(shared, squares_s) / others);
    float deviation_t = sqrtf(group_sum(shared, squares_t) / others);
    // Rows of equal logits, up to rounding: scores of 0.
    if (deviation <= 1e-6f * group_top(shared, most_s)) deviation = 0.0f;
    by_s = deviation == 0.0f ? 0.0f : 1.0f / (deviation + 1e-7f);
    by_t = deviation_t <= 1e-6f * group_top(shared, most_t) ? 0.0f : 1.0f / (deviation_t + 1e-7f);
  }
#define SOFT_S(k) ((s[k] - mean_s) * by_s)
#define SOFT_T(k) ((t[k] - mean_t) * by_t)
  float top_s = SOFT_S(0), top_t = SOFT_T(0), sum_s = 0.0f, sum_t = 0.0f;
  for (long long k = THREAD; k < N(0); k += THREADS) top_s = fmaxf(top_s, SOFT_S(k)), top_t = fmaxf(top_t, SOFT_T(k));
  top_s = group_top(shared, top_s);
  top_t = group_top(shared, top_t);
  for (long long k = THREAD; k < N(0); k += THREADS) {
    sum_s += expf((SOFT_S(k) - top_s) * F(0));
    sum_t += expf((SOFT_T(k) - top_t) * F(0));
  }
  float shift_s = logf(group_sum(shared, sum_s)), shift_t = logf(group_sum(shared, sum_t));
  float sum_d = 0.0f, along = 0.0f;
  for (long long k = THREAD; k < N(0); k += THREADS) {
    float log_s = (SOFT_S(k) - top_s) * F(0) - shift_s, log_t = (SOFT_T(k) - top_t) * F(0) - shift_t, p = expf(log_t);
    if (p != 0.0f) value += p * (log_t - log_s);
    float own = (expf(log_s) - p) * F(0) * F(1);
    GIVE(d[k], own, N(2));
    sum_d += own, along += own * SOFT_S(k);
  }
  value = group_sum(shared, value);
  if (THREAD == 0) OUT(3)[GROUP] = value;
  if (!N(1)) return;
  sum_d = group_sum(shared, sum_d) / n;
  along = group_sum(shared, along) / ((n > 1.0f ? n - 1.0f : 1.0f) * deviation);
  for (long long k = THREAD; k < N(0); k += THREADS) {
    d[k] = deviation == 0.0f ? 0.0f : (d[k] - sum_d) * by_s - SOFT_S(k) * along;
  }
}
#undef SOFT_S
#undef SOFT_T

// Soft cross-entropy (N(1): squared differences of probabilities) of rows of N(0) logits; a group does a row. P(0): student, P(1):
// teacher, OUT(2): gradient, OUT(3): value of each row. F(0): 1 / temperature, F(1): what the gradient is times. N(2): whether it is
// added.
KERNEL(soft_cross_entropy) {
  SHARED float shared[256];
  const float *s = P(0) + GROUP * N(0), *t = P(1) + GROUP * N(0);
  float *d = OUT(2) + GROUP * N(0), top_s = s[0], top_t = t[0], sum_s = 0.0f, sum_t = 0.0f, value = 0.0f, along = 0.0f;
  for (long long k = THREAD; k < N(0); k += THREADS) top_s = fmaxf(top_s, s[k]), top_t = fmaxf(top_t, t[k]);
  top_s = group_top(shared, top_s);
  top_t = group_top(shared, top_t);
  for (long long k = THREAD; k < N(0); k += THREADS) {
    sum_s += expf((s[k] - top_s) * F(0));
    sum_t += expf((t[k] - top_t) * F(0));
  }
  float shift_s = logf(group_sum(shared, sum_s)), shift_t = logf(group_sum(shared, sum_t));
  for (long long k = THREAD; k < N(0); k += THREADS) {
    float log_s = (s[k] - top_s) * F(0) - shift_s, p = expf(log_s), q = expf((t[k] - top_t) * F(0) - shift_t);
    if (N(1)) value += (p - q) * (p - q), along += 2.0f * (p - q) * p;
    else if (q != 0.0f) value -= q * log_s;
  }
  value = group_sum(shared, value);
  along = group_sum(shared, along);
  for (long long k = THREAD; k < N(0); k += THREADS) {
    float p = expf((s[k] - top_s) * F(0) - shift_s), q = expf((t[k] - top_t) * F(0) - shift_t);
    GIVE(d[k], F(0) * F(1) * (N(1) ? p * (2.0f * (p - q) - along) : p - q), N(2));
  }
  if (THREAD == 0) OUT(3)[GROUP] = value;
}
