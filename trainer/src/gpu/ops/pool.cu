// Pooling of images with their channels last. N(0): elements that are written. Sizes from N(1) on.
#define H N(1)
#define W N(2)
#define C N(3)
#define OH N(4)
#define OW N(5)
#define KH N(6)
#define KW N(7)
#define STRIDE_Y N(8)
#define STRIDE_X N(9)
#define DILATION_Y N(10)
#define DILATION_X N(11)
#define PAD_Y N(12)
#define PAD_X N(13)
#define END_Y N(14)
#define END_X N(15)

// The places of an image that the window of output (oy, ox) covers: a loop body that sees y and x.
#define COVERED                                                     \
  for (long long ky = 0; ky < KH; ky++)                             \
    for (long long kx = 0, y = oy * STRIDE_Y + ky * DILATION_Y - PAD_Y, x; kx < KW; kx++) \
      if (x = ox * STRIDE_X + kx * DILATION_X - PAD_X, y >= 0 && y < H && x >= 0 && x < W)

// P(0): x, OUT(1): y, OUT(2): place in its image of the winner, -1 where there is none. A NaN wins and stays.
KERNEL(max_forward) {
  EACH(i, N(0)) {
    long long c = i % C, ox = i / C % OW, oy = i / C / OW % OH, n = i / C / OW / OH;
    const float *in = P(0) + n * H * W * C + c;
    float best = 0.0f;
    int winner = -1;
    COVERED {
      float value = in[(y * W + x) * C];
      if (winner < 0 || value > best || (value != value && best == best)) best = value, winner = (int)(y * W + x);
    }
    OUT(1)[i] = best;
    ((int *)OUT(2))[i] = winner;
  }
}

// P(0): d_y, P(1): winners, OUT(2): d_x. N(16): whether to add. Each element of x looks through the windows that see it.
KERNEL(max_backward) {
  EACH(i, N(0)) {
    long long c = i % C, x = i / C % W, y = i / C / W % H, n = i / C / W / H;
    float sum = 0.0f;
    for (long long ky = KH - 1; ky >= 0; ky--) {
      long long at_y = y + PAD_Y - ky * DILATION_Y, oy = at_y / STRIDE_Y;
      if (at_y < 0 || at_y % STRIDE_Y || oy >= OH) continue;
      for (long long kx = KW - 1; kx >= 0; kx--) {
        long long at_x = x + PAD_X - kx * DILATION_X, ox = at_x / STRIDE_X;
        if (at_x < 0 || at_x % STRIDE_X || ox >= OW) continue;
        long long o = ((n * OH + oy) * OW + ox) * C + c;
        if (((const int *)P(1))[o] == y * W + x) sum += P(0)[o];
      }
    }
    GIVE(OUT(2)[i], sum, N(16));
  }
}

// Elements along an axis that a mean is divided by: those that the window covers, and pads where N(17) says so.
DEVICE long long counted(long long o, long long kernel, long long stride, long long dilation, long long pad, long long size,
                         long long end, long long pads) {
  long long count = 0;
  for (long long k = 0; k < kernel; k++) {
    long long at = o * stride + k * dilation;
    count += pads ? at < pad + size + end : at >= pad && at < pad + size;
  }
  return count;
}

DEVICE float mean_weight(const Args a, long long oy, long long ox) {
  long long rows = counted(oy, KH, STRIDE_Y, DILATION_Y, PAD_Y, H, END_Y, N(17));
  long long count = rows * counted(ox, KW, STRIDE_X, DILATION_X, PAD_X, W, END_X, N(17));
  return 1.0f / (float)(count > 0 ? count : 1);
}

// P(0): x, OUT(1): y.
KERNEL(average_forward) {
  EACH(i, N(0)) {
    long long c = i % C, ox = i / C % OW, oy = i / C / OW % OH, n = i / C / OW / OH;
    const float *in = P(0) + n * H * W * C + c;
    float sum = 0.0f;
    COVERED sum += in[(y * W + x) * C];
    OUT(1)[i] = sum * mean_weight(a, oy, ox);
  }
}

// P(0): d_y, OUT(1): d_x. N(16): whether to add.
KERNEL(average_backward) {
  EACH(i, N(0)) {
    long long c = i % C, x = i / C % W, y = i / C / W % H, n = i / C / W / H;
    float sum = 0.0f;
    for (long long ky = KH - 1; ky >= 0; ky--) {
      long long at_y = y + PAD_Y - ky * DILATION_Y, oy = at_y / STRIDE_Y;
      if (at_y < 0 || at_y % STRIDE_Y || oy >= OH) continue;
      for (long long kx = KW - 1; kx >= 0; kx--) {
        long long at_x = x + PAD_X - kx * DILATION_X, ox = at_x / STRIDE_X;
        if (at_x < 0 || at_x % STRIDE_X || ox >= OW) continue;
        sum += P(0)[((n * OH + oy) * OW + ox) * C + c] * mean_weight(a, oy, ox);
      }
    }
    GIVE(OUT(1)[i], sum, N(16));
  }
}

#undef H
#undef W
#undef C
#undef OH
#undef OW
#undef KH
#undef KW
#undef STRIDE_Y
#undef STRIDE_X
#undef DILATION_Y
#undef DILATION_X
#undef PAD_Y
#undef PAD_X
#undef END_Y
#undef END_X

// Means of planes. P(0): x [images, N(1), N(2)], channels last, OUT(1): y [images, N(2)]. N(0): elements of y.
KERNEL(plane_mean_forward) {
  EACH(i, N(0)) {
    const float *in = P(0) + i / N(2) * N(1) * N(2) + i % N(2);
    float sum = 0.0f;
    for (long long pixel = 0; pixel < N(1); pixel++) sum += in[pixel * N(2)];
    OUT(1)[i] = sum / (float)N(1);
  }
}

// P(0): d_y, OUT(1): d_x of N(0) elements. N(3): whether to add.
KERNEL(plane_mean_backward) {
  EACH(i, N(0)) GIVE(OUT(1)[i], P(0)[i / (N(1) * N(2)) * N(2) + i % N(2)] / (float)N(1), N(3));
}
