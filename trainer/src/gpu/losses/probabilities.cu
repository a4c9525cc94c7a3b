// Probabilities of both sides, compared over samples and over classes, in f64: what nearly equal ones differ by is
// what counts.

// Softmax of a row of N(0) logits (P(0)) over the temperature F(0): D(1). A group does a row.
KERNEL(probabilities) {
  SHARED float tops[256];
  SHARED double shared[256];
  const float *z = P(0) + GROUP * N(0);
  double *p = D(1) + GROUP * N(0), by = 1.0 / (double)F(0), sum = 0.0;
  float top = z[0];
  for (long long k = THREAD; k < N(0); k += THREADS) top = fmaxf(top, z[k]);
  top = group_top(tops, top);
  for (long long k = THREAD; k < N(0); k += THREADS) sum += exp(((double)z[k] - top) * by);
  double shift = log(group_sum_double(shared, sum));
  for (long long k = THREAD; k < N(0); k += THREADS) p[k] = exp(((double)z[k] - top) * by - shift);
}

// From the gradient (D(1)) by a row of N(0) probabilities (D(0)) to that by its logits: OUT(2). F(0): temperature,
// N(1): whether it is added. A group does a row.
KERNEL(through_probabilities) {
  SHARED double shared[256];
  const double *p = D(0) + GROUP * N(0), *d = D(1) + GROUP * N(0);
  float *to = OUT(2) + GROUP * N(0);
  double mean = 0.0;
  for (long long k = THREAD; k < N(0); k += THREADS) mean += p[k] * d[k];
  mean = group_sum_double(shared, mean);
  for (long long k = THREAD; k < N(0); k += THREADS) GIVE(to[k], (float)(p[k] * (d[k] - mean) / (double)F(0)), N(1));
}

// Below: matrices [N(0), N(1)], a row a sample. N(2): whether columns are compared, whose gradient is added, and not
// rows.

// Correlation of both sides' rows (columns); a group does one. D(0): student, D(1): teacher, D(2): gradient by the
// student, D(3): of each group what the correlation lacks of 1, times F(0).
KERNEL(correlation) {
  SHARED double shared[256];
  long long n = N(2) ? N(0) : N(1), step = N(2) ? N(1) : 1, from = N(2) ? GROUP : GROUP * N(1);
  const double *x = D(0) + from, *y = D(1) + from;
  double *d = D(2) + from, mean_x = 0.0, mean_y = 0.0, norm_x = 0.0, norm_y = 0.0, both = 0.0;
  for (long long i = THREAD; i < n; i += THREADS) mean_x += x[i * step], mean_y += y[i * step];
  mean_x = group_sum_double(shared, mean_x) / (double)n;
  mean_y = group_sum_double(shared, mean_y) / (double)n;
  for (long long i = THREAD; i < n; i += THREADS) {
    double off_x = x[i * step] - mean_x, off_y = y[i * step] - mean_y;
    norm_x += off_x * off_x, norm_y += off_y * off_y, both += off_x * off_y;
  }
  norm_x = sqrt(group_sum_double(shared, norm_x));
  norm_y = sqrt(group_sum_double(shared, norm_y));
  both = group_sum_double(shared, both);
  double product = norm_x * norm_y + 1e-8;
  // Through the norm nothing flows where it is 0.
  double along = norm_x > 0.0 ? both * norm_y / (product * product * norm_x) : 0.0;
  for (long long i = THREAD; i < n; i += THREADS) {
    double slope = (y[i * step] - mean_y) / product - along * (x[i * step] - mean_x);
    GIVE(d[i * step], -F(0) * slope, N(2));
  }
  if (THREAD == 0) D(3)[GROUP] = F(0) * (1.0 - both / product);
}

// Products of all pairs of the student's (D(0)) rows (columns) less those of the teacher's (D(1)): D(2). D(3): of
// each group the sum of their squares times F(0).
KERNEL(gram_differences) {
  SHARED double shared[256];
  long long n = N(2) ? N(1) : N(0), inner = N(2) ? N(0) : N(1), apart = N(2) ? 1 : N(1), step = N(2) ? N(1) : 1;
  double squares = 0.0;
  EACH(pair, n * n) {
    long long i = pair / n * apart, j = pair % n * apart;
    double sum = 0.0;
    for (long long c = 0; c < inner * step; c += step) sum += D(0)[i + c] * D(0)[j + c] - D(1)[i + c] * D(1)[j + c];
    D(2)[pair] = sum;
    squares += sum * sum;
  }
  squares = group_sum_double(shared, squares);
  if (THREAD == 0) D(3)[GROUP] = F(0) * squares;
}

// F(0) times the products of the student (D(0)) and those differences (D(1)): D(2).
KERNEL(gram_slopes) {
  long long n = N(2) ? N(1) : N(0), step = N(2) ? 1 : N(1);
  EACH(at, N(0) * N(1)) {
    long long row = at / N(1), column = at % N(1), i = N(2) ? column : row;
    const double *p = D(0) + (N(2) ? row * N(1) : column);
    double sum = 0.0;
    for (long long j = 0; j < n; j++) sum += D(1)[j * n + i] * p[j * step];
    GIVE(D(2)[at], F(0) * sum, N(2));
  }
}
