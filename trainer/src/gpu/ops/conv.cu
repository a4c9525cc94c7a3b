// Convolution of images with their channels last, a window at a time: right on every device; where the vendor's library
// is there, it does the same faster.

// N(0): elements that are written. Sizes from N(1) on.
#define IMAGES N(1)
#define H N(2)
#define W N(3)
#define C N(4)
#define OH N(5)
#define OW N(6)
#define M N(7)
#define CG N(8)
#define MG N(9)
#define KH N(10)
#define KW N(11)
#define STRIDE_Y N(12)
#define STRIDE_X N(13)
#define DILATION_Y N(14)
#define DILATION_X N(15)
#define PAD_Y N(16)
#define PAD_X N(17)

// P(0): x, P(1): weights [M, KH, KW, C / groups], OUT(2): y.
KERNEL(conv_forward) {
  EACH(i, N(0)) {
    long long m = i % M, ox = i / M % OW, oy = i / M / OW % OH, n = i / M / OW / OH, first = m / MG * CG;
    float sum = 0.0f;
    for (long long ky = 0; ky < KH; ky++) {
      long long y = oy * STRIDE_Y + ky * DILATION_Y - PAD_Y;
      if (y < 0 || y >= H) continue;
      for (long long kx = 0; kx < KW; kx++) {
        long long x = ox * STRIDE_X + kx * DILATION_X - PAD_X;
        if (x < 0 || x >= W) continue;
        const float *in = P(0) + ((n * H + y) * W + x) * C + first, *w = P(1) + ((m * KH + ky) * KW + kx) * CG;
        for (long long c = 0; c < CG; c++) sum += in[c] * w[c];
      }
    }
    OUT(2)[i] = sum;
  }
}

// P(0): d_y, P(1): weights, OUT(2): d_x. N(18): whether to add.
KERNEL(conv_backward_x) {
  EACH(i, N(0)) {
    long long c = i % C, x = i / C % W, y = i / C / W % H, n = i / C / W / H, group = c / CG;
    float sum = 0.0f;
    for (long long ky = 0; ky < KH; ky++) {
      long long at_y = y + PAD_Y - ky * DILATION_Y, oy = at_y / STRIDE_Y;
      if (at_y < 0 || at_y % STRIDE_Y || oy >= OH) continue;
      for (long long kx = 0; kx < KW; kx++) {
        long long at_x = x + PAD_X - kx * DILATION_X, ox = at_x / STRIDE_X;
        if (at_x < 0 || at_x % STRIDE_X || ox >= OW) continue;
        const float *d = P(0) + ((n * OH + oy) * OW + ox) * M + group * MG;
        const float *w = P(1) + ((group * MG * KH + ky) * KW + kx) * CG + c % CG;
        for (long long m = 0; m < MG; m++) sum += d[m] * w[m * KH * KW * CG];
      }
    }
    GIVE(OUT(2)[i], sum, N(18));
  }
}

// A group sums the gradient of one weight. P(0): d_y, P(1): x, OUT(2): gradient of the weights. N(18): whether to add.
KERNEL(conv_backward_w) {
  SHARED float shared[256];
  long long c = GROUP % CG, kx = GROUP / CG % KW, ky = GROUP / CG / KW % KH, m = GROUP / CG / KW / KH;
  long long channel = m / MG * CG + c;
  float sum = 0.0f;
  for (long long i = THREAD; i < IMAGES * OH * OW; i += THREADS) {
    long long ox = i % OW, oy = i / OW % OH, n = i / OW / OH;
    long long y = oy * STRIDE_Y + ky * DILATION_Y - PAD_Y, x = ox * STRIDE_X + kx * DILATION_X - PAD_X;
    if (y < 0 || y >= H || x < 0 || x >= W) continue;
    sum += P(0)[i * M + m] * P(1)[((n * H + y) * W + x) * C + channel];
  }
  sum = group_sum(shared, sum);
  if (THREAD == 0) GIVE(OUT(2)[GROUP], sum, N(18));
}

#undef IMAGES
#undef H
#undef W
#undef C
#undef OH
#undef OW
#undef M
#undef CG
#undef MG
#undef KH
#undef KW
#undef STRIDE_Y
#undef STRIDE_X
#undef DILATION_Y
#undef DILATION_X
#undef PAD_Y
#undef PAD_X

// Adds a number a channel. OUT(0): [N(0) / N(1), N(1)], P(1): [N(1)].
KERNEL(add_channels) { EACH(i, N(0)) OUT(0)[i] += P(1)[i % N(1)]; }

// A group sums a column. P(0): [N(0), N(1)], OUT(1): [N(1)]. N(2): whether to add.
KERNEL(column_sums) {
  SHARED float shared[256];
  float sum = 0.0f;
  for (long long row = THREAD; row < N(0); row += THREADS) sum += P(0)[row * N(1) + GROUP];
  sum = group_sum(shared, sum);
  if (THREAD == 0) GIVE(OUT(1)[GROUP], sum, N(2));
}
