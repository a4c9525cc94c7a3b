// Steps of optimizers; see trainer/src/optim. N(0): elements. P(0): gradient, OUT(1): parameter.

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
