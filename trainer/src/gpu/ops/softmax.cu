// Softmax along an axis of N(1) elements that lie N(2) apart; a thread does a row. N(0): rows. N(3): of its logarithm.

// P(0): x, OUT(1): y.
KERNEL(softmax_forward) {
  EACH(i, N(0)) {
    long long from = i / N(2) * N(1) * N(2) + i % N(2);
    const float *x = P(0) + from;
    float *y = OUT(1) + from;
    float top = x[0], sum = 0.0f;
    for (long long k = 1; k < N(1); k++) {
      float value = x[k * N(2)];
      if (value > top || value != value) top = value;
    }
    for (long long k = 0; k < N(1); k++) {
      float e = expf(x[k * N(2)] - top);
      sum += e;
      y[k * N(2)] = e;
    }
    float log_sum = logf(sum);
    for (long long k = 0; k < N(1); k++) y[k * N(2)] = N(3) ? x[k * N(2)] - top - log_sum : y[k * N(2)] / sum;
  }
}

// P(0): y, P(1): d_y, OUT(2): d_x. N(4): whether to add.
KERNEL(softmax_backward) {
  EACH(i, N(0)) {
    long long from = i / N(2) * N(1) * N(2) + i % N(2);
    const float *y = P(0) + from, *d_y = P(1) + from;
    float *d = OUT(2) + from, sum = 0.0f;
    for (long long k = 0; k < N(1); k++) sum += N(3) ? d_y[k * N(2)] : d_y[k * N(2)] * y[k * N(2)];
    for (long long k = 0; k < N(1); k++) {
      float own = d_y[k * N(2)], at = y[k * N(2)];
      GIVE(d[k * N(2)], N(3) ? own - expf(at) * sum : at * (own - sum), N(4));
    }
  }
}
