// Normalization of rows of N(1) elements; a group does a row. N(0): rows.

// P(0): x, P(1): scale, P(2): bias or none, OUT(3): y, OUT(4): mean and 1 / sigma of each row. F(0): epsilon.
KERNEL(layer_norm_forward) {
  SHARED float shared[256];
  const float *x = P(0) + GROUP * N(1);
  float sum = 0.0f, squares = 0.0f;
  for (long long i = THREAD; i < N(1); i += THREADS) sum += x[i];
  float mean = group_sum(shared, sum) / (float)N(1);
  for (long long i = THREAD; i < N(1); i += THREADS) squares += (x[i] - mean) * (x[i] - mean);
  float inverse = 1.0f / sqrtf(group_sum(shared, squares) / (float)N(1) + F(0));
  for (long long i = THREAD; i < N(1); i += THREADS) {
    OUT(3)[GROUP * N(1) + i] = (x[i] - mean) * inverse * P(1)[i] + (P(2) ? P(2)[i] : 0.0f);
  }
  if (THREAD == 0) OUT(4)[2 * GROUP] = mean, OUT(4)[2 * GROUP + 1] = inverse;
}

// P(0): x, P(1): scale, P(2): d_y, P(3): statistics, OUT(4): d_x. N(2): whether to add.
KERNEL(layer_norm_backward) {
  SHARED float shared[256];
  const float *x = P(0) + GROUP * N(1), *d_y = P(2) + GROUP * N(1);
  float mean = P(3)[2 * GROUP], inverse = P(3)[2 * GROUP + 1], sum = 0.0f, product = 0.0f;
  for (long long i = THREAD; i < N(1); i += THREADS) {
    float g = d_y[i] * P(1)[i];
    sum += g, product += g * (x[i] - mean) * inverse;
  }
  sum = group_sum(shared, sum) / (float)N(1);
  product = group_sum(shared, product) / (float)N(1);
  for (long long i = THREAD; i < N(1); i += THREADS) {
    float value = (d_y[i] * P(1)[i] - sum - (x[i] - mean) * inverse * product) * inverse;
    GIVE(OUT(4)[GROUP * N(1) + i], value, N(2));
  }
}

// Gradients of scale and bias, a group each element. P(0): x, P(1): d_y, P(2): statistics, OUT(3), OUT(4): gradients, each if
// there is one. N(2), N(3): whether to add.
KERNEL(layer_norm_gradients) {
  SHARED float shared[256];
  float scale = 0.0f, bias = 0.0f;
  for (long long row = THREAD; row < N(0); row += THREADS) {
    float d = P(1)[row * N(1) + GROUP];
    scale += d * (P(0)[row * N(1) + GROUP] - P(2)[2 * row]) * P(2)[2 * row + 1];
    bias += d;
  }
  scale = group_sum(shared, scale);
  bias = group_sum(shared, bias);
  if (THREAD == 0 && P(3)) GIVE(OUT(3)[GROUP], scale, N(2));
  if (THREAD == 0 && P(4)) GIVE(OUT(4)[GROUP], bias, N(3));
}
