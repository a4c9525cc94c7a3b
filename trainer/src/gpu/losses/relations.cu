// Distances, angles and products of the samples of a batch, in f64: differences of nearly equal rows cancel, and a
// batch has few. N(0): samples.

// Huber's function with delta 1, and its slope.
DEVICE double relation_slope(double x) { return x > 1.0 ? 1.0 : x < -1.0 ? -1.0 : x; }
DEVICE double relation_huber(double x) { return relation_slope(x) * (x - 0.5 * relation_slope(x)); }

// A group does a row of N(1) elements. P(0): x, D(1): the same, D(2): lengths that rows are divided by, plus F(0), or
// none.
KERNEL(relation_rows) {
  SHARED double shared[256];
  const float *x = P(0) + GROUP * N(1);
  double squares = 0.0, by = 1.0;
  if (P(2)) {
    for (long long c = THREAD; c < N(1); c += THREADS) squares += (double)x[c] * x[c];
    double length = sqrt(group_sum_double(shared, squares));
    by = length + F(0) > 0.0 ? 1.0 / (length + F(0)) : 1.0;
    if (THREAD == 0) D(2)[GROUP] = length;
  }
  for (long long c = THREAD; c < N(1); c += THREADS) D(1)[GROUP * N(1) + c] = x[c] * by;
}

// D(0): rows of N(1) elements, D(1): squared distances of all pairs, D(2): 1 over their roots, 0 of equal rows; or none.
KERNEL(relation_squares) {
  EACH(pair, N(0) * N(0)) {
    const double *x = D(0) + pair / N(0) * N(1), *y = D(0) + pair % N(0) * N(1);
    double square = 0.0;
    for (long long c = 0; c < N(1); c++) square += (x[c] - y[c]) * (x[c] - y[c]);
    D(1)[pair] = square;
    if (P(2)) D(2)[pair] = square == 0.0 ? 0.0 : 1.0 / sqrt(square);
  }
}

// A distance of a pair; N(1): whether equal rows are 1e-6 apart.
#define DISTANCE(squares, pair) \
  (pair / N(0) == pair % N(0) ? 0.0 : sqrt(N(1) && (squares)[pair] < 1e-12 ? 1e-12 : (squares)[pair]))

// D(0): squared distances, D(1): their mean and of how many. N(2): those of two samples (0), above 0 (1), or all (2). One group.
KERNEL(relation_mean) {
  SHARED double shared[256];
  double sum = 0.0, counted = 0.0;
  for (long long pair = THREAD; pair < N(0) * N(0); pair += THREADS) {
    double distance = DISTANCE(D(0), pair);
    sum += distance;
    counted += N(2) == 0 ? pair / N(0) != pair % N(0) : N(2) == 1 ? distance != 0.0 : 1.0;
  }
  sum = group_sum_double(shared, sum);
  counted = group_sum_double(shared, counted);
  if (THREAD == 0) D(1)[0] = counted > 0.0 ? sum / counted : 0.0, D(1)[1] = counted;
}

// D(0), D(1): squared distances of the student and their mean, D(2), D(3): of the teacher, D(4): slopes by distances over their mean,
// D(5): of each group the sum of values, and behind all those the sum of slopes times distances. N(2): what is divided by.
KERNEL(relation_distances) {
  SHARED double shared[256];
  double total = 0.0, along = 0.0, mean_s = D(1)[0], mean_t = D(3)[0];
  EACH(pair, N(0) * N(0)) {
    double slope = 0.0;
    if (mean_s != 0.0 && mean_t != 0.0) {
      double own = DISTANCE(D(0), pair), off = own / mean_s - DISTANCE(D(2), pair) / mean_t;
      slope = relation_slope(off);
      total += relation_huber(off), along += slope * own;
    }
    D(4)[pair] = slope / (double)N(2) / (mean_s != 0.0 ? mean_s : 1.0);
  }
  total = group_sum_double(shared, total);
  along = group_sum_double(shared, along);
  if (THREAD == 0) D(5)[GROUP] = total, D(5)[GROUPS + GROUP] = along;
}

// From slopes by distances (D(2)) to those by their squares, through the mean too. D(0): squared distances, D(1): their mean, D(3):
// sums of slopes times distances, N(3) of them. N(2): what is divided by.
KERNEL(relation_weights) {
  double along = 0.0, mean = D(1)[0];
  for (long long i = 0; i < N(3); i++) along += D(3)[N(3) + i];
  double by_mean = mean != 0.0 ? -along / (double)N(2) / (mean * mean * D(1)[1]) : 0.0;
  EACH(pair, N(0) * N(0)) {
    double square = D(0)[pair];
    D(2)[pair] = (N(1) ? square >= 1e-12 : square > 0.0) ? (D(2)[pair] + by_mean) / (2.0 * sqrt(square)) : 0.0;
  }
}

