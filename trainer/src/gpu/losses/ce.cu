// Cross-entropy of a row of N(0) logits with its class; a group does a row. P(0): logits, P(1): class, other class and share of
// the first of each row, P(2): weights of the classes or none, OUT(3): gradient, OUT(4): value of each row. F(0): what the gradient
// is times, F(1): smoothing, F(2): sum of the weights. N(1): whether the gradient is added.
KERNEL(cross_entropy) {
  SHARED float shared[256];
  const float *z = P(0) + GROUP * N(0), *target = P(1) + 3 * GROUP;
  float *d = OUT(3) + GROUP * N(0);
  long long label = (long long)target[0], other = (long long)target[1];
  if (label < 0 || other < 0) { // The same for all threads of the group.
    for (long long k = THREAD; k < N(0); k += THREADS) GIVE(d[k], 0.0f, N(1));
    if (THREAD == 0) OUT(4)[GROUP] = 0.0f;
    return;
  }
  float top = z[0], sum = 0.0f, value = 0.0f;
  for (long long k = THREAD; k < N(0); k += THREADS) top = fmaxf(top, z[k]);
  top = group_top(shared, top);
  for (long long k = THREAD; k < N(0); k += THREADS) sum += expf(z[k] - top);
  float shift = top + logf(group_sum(shared, sum));
  float spread = F(1) / (float)N(0), kept = 1.0f - F(1), share = target[2];
  float first = kept * share * (P(2) ? P(2)[label] : 1.0f), second = kept * (1.0f - share) * (P(2) ? P(2)[other] : 1.0f);
  float whole = P(2) ? spread * F(2) + first + second : 1.0f;
  for (long long k = THREAD; k < N(0); k += THREADS) {
    float log_p = z[k] - shift, even = spread * (P(2) ? P(2)[k] : 1.0f);
    float part = (k == label ? first : 0.0f) + (k == other && share < 1.0f ? second : 0.0f);
    if (even > 0.0f) value -= even * log_p;
    if (part != 0.0f) value -= part * log_p;
    GIVE(d[k], (whole * expf(log_p) - even - part) * F(0), N(1));
  }
  value = group_sum(shared, value);
  if (THREAD == 0) OUT(4)[GROUP] = value;
}
