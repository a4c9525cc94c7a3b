// Attention of maps of N(1) channels at N(2) places, whose sizes count to the power N(3). N(4): whether it is the sum
// over channels, and not the mean, and the length of the difference that counts, and not its square.

// All factors of a power but one.
DEVICE float attention_below(float size, long long power) {
  float below = 1.0f;
  for (long long k = 1; k < power; k++) below *= size;
  return below;
}

// P(0): values, OUT(1): attention at each of N(0) places of all samples.
KERNEL(attention_sum) {
  EACH(i, N(0)) {
    const float *x = P(0) + i / N(2) * N(1) * N(2) + i % N(2);
    float sum = 0.0f;
    for (long long c = 0; c < N(1); c++) {
      float size = fabsf(x[c * N(2)]);
      sum += attention_below(size, N(3)) * size;
    }
    OUT(1)[i] = N(4) ? sum : sum * (1.0f / (float)N(1));
  }
}

// A group does a sample. OUT(0): the student's attention, which becomes the gradient by it, P(1): the teacher's,
// OUT(2): value of each sample. Both are divided by their lengths, at least 1e-12, first. F(0): what the gradient is
// times.
KERNEL(attention_compare) {
  SHARED double shared[256];
  float *q = OUT(0) + GROUP * N(2);
  const float *taught = P(1) + GROUP * N(2);
  double squares_s = 0.0, squares_t = 0.0, square = 0.0, along = 0.0;
  for (long long k = THREAD; k < N(2); k += THREADS) {
    squares_s += (double)q[k] * (double)q[k], squares_t += (double)taught[k] * (double)taught[k];
  }
  double length_s = sqrt(group_sum_double(shared, squares_s)), length_t = sqrt(group_sum_double(shared, squares_t));
  float by_s = (float)(1.0 / (length_s < 1e-12 ? 1e-12 : length_s));
  float by_t = (float)(1.0 / (length_t < 1e-12 ? 1e-12 : length_t));
  for (long long k = THREAD; k < N(2); k += THREADS) {
    float own = q[k] * by_s, off = own - taught[k] * by_t;
    square += (double)off * (double)off, along += (double)own * (double)off;
  }
  square = group_sum_double(shared, square);
  along = group_sum_double(shared, along);
  float scale = !N(4) ? F(0) : square > 0.0 ? (float)(F(0) / sqrt(square)) : 0.0f;
  float through = length_s < 1e-12 ? 0.0f : (float)(along * scale); // At the bound the length is a constant.
  for (long long k = THREAD; k < N(2); k += THREADS) {
    float own = q[k] * by_s;
    q[k] = ((own - taught[k] * by_t) * scale - own * through) * by_s;
  }
  if (THREAD == 0) OUT(2)[GROUP] = (float)(N(4) ? sqrt(square) : square);
}

// P(0): values of the student, P(1): gradient by its attention, OUT(2): by its values, N(0) of them.
KERNEL(attention_back) {
  EACH(i, N(0)) {
    float x = P(0)[i], d = P(1)[i / N(2) / N(1) * N(2) + i % N(2)];
    float slope = (float)N(3) * attention_below(fabsf(x), N(3));
    if (!N(4)) d *= 1.0f / (float)N(1);
    OUT(2)[i] = d * (x < 0.0f ? -slope : x == 0.0f ? 0.0f : slope);
  }
}