// The cosine at j between i and k. squares, inverse: of one side.
#define COSINE(squares, inverse) \
  (0.5 * ((squares)[j * N(0) + i] + (squares)[j * N(0) + k] - (squares)[i * N(0) + k]) * ((inverse)[j * N(0) + i] * (inverse)[j * N(0) + k]))

// D(0), D(1): squared distances of the student and 1 over distances, D(2), D(3): of the teacher, D(4): slopes by [j, i], the sides of
// angles at j, D(5): of each group the sum of values. N(1): whether angles of two equal sides are left out.
KERNEL(relation_sides) {
  SHARED double shared[256];
  double total = 0.0;
  EACH(pair, N(0) * N(0)) {
    long long j = pair / N(0), i = pair % N(0);
    double by_other = 0.0, by_own = 0.0, r = D(1)[pair];
    if (i != j) {
      for (long long k = 0; k < N(0); k++) {
        double cosine = COSINE(D(0), D(1)), off = cosine - COSINE(D(2), D(3)), slope = relation_slope(off);
        total += relation_huber(off);
        by_other += slope * D(1)[j * N(0) + k], by_own += slope * cosine;
      }
      if (N(1) && (r == 0.0) != (D(3)[pair] == 0.0)) total -= 0.5;
    }
    D(4)[pair] = r * (by_other - r * by_own);
  }
  total = group_sum_double(shared, total);
  if (THREAD == 0) D(5)[GROUP] = total;
}

// D(0) to D(3): as above, D(4): slopes by sides, D(5): slopes by squared distances, of which [i, k] are also opposite of j. N(1): what
// is divided by.
KERNEL(relation_opposite) {
  EACH(pair, N(0) * N(0)) {
    long long i = pair / N(0), k = pair % N(0);
    double sum = 0.0;
    for (long long j = 0; j < N(0); j++) {
      if (j == i) continue;
      sum -= relation_slope(COSINE(D(0), D(1)) - COSINE(D(2), D(3))) * (D(1)[j * N(0) + i] * D(1)[j * N(0) + k]);
    }
    D(5)[pair] = (D(4)[pair] + 0.5 * sum) / (double)N(1);
  }
}

// D(0): sums, N(0) of them, OUT(1): all together, over N(1). N(2): whether that is added. One group.
KERNEL(relation_total) {
  SHARED double shared[256];
  double sum = 0.0;
  for (long long i = THREAD; i < N(0); i += THREADS) sum += D(0)[i];
  sum = group_sum_double(shared, sum);
  if (THREAD == 0) GIVE(OUT(1)[0], (float)(sum / (double)N(1)), N(2));
}

// From slopes by squared distances (D(1)) to those by rows (D(0)) of N(1) elements: D(2).
KERNEL(relation_pull) {
  EACH(at, N(0) * N(1)) {
    long long i = at / N(1), c = at % N(1);
    double sum = 0.0;
    for (long long j = 0; j < N(0); j++) {
      sum += 2.0 * (D(1)[i * N(0) + j] + D(1)[j * N(0) + i]) * (D(0)[at] - D(0)[j * N(1) + c]);
    }
    D(2)[at] = sum;
  }
}

// A group does a row of N(1) elements: from the gradient by a row (D(2)) to that by what it was made of (OUT(3)). D(0): rows, D(1):
// lengths that they were divided by, plus F(0), or none. Through the length of a row of zeros nothing flows.
KERNEL(relation_give) {
  SHARED double shared[256];
  long long from = GROUP * N(1);
  double along = 0.0, length = P(1) ? D(1)[GROUP] : 1.0, divisor = length + F(0);
  if (P(1)) {
    for (long long c = THREAD; c < N(1); c += THREADS) along += D(0)[from + c] * D(2)[from + c];
    along = group_sum_double(shared, along);
    along = length > 0.0 ? along / length : 0.0;
  }
  for (long long c = THREAD; c < N(1); c += THREADS) {
    OUT(3)[from + c] = divisor == 0.0 ? 0.0f : (float)(D(2)[from + c] / divisor - D(0)[from + c] * along);
  }
}

