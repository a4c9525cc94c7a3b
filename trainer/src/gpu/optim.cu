// Steps of optimizers, and what comes before and after; see trainer/src/optim. N(0): elements. P(0): gradient, OUT(1): parameter.

// OUT(2): velocity, or none. F: learning rate, momentum kept, gradient taken, decay. N(1): whether to look ahead.
KERNEL(sgd) {
  EACH(i, N(0)) {
    float p = OUT(1)[i], d = P(0)[i] + F(3) * p;
    if (P(2)) {
      float v = F(1) * OUT(2)[i] + F(2) * d;
      OUT(2)[i] = v;
      d = N(1) ? d + F(4) * v : v;
    }
    OUT(1)[i] = p - F(0) * d;
  }
}

// OUT(2): running mean, OUT(3): running square. F: keep, coupled, size, epsilon (both times the root), beta1, beta2.
KERNEL(adam) {
  EACH(i, N(0)) {
    float p = OUT(1)[i], d = P(0)[i] + F(1) * p;
    float m = OUT(2)[i] + (1.0f - F(4)) * (d - OUT(2)[i]), v = F(5) * OUT(3)[i] + (1.0f - F(5)) * d * d;
    OUT(2)[i] = m, OUT(3)[i] = v;
    OUT(1)[i] = p * F(0) - F(2) * m / (sqrtf(v) + F(3));
  }
}

// OUT(2): running square, OUT(3): running mean or none, OUT(4): velocity or none. F: learning rate, alpha, epsilon, momentum, decay.
KERNEL(rmsprop) {
  EACH(i, N(0)) {
    float p = OUT(1)[i], d = P(0)[i] + F(4) * p, square = F(1) * OUT(2)[i] + (1.0f - F(1)) * d * d;
    OUT(2)[i] = square;
    if (P(3)) {
      float mean = OUT(3)[i] + (1.0f - F(1)) * (d - OUT(3)[i]);
      OUT(3)[i] = mean;
      square -= mean * mean;
      if (square < 0.0f) square = 0.0f; // Rounding may leave less than nothing.
    }
    d = d / (sqrtf(square) + F(2));
    if (P(4)) OUT(4)[i] = d = F(3) * OUT(4)[i] + d;
    OUT(1)[i] = p - F(0) * d;
  }
}

// P(0): gradient of the task, OUT(2): its velocity; P(3), OUT(4): those of the other terms. F: learning rate, momenta, decay.
KERNEL(dot) {
  EACH(i, N(0)) {
    float p = OUT(1)[i], task = F(1) * OUT(2)[i] + P(0)[i] + F(3) * p, other = F(2) * OUT(4)[i] + P(3)[i];
    OUT(2)[i] = task, OUT(4)[i] = other;
    OUT(1)[i] = p - F(0) * (task + other);
  }
}

// OUT(0): gradient, OUT(1): another part of it, or none. Their sum is brought into -F(0) to F(0).
KERNEL(clip_values) {
  EACH(i, N(0)) {
    float own = OUT(0)[i], part = P(1) ? OUT(1)[i] : 0.0f, size = fabsf(own + part);
    if (!(size > F(0))) continue;
    OUT(0)[i] = P(1) ? own * (F(0) / size) : copysignf(F(0), own);
    if (P(1)) OUT(1)[i] = part * (F(0) / size);
  }
}

// The square of the length of a gradient (P(0), P(1): as above), a group's share of it in D(2)[N(1) + group].
KERNEL(clip_squares) {
  SHARED double sums[256];
  double sum = 0.0;
  EACH(i, N(0)) {
    double g = (double)P(0)[i] + (P(1) ? P(1)[i] : 0.0f);
    sum += g * g;
  }
  sum = group_sum_double(sums, sum);
  if (THREAD == 0) D(2)[N(1) + GROUP] = sum;
}

// OUT(1): the factor that brings the root of the sum of D(0) to F(0) at most; 1 where that is not finite. One group.
KERNEL(clip_factor) {
  SHARED double sums[256];
  double sum = 0.0;
  for (long long i = THREAD; i < N(0); i += THREADS) sum += D(0)[i];
  float norm = (float)sqrt(group_sum_double(sums, sum)), factor = F(0) / (norm + 1e-6f);
  if (THREAD == 0) OUT(1)[0] = isfinite(norm) && factor < 1.0f ? factor : 1.0f;
}

// OUT(0) times P(1)[0].
KERNEL(clip_scale) { EACH(i, N(0)) OUT(0)[i] *= P(1)[0]; }

// OUT(0): [N(0), N(1), N(2)], of which each of the N(1) in the middle is made no longer than F(0). A group for each.
KERNEL(max_norm) {
  SHARED double sums[256];
  double sum = 0.0;
  for (long long i = THREAD; i < N(0) * N(2); i += THREADS) {
    double w = OUT(0)[(i / N(2) * N(1) + GROUP) * N(2) + i % N(2)];
    sum += w * w;
  }
  double norm = sqrt(group_sum_double(sums, sum));
  if (!(norm > F(0)) || !isfinite(norm)) return;
  float factor = (float)(F(0) / norm);
  for (long long i = THREAD; i < N(0) * N(2); i += THREADS) {
    OUT(0)[(i / N(2) * N(1) + GROUP) * N(2) + i % N(2)] *= factor;
  }
}
