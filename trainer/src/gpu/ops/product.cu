// Matrix products. What the vendor's library does faster is asked of it first.

// OUT(2) [batch, N(1), N(2)] = F(0) A B, summed over N(3). N(0): elements. Strides of A: N(4) (rows), N(5) (columns), of B: N(6),
// N(7). N(8): whether to add. N(9)...: walk over the batch, from matrix to matrix of A and B.
KERNEL(product) {
  EACH(i, N(0)) {
    long long column = i % N(2), row = i / N(2) % N(1), matrix = i / N(2) / N(1);
    Places p = places(a, 9, matrix);
    const float *left = P(0) + p.a + row * N(4), *right = P(1) + p.b + column * N(7);
    float sum = 0.0f;
    for (long long k = 0; k < N(3); k++) sum += left[k * N(5)] * right[k * N(6)];
    GIVE(OUT(2)[i], sum * F(0), N(8));
  }
}

// OUT(1) [N(1), N(2)] = F(0) C, which has N(3) and N(4) strides (0 where it is stretched). N(0): elements.
KERNEL(stretch) { EACH(i, N(0)) OUT(1)[i] = F(0) * P(0)[i / N(2) * N(3) + i % N(2) * N(4)]; }

// The way back: a group sums what one element of C, [N(3), N(4)] each 1 or full, was used for. P(0): d_y [N(1), N(2)],
// OUT(1): gradient of C. N(5): whether to add.
KERNEL(stretch_backward) {
  SHARED float shared[256];
  long long rows = N(3) == 1 ? N(1) : 1, columns = N(4) == 1 ? N(2) : 1;
  long long row = N(3) == 1 ? 0 : GROUP / N(4), column = N(4) == 1 ? 0 : GROUP % N(4);
  float sum = 0.0f;
  for (long long use = THREAD; use < rows * columns; use += THREADS) {
    sum += P(0)[(row + use / columns) * N(2) + column + use % columns];
  }
  sum = group_sum(shared, sum) * F(0);
  if (THREAD == 0) GIVE(OUT(1)[GROUP], sum, N(5));
}
