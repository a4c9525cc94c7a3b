// Soft dynamic time warping of two series of N(0) channels, N(1) and N(2) places long, tables in f64; a group does a
// sample. P(0), P(1): the series, D(2): costs, D(3): minima, whose row and column 0 lie before the series, D(4): how
// the value changes with each cost, or none, D(5): value of each sample times F(1). F(0): gamma. N(3): whether the
// values are added to what is there.

// Places of the table that depend on none of each other: i + j is `diagonal`. A loop body that sees i and j, from 1.
#define DIAGONAL                                                                                             \
  for (long long i = (diagonal > N(2) ? diagonal - N(2) : 1) + THREAD, j; i <= N(1) && i < diagonal; i += THREADS) \
    if (j = diagonal - i, j > 0)

KERNEL(series_warp) {
  const float *x = P(0) + GROUP * N(0) * N(1), *y = P(1) + GROUP * N(0) * N(2);
  long long wide = N(2) + 1;
  double *costs = D(2) + GROUP * N(1) * N(2), *minima = D(3) + GROUP * (N(1) + 1) * wide;
  for (long long at = THREAD; at < N(1) * N(2); at += THREADS) {
    double cost = 0.0;
    for (long long c = 0; c < N(0); c++) {
      double off = x[c * N(1) + at / N(2)] - y[c * N(2) + at % N(2)];
      cost += off * off;
    }
    costs[at] = cost;
  }
  for (long long at = THREAD; at < (N(1) + 1) * wide; at += THREADS) {
    if (at < wide || at % wide == 0) minima[at] = at == 0 ? 0.0 : 1e300; // More than any sum of costs.
  }
  SYNC;
  for (long long diagonal = 2; diagonal <= N(1) + N(2); diagonal++) {
    DIAGONAL {
      const double *to = minima + i * wide + j;
      double both = to[-wide - 1], down = to[-wide], right = to[-1], least = both < down ? both : down;
      least = right < least ? right : least;
      double sum = exp((least - both) / F(0)) + exp((least - down) / F(0)) + exp((least - right) / F(0));
      minima[i * wide + j] = costs[(i - 1) * N(2) + j - 1] + least - F(0) * log(sum);
    }
    SYNC;
  }
  if (THREAD == 0) GIVE(D(5)[GROUP], minima[N(1) * wide + N(2)] * F(1), N(3));
  if (!P(4)) return;
  double *flow = D(4) + GROUP * N(1) * N(2);
  for (long long diagonal = N(1) + N(2); diagonal > 1; diagonal--) {
    DIAGONAL {
      long long at = (i - 1) * N(2) + j - 1;
      double own = minima[i * wide + j], sum = i == N(1) && j == N(2) ? 1.0 : 0.0;
      for (long long step = 0; step < 3; step++) {
        long long down = step < 2, right = step != 1, next = at + down * N(2) + right;
        if (i + down > N(1) || j + right > N(2)) continue;
        sum += flow[next] * exp((minima[(i + down) * wide + j + right] - costs[next] - own) / F(0));
      }
      flow[at] = sum;
    }
    SYNC;
  }
}
#undef DIAGONAL

// From how the value changes with each cost (D(2)) to the gradient by the first series: OUT(3), N(4) elements. F(0):
// what it is times.
KERNEL(series_pull) {
  EACH(at, N(4)) {
    long long i = at % N(1), plane = at / N(1);
    const float *y = P(1) + plane * N(2);
    const double *flow = D(2) + (plane / N(0) * N(1) + i) * N(2);
    float own = P(0)[at];
    double pull = 0.0;
    for (long long j = 0; j < N(2); j++) {
      double off = own - y[j];
      pull += flow[j] * off;
    }
    GIVE(OUT(3)[at], (float)(pull * F(0)), N(3));
  }
}
