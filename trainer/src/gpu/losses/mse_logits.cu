// Squared differences of rows of N(0) logits; a group does a row. P(0): student, P(1): teacher, OUT(2): gradient, OUT(3): value of
// each row. F(0): what the gradient is times. N(1): whether the mean of each row's differences is subtracted.
KERNEL(logit_regression) {
  SHARED float shared[256];
  const float *s = P(0) + GROUP * N(0), *t = P(1) + GROUP * N(0);
  float *d = OUT(2) + GROUP * N(0), mean = 0.0f, value = 0.0f;
  if (N(1)) {
    for (long long k = THREAD; k < N(0); k += THREADS) mean += s[k] - t[k];
    mean = group_sum(shared, mean) / (float)N(0);
  }
  for (long long k = THREAD; k < N(0); k += THREADS) {
    float off = s[k] - t[k] - mean;
    value += off * off;
    d[k] = 2.0f * F(0) * off;
  }
  value = group_sum(shared, value);
  if (THREAD == 0) OUT(3)[GROUP] = value;
}