// D(0): rows of N(1) elements, D(1): products of all pairs.
KERNEL(relation_products) {
  EACH(pair, N(0) * N(0)) {
    const double *x = D(0) + pair / N(0) * N(1), *y = D(0) + pair % N(0) * N(1);
    double product = 0.0;
    for (long long c = 0; c < N(1); c++) product += x[c] * y[c];
    D(1)[pair] = product;
  }
}

// Below, a group does a sample's products with all. D(0), D(1): products of the student and of the teacher, D(2):
// slopes by the first, D(3): sum of each group; values are to be divided by the square of N(0).
#define SAMPLE                                                                        \
  SHARED double shared[256];                                                          \
  const double *s = D(0) + GROUP * N(0), *t = D(1) + GROUP * N(0);                    \
  double *slope = D(2) + GROUP * N(0), total = 0.0, over = (double)N(0) * (double)N(0);

// Squared differences of rows of length 1.
KERNEL(relation_similar) {
  SAMPLE
  double squares_s = 0.0, squares_t = 0.0, along = 0.0;
  for (long long j = THREAD; j < N(0); j += THREADS) squares_s += s[j] * s[j], squares_t += t[j] * t[j];
  double length_s = sqrt(group_sum_double(shared, squares_s)), length_t = sqrt(group_sum_double(shared, squares_t));
  double by_s = length_s > 0.0 ? 1.0 / length_s : 0.0, by_t = length_t > 0.0 ? 1.0 / length_t : 0.0;
  for (long long j = THREAD; j < N(0); j += THREADS) {
    double own = s[j] * by_s, off = own - t[j] * by_t;
    total += off * off, along += own * off;
  }
  total = group_sum_double(shared, total);
  along = group_sum_double(shared, along);
  for (long long j = THREAD; j < N(0); j += THREADS) {
    double own = s[j] * by_s;
    slope[j] = 2.0 / over * by_s * (own - t[j] * by_t - own * along);
  }
  if (THREAD == 0) D(3)[GROUP] = total;
}

// Divergence of what (cosine + 1) / 2 is of its row's sum.
KERNEL(relation_neighbors) {
  SAMPLE
  double sum_s = 0.0, sum_t = 0.0, along = 0.0;
  for (long long j = THREAD; j < N(0); j += THREADS) sum_s += (s[j] + 1.0) / 2.0, sum_t += (t[j] + 1.0) / 2.0;
  sum_s = group_sum_double(shared, sum_s);
  sum_t = group_sum_double(shared, sum_t);
  for (long long j = THREAD; j < N(0); j += THREADS) {
    double p = (s[j] + 1.0) / 2.0 / sum_s, q = (t[j] + 1.0) / 2.0 / sum_t;
    total += q * log((q + 1e-7) / (p + 1e-7)), along -= q / (p + 1e-7) / over * p;
  }
  total = group_sum_double(shared, total);
  along = group_sum_double(shared, along);
  for (long long j = THREAD; j < N(0); j += THREADS) {
    double p = (s[j] + 1.0) / 2.0 / sum_s, q = (t[j] + 1.0) / 2.0 / sum_t;
    slope[j] = (-q / (p + 1e-7) / over - along) / (2.0 * sum_s);
  }
  if (THREAD == 0) D(3)[GROUP] = total;
}

// Squared differences of Gaussian kernels as their series. F(0): gamma, N(1): last power.
KERNEL(relation_kernels) {
  SAMPLE
  double twice = 2.0 * (double)F(0), factor = exp(-twice);
  for (long long j = THREAD; j < N(0); j += THREADS) {
    double value = 0.0, own = 0.0, power_s = 1.0, power_t = 1.0;
    for (long long p = 1; p <= N(1); p++) {
      own += twice * power_s;
      power_s *= twice * s[j] / (double)p, power_t *= twice * t[j] / (double)p;
      value += power_s - power_t;
    }
    value *= factor;
    total += value * value;
    slope[j] = 2.0 * value / over * factor * own;
  }
  total = group_sum_double(shared, total);
  if (THREAD == 0) D(3)[GROUP] = total;
}
#undef SAMPLE

// From slopes by products (D(1)) to those by rows (D(0)) of N(1) elements: D(2).
KERNEL(relation_mix) {
  EACH(at, N(0) * N(1)) {
    long long i = at / N(1), c = at % N(1);
    double sum = 0.0;
    for (long long j = 0; j < N(0); j++) sum += (D(1)[i * N(0) + j] + D(1)[j * N(0) + i]) * D(0)[j * N(1) + c];
    D(2)[at] = sum;
  }
}
