// Slices of N(1) elements, picked by index: blocks of N(2) of them, from blocks of N(3). P(1): indices.

// P(0): the table, OUT(2): y of N(0) elements.
KERNEL(gather_forward) {
  EACH(i, N(0)) {
    long long slice = i / N(1), block = slice / N(2), index = ((const int *)P(1))[slice % N(2)];
    OUT(2)[i] = P(0)[(block * N(3) + index) * N(1) + i % N(1)];
  }
}

// P(0): d_y, OUT(2): gradient of the table, of N(0) elements. N(4): whether to add. Each looks for its uses, in their order.
KERNEL(gather_backward) {
  EACH(i, N(0)) {
    long long slice = i / N(1), block = slice / N(3);
    float sum = 0.0f;
    for (long long k = 0; k < N(2); k++) {
      if (((const int *)P(1))[k] == slice % N(3)) sum += P(0)[(block * N(2) + k) * N(1) + i % N(1)];
    }
    GIVE(OUT(2)[i], sum, N(4));
  }
}
