// P(0): x in planes of N(1), OUT(1): y, OUT(2): place in its plane of the winner. A group does a plane. A NaN wins and stays; of
// equal ones the first wins.
KERNEL(plane_max_forward) {
  SHARED float shared[256];
  SHARED int places[256];
  const float *in = P(0) + GROUP * N(1);
  int winner = 0;
  for (int i = THREAD; i < N(1); i += THREADS) {
    if (i == THREAD || in[i] > in[winner] || (in[i] != in[i] && in[winner] == in[winner])) winner = i;
  }
  // Threads without an element have the first thread's.
  shared[THREAD] = in[THREAD < N(1) ? winner : 0];
  places[THREAD] = THREAD < N(1) ? winner : 0;
  SYNC;
  for (int half = THREADS / 2; half > 0; half /= 2) {
    if (THREAD < half) {
      float own = shared[THREAD], other = shared[THREAD + half];
      int is_first = places[THREAD + half] < places[THREAD], is_nan = own != own, other_is = other != other;
      if ((other > own && !is_nan) || (other_is && !is_nan) || ((other == own || (other_is && is_nan)) && is_first)) {
        shared[THREAD] = other;
        places[THREAD] = places[THREAD + half];
      }
    }
    SYNC;
  }
  if (THREAD == 0) {
    OUT(1)[GROUP] = shared[0];
    ((int *)OUT(2))[GROUP] = places[0];
  }
}

// P(0): d_y, P(1): winners, OUT(2): d_x of N(0) elements in planes of N(1). N(2): whether to add.
KERNEL(plane_max_backward) {
  EACH(i, N(0)) {
    float d = i % N(1) == ((const int *)P(1))[i / N(1)] ? P(0)[i / N(1)] : 0.0f;
    GIVE(OUT(2)[i], d, N(2));
  }
}
