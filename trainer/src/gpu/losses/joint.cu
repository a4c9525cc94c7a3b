// Averages of maps, as torch's adaptive pooling: place i of n along an axis of N is the mean of the places from i N / n
// (rounded down) to below (i + 1) N / n (rounded up). N(1), N(2): rows and places of a row before, N(3), N(4): after,
// N(5): channels. N(6) to N(9): from sample to sample, channel to channel, row to row and place to place before; after,
// they lie in this order.
DEVICE long long window_from(long long i, long long size, long long to) { return i * size / to; }
DEVICE long long window_end(long long i, long long size, long long to) { return ((i + 1) * size + to - 1) / to; }
DEVICE long long window_length(long long i, long long size, long long to) {
  return window_end(i, size, to) - window_from(i, size, to);
}

// P(0): values, OUT(1): averages, N(0) of them.
KERNEL(joint_load) {
  EACH(i, N(0)) {
    long long column = i % N(4), row = i / N(4) % N(3), plane = i / N(4) / N(3);
    const float *x = P(0) + plane / N(5) * N(6) + plane % N(5) * N(7);
    float sum = 0.0f;
    for (long long v = window_from(row, N(1), N(3)); v < window_end(row, N(1), N(3)); v++) {
      for (long long u = window_from(column, N(2), N(4)); u < window_end(column, N(2), N(4)); u++) {
        sum += x[v * N(8) + u * N(9)];
      }
    }
    OUT(1)[i] = sum * (1.0f / (float)(window_length(row, N(1), N(3)) * window_length(column, N(2), N(4))));
  }
}

// The way back: each value looks through the windows that it is in. P(0): gradient by averages, OUT(1): by values, N(0)
// of them. N(10): whether it is added.
KERNEL(joint_back) {
  EACH(i, N(0)) {
    long long u = i % N(2), v = i / N(2) % N(1), plane = i / N(2) / N(1);
    const float *d = P(0) + plane * N(3) * N(4);
    float sum = 0.0f;
    for (long long row = v * N(3) / N(1); row < N(3) && window_from(row, N(1), N(3)) <= v; row++) {
      for (long long column = u * N(4) / N(2); column < N(4) && window_from(column, N(2), N(4)) <= u; column++) {
        float share = 1.0f / (float)(window_length(row, N(1), N(3)) * window_length(column, N(2), N(4)));
        sum += d[row * N(4) + column] * share;
      }
    }
    GIVE(OUT(1)[plane / N(5) * N(6) + plane % N(5) * N(7) + v * N(8) + u * N(9)], sum, N(10));
  }
}
