// 1 minus the cosine of N(1) channels at each of N(0) places of all samples, N(2) places of one. P(0): student, P(1):
// teacher, OUT(2): gradient of the mean, OUT(3): sum of each group.
KERNEL(angle) {
  SHARED double shared[256];
  double total = 0.0;
  EACH(i, N(0)) {
    long long from = i / N(2) * N(1) * N(2) + i % N(2);
    const float *s = P(0) + from, *t = P(1) + from;
    double product = 0.0, ours = 0.0, theirs = 0.0;
    for (long long c = 0; c < N(1); c++) {
      double own = s[c * N(2)], other = t[c * N(2)];
      product += own * other, ours += own * own, theirs += other * other;
    }
    double square = ours + 1e-16, lengths = sqrt(square) * sqrt(theirs + 1e-16), cosine = product / lengths;
    double by_s = cosine / square / (double)N(0), by_t = -1.0 / lengths / (double)N(0);
    if (ours == 0.0 || theirs == 0.0) by_s = by_t = 0.0;
    total += 1.0 - cosine;
    for (long long c = 0; c < N(1); c++) {
      OUT(2)[from + c * N(2)] = (float)(by_s * (double)s[c * N(2)] + by_t * (double)t[c * N(2)]);
    }
  }
  total = group_sum_double(shared, total);
  if (THREAD == 0) OUT(3)[GROUP] = (float)total;
}
