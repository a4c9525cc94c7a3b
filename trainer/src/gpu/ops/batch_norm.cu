// Batch normalization of N(0) rows of N(1) channels, with the sum and the ReLU that follow it; see trainer/src/ops.

// A group has a chunk of the rows and as many channels as it has threads; its threads sum two numbers a row each.
#define CHANNELS                                                                                            \
  long long channels = N(1), tiles = (channels + THREADS - 1) / THREADS;                                    \
  long long chunk = GROUP / tiles, from = GROUP % tiles * THREADS;                                          \
  int width = (int)(channels - from < THREADS ? channels - from : THREADS), lanes = THREADS / width;        \
  int lane = THREAD / width;                                                                                \
  long long c = from + THREAD % width;                                                                      \
  long long begin = chunk * N(2), end = begin + N(2) < N(0) ? begin + N(2) : N(0)

// Adds the lanes' numbers in order, and writes both sums of a channel: [chunks, 2, channels].
#define CHANNEL_SUMS(sums, s, q)                                                                            \
  SHARED float shared_s[256], shared_q[256];                                                                \
  shared_s[THREAD] = s, shared_q[THREAD] = q;                                                               \
  SYNC;                                                                                                     \
  if (THREAD < width) {                                                                                     \
    for (int other = 1; other < lanes; other++) {                                                           \
      s += shared_s[other * width + THREAD], q += shared_q[other * width + THREAD];                         \
    }                                                                                                       \
    (sums)[chunk * 2 * channels + c] = s, (sums)[(chunk * 2 + 1) * channels + c] = q;                       \
  }

// Sums of the differences from the channel's first value, and of their squares, which do not cancel.
// OUT(0): sums, P(1): x. N(0): rows, N(1): channels, N(2): rows of a chunk.
KERNEL(norm_sums) {
  CHANNELS;
  float s = 0.0f, q = 0.0f;
  if (lane < lanes) {
    float shift = P(1)[c];
    for (long long row = begin + lane; row < end; row += lanes) {
      float d = P(1)[row * channels + c] - shift;
      s += d, q += d * d;
    }
  }
  CHANNEL_SUMS(OUT(0), s, q)
}

// A group adds a channel's sums of all chunks: s and q.
#define CHUNKS(chunks)                                                                                      \
  SHARED double shared[256];                                                                                \
  long long c = GROUP;                                                                                      \
  double s = 0.0, q = 0.0, n = (double)N(0);                                                                \
  for (long long chunk = THREAD; chunk < (chunks); chunk += THREADS) {                                      \
    s += P(0)[chunk * 2 * N(1) + c], q += P(0)[(chunk * 2 + 1) * N(1) + c];                                 \
  }                                                                                                         \
  s = group_sum_double(shared, s), q = group_sum_double(shared, q)

// Mean, 1 / sqrt(var + F(0)) and unbiased variance: OUT(2) [3, channels]. P(0): sums, P(1): x. N(3): chunks.
KERNEL(norm_statistics) {
  CHUNKS(N(3));
  if (THREAD == 0) {
    double squares = q - s * s / n;
    squares = squares < 0.0 ? 0.0 : squares;
    OUT(2)[c] = (float)(P(1)[c] + s / n);
    OUT(2)[N(1) + c] = 1.0f / sqrtf((float)(squares / n) + F(0));
    OUT(2)[2 * N(1) + c] = (float)(squares / (n > 1.0 ? n - 1.0 : 1.0));
  }
}

// The same of running values: P(0): mean, P(1): var.
KERNEL(norm_running) {
  EACH(c, N(1)) {
    OUT(2)[c] = P(0)[c];
    OUT(2)[N(1) + c] = 1.0f / sqrtf(P(1)[c] + F(0));
  }
}

// scale (x - mean) / sigma + bias, as factor x + shift. P(1): scale, P(2): bias, P(3): mean, 1 / sigma.
DEVICE float normalized(const Args a, long long c, float x) {
  float factor = P(1)[c] * P(3)[N(1) + c];
  return x * factor + (P(2)[c] - factor * P(3)[c]);
}

// P(0): x, P(4): residual or none, OUT(5): y. N(0): elements, N(1): channels, N(2): whether there is a ReLU.
KERNEL(norm_forward) {
  EACH(i, N(0)) {
    float y = normalized(a, i % N(1), P(0)[i]);
    if (P(4)) y += P(4)[i];
    OUT(5)[i] = N(2) && y <= 0.0f ? 0.0f : y;
  }
}

// What the ReLU lets pass of a gradient: by y where there is one, else by x. P(0): x, P(4): y or none, P(5): d_y.
DEVICE float passed(const Args a, long long i, long long c, long long relu) {
  if (!relu) return P(5)[i];
  return (P(4) ? P(4)[i] : normalized(a, c, P(0)[i])) > 0.0f ? P(5)[i] : 0.0f;
}

// Sums of d and of d (x - mean): OUT(6). N(3): whether there is a ReLU; others as in norm_sums.
KERNEL(norm_backward_sums) {
  CHANNELS;
  float s = 0.0f, q = 0.0f;
  if (lane < lanes) {
    float mean = P(3)[c];
    for (long long row = begin + lane; row < end; row += lanes) {
      long long i = row * channels + c;
      float d = passed(a, i, c, N(3));
      s += d, q += d * (P(0)[i] - mean);
    }
  }
  CHANNEL_SUMS(OUT(6), s, q)
}

// From sums to gradients of scale and bias (OUT(4), OUT(5), each if there is one) and to what d_x = factor d + slope (x -
// mean) + offset needs: OUT(6) [2, channels], slope and offset. P(0): sums, P(1): scale, P(3): mean, 1 / sigma. N(0): rows,
// N(1): channels, N(2): chunks, N(3): whether statistics were the batch's, N(4), N(5): whether to add.
KERNEL(norm_gradients) {
  CHUNKS(N(2));
  if (THREAD == 0) {
    float inverse = P(3)[N(1) + c], factor = P(1)[c] * inverse;
    if (P(4)) GIVE(OUT(4)[c], (float)q * inverse, N(4));
    if (P(5)) GIVE(OUT(5)[c], (float)s, N(5));
    OUT(6)[c] = N(3) ? (float)(-q / n) * factor * inverse * inverse : 0.0f;
    OUT(6)[N(1) + c] = N(3) ? (float)(-s / n) * factor : 0.0f;
  }
}

// OUT(6): d_x, OUT(7): gradient of the residual (each if there is one). P(3): mean, 1 / sigma, unbiased variance, slope,
// offset. N(0): elements, N(1): channels, N(2): whether there is a ReLU, N(4): whether to add to d_x, N(5): to the residual's.
KERNEL(norm_backward) {
  EACH(i, N(0)) {
    long long c = i % N(1);
    float x = P(0)[i], d = passed(a, i, c, N(2));
    if (P(7)) GIVE(OUT(7)[i], d, N(5));
    if (P(6)) {
      float factor = P(1)[c] * P(3)[N(1) + c];
      float value = d * factor + (x - P(3)[c]) * P(3)[3 * N(1) + c] + P(3)[4 * N(1) + c];
      GIVE(OUT(6)[i], value, N(4));
    }
  }
}
