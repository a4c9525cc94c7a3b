// What losses share.

// OUT(1)[0]: F(0) times the sum of the N(0) elements of P(0). N(1): whether it is added. One group.
KERNEL(total) {
  SHARED float shared[256];
  float sum = 0.0f;
  for (long long i = THREAD; i < N(0); i += THREADS) sum += P(0)[i];
  sum = F(0) * group_sum(shared, sum);
  if (THREAD == 0) GIVE(OUT(1)[0], sum, N(1));
}

// OUT(2)[0]: how many of N(0) rows of N(1) logits (P(0)) are largest at their class (P(1), three numbers a sample). One group.
KERNEL(count_right) {
  SHARED float shared[256];
  float right = 0.0f;
  for (long long row = THREAD; row < N(0); row += THREADS) {
    const float *z = P(0) + row * N(1);
    long long best = 0;
    for (long long k = 1; k < N(1); k++) {
      if (z[k] > z[best]) best = k;
    }
    if (P(1)[3 * row] == (float)best) right += 1.0f;
  }
  right = group_sum(shared, right);
  if (THREAD == 0) OUT(2)[0] = right;
}
