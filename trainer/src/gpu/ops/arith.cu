// Element-wise arithmetic of two inputs that are stretched over a box: at an element's index each has its own place.

// 0 to 3: +, -, *, /.
DEVICE float arith(long long kind, float x, float y) {
  return kind == 0 ? x + y : kind == 1 ? x - y : kind == 2 ? x * y : x / y;
}

// P(0), P(1): inputs. OUT(2): output. N(0): elements, N(1): kind, N(2): whether both lie as the output does, N(3)...: walk.
KERNEL(arith_forward) {
  EACH(i, N(0)) {
    Places p = {i, i};
    if (!N(2)) p = places(a, 3, i);
    OUT(2)[i] = arith(N(1), P(0)[p.a], P(1)[p.b]);
  }
}

// d_y times the derivative by the input N(2) (0 or 1), at element i of the output.
DEVICE float arith_slope(const Args a, long long i) {
  float d = P(2)[i];
  if (N(1) == 0) return d;
  if (N(1) == 1) return N(2) == 0 ? d : -d;
  Places p = {i, i};
  if (!N(3)) p = places(a, 6, i);
  if (N(1) == 2) return d * (N(2) == 0 ? P(1)[p.b] : P(0)[p.a]);
  float y = P(1)[p.b];
  return N(2) == 0 ? d / y : -d * P(0)[p.a] / (y * y);
}

// The gradient of an input that is not stretched. P(0), P(1): inputs, P(2): d_y, OUT(3): d_x. N(0): elements, N(1): kind,
// N(2): which input, N(3): whether both lie as the output does, N(4): whether to add, N(6)...: walk.
KERNEL(arith_backward) {
  EACH(i, N(0)) {
    float d = arith_slope(a, i);
    GIVE(OUT(3)[i], d, N(4));
  }
}

// The gradient of one that is stretched: a group sums what one of its elements was used for. As above; of the output's
// sizes N(5) has a bit for each axis that the input is stretched along.
KERNEL(arith_backward_sum) {
  SHARED float shared[256];
  long long stretch = N(5), uses = 1, first = 0, rest = GROUP, steps[6], step = 1;
  for (int axis = 5; axis >= 0; axis--) {
    long long size = N(6 + axis);
    steps[axis] = step;
    step *= size;
    if (stretch >> axis & 1) {
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
      if (stretch >> axis & 1) {
        i += left % N(6 + axis) * steps[axis];
        left /= N(6 + axis);
      }
    }
    sum += arith_slope(a, i);
  }
  sum = group_sum(shared, sum);
  if (THREAD == 0) GIVE(OUT(3)[GROUP], sum, N(4));
}
