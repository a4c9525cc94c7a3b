// A group divides a row of N(0) elements (P(0)) by its length, at least 1e-12: OUT(1). OUT(2): what each was divided
// by, negative where that was the bound; or none.
KERNEL(unit_rows) {
  SHARED double shared[256];
  const float *x = P(0) + GROUP * N(0);
  double squares = 0.0;
  for (long long k = THREAD; k < N(0); k += THREADS) squares += (double)x[k] * (double)x[k];
  double length = sqrt(group_sum_double(shared, squares)), divisor = length < 1e-12 ? 1e-12 : length;
  float by = (float)(1.0 / divisor);
  for (long long k = THREAD; k < N(0); k += THREADS) OUT(1)[GROUP * N(0) + k] = x[k] * by;
  if (THREAD == 0 && P(2)) OUT(2)[GROUP] = (float)(length < 1e-12 ? -divisor : divisor);
}

// From the gradient by those rows (OUT(2)) to that by the rows before, in place; a group does a row of N(0) elements.
// P(0): rows, P(1): what they were divided by.
KERNEL(unit_rows_back) {
  SHARED double shared[256];
  const float *unit = P(0) + GROUP * N(0);
  float *d = OUT(2) + GROUP * N(0);
  double sum = 0.0;
  for (long long k = THREAD; k < N(0); k += THREADS) sum += (double)unit[k] * (double)d[k];
  sum = group_sum_double(shared, sum);
  float divisor = P(1)[GROUP], along = divisor < 0.0f ? 0.0f : (float)sum, by = 1.0f / fabsf(divisor);
  for (long long k = THREAD; k < N(0); k += THREADS) d[k] = (d[k] - unit[k] * along) * by;
}

// D(1): of each group the sum of squares of N(0) numbers (P(0)), times F(0). N(1): whether it is added.
KERNEL(squares) {
  SHARED double shared[256];
  double sum = 0.0;
  EACH(i, N(0)) sum += (double)P(0)[i] * (double)P(0)[i];
  sum = group_sum_double(shared, sum) * F(0);
  if (THREAD == 0) GIVE(D(1)[GROUP], sum, N(1));
}
