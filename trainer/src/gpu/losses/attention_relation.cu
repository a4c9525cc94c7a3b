// Divergence of the softmax of rows of N(0) numbers; a group does several of N(1) rows. OUT(0): the student's, which
// become the differences of probabilities, P(1): the teacher's, D(2): sum of each group. N(2): whether that is added to
// what is there.
KERNEL(relation_divergence) {
  SHARED float shared[256];
  SHARED double sums[256];
  double total = 0.0;
  for (long long row = GROUP; row < N(1); row += GROUPS) { // The same for all threads of the group.
    float *s = OUT(0) + row * N(0), top_s = s[0], sum_s = 0.0f, sum_t = 0.0f;
    const float *t = P(1) + row * N(0);
    float top_t = t[0];
    for (long long k = THREAD; k < N(0); k += THREADS) top_s = fmaxf(top_s, s[k]), top_t = fmaxf(top_t, t[k]);
    top_s = group_top(shared, top_s);
    top_t = group_top(shared, top_t);
    for (long long k = THREAD; k < N(0); k += THREADS) sum_s += expf(s[k] - top_s), sum_t += expf(t[k] - top_t);
    float shift_s = top_s + logf(group_sum(shared, sum_s)), shift_t = top_t + logf(group_sum(shared, sum_t));
    for (long long k = THREAD; k < N(0); k += THREADS) {
      float log_s = s[k] - shift_s, log_t = t[k] - shift_t, q = expf(log_t);
      if (q != 0.0f) total += (double)(q * (log_t - log_s));
      s[k] = expf(log_s) - q;
    }
  }
  total = group_sum_double(sums, total);
  if (THREAD == 0) GIVE(D(2)[GROUP], total, N(2));
}
