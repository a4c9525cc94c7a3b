// Elements that are somewhere else in another array: joining, cutting, turning, padding, means along axes.

// OUT(1) at the first view = P(0) at the second. N(0): elements of the box, N(1): whether to add, N(2)...: walk.
KERNEL(move_forward) {
  EACH(i, N(0)) {
    Places p = places(a, 2, i);
    GIVE(OUT(1)[p.a], P(0)[p.b], N(1));
  }
}

// OUT(1) at the second view = P(0) at the first: the way back.
KERNEL(move_backward) {
  EACH(i, N(0)) {
    Places p = places(a, 2, i);
    GIVE(OUT(1)[p.b], P(0)[p.a], N(1));
  }
}

// The mean along axes. P(0): x, OUT(1): y. A group sums what one element of y is the mean of. N(0): a bit for each axis that
// is reduced, N(1)...: sizes of x, N(7): whether to add. F(0): 1 / elements of a mean.
KERNEL(mean_forward) {
  SHARED float shared[256];
  long long uses = 1, first = 0, rest = GROUP, steps[6], step = 1;
  for (int axis = 5; axis >= 0; axis--) {
    long long size = N(1 + axis);
    steps[axis] = step;
    step *= size;
    if (N(0) >> axis & 1) {
      uses *= size;
    } else {
      first += rest % size * steps[axis];
      rest /= size;
    }
  }
  float sum = 0.0f;
  for (long long use = THREAD; use < uses; use += THREADS) {
    long long i = first, left = use;
    for (int axis = 5; axis >= 0; axis--) {
      if (N(0) >> axis & 1) {
        i += left % N(1 + axis) * steps[axis];
        left /= N(1 + axis);
      }
    }
    sum += P(0)[i];
  }
  sum = group_sum(shared, sum);
  if (THREAD == 0) GIVE(OUT(1)[GROUP], sum * F(0), N(7));
}

// OUT(1) at the first view (dx) = P(0) at the second (dy) F(0). N(0): elements of x, N(1): whether to add, N(2)...: walk.
KERNEL(mean_backward) {
  EACH(i, N(0)) {
    Places p = places(a, 2, i);
    GIVE(OUT(1)[p.a], P(0)[p.b] * F(0), N(1));
  }
}
