// Binary cross-entropy of a row of N(0) logits with its class; a group does a row. P(0): logits, P(1): class, other
// class and share of the first of each row, OUT(2): gradient, OUT(3): value of each row. F(0): what the gradient is
// times, F(1): smoothing. N(1): whether each class of a mixed row counts as if it were alone.
KERNEL(binary_cross_entropy) {
  SHARED float shared[256];
  const float *z = P(0) + GROUP * N(0), *target = P(1) + 3 * GROUP;
  float *d = OUT(2) + GROUP * N(0), value = 0.0f, share = target[2], kept = 1.0f - F(1);
  long long label = (long long)target[0], other = (long long)target[1];
  int is_known = label >= 0 && other >= 0; // The same for all threads of the group.
  float first = kept * (N(1) ? 1.0f : share), second = kept * (N(1) ? 1.0f : 1.0f - share);
  for (long long k = THREAD; k < N(0); k += THREADS) {
    float t = F(1) / (float)N(0);
    if (k == label && share > 0.0f) t = fminf(t + first, 1.0f);
    if (k == other && share < 1.0f) t = fminf(t + second, 1.0f);
    if (is_known) value += fmaxf(z[k], 0.0f) - z[k] * t + log1pf(expf(-fabsf(z[k])));
    d[k] = is_known ? F(0) * (logistic(z[k]) - t) : 0.0f;
  }
  value = group_sum(shared, value);
  if (THREAD == 0) OUT(3)[GROUP] = value;
}
