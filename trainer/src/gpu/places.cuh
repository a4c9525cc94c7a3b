// Walks over boxes of elements of two arrays at once.
typedef struct { long long a, b; } Places;

// Element i of the box whose sizes are N(first) to N(first + 5): its places in two views (strides and offset of each).
DEVICE Places places(const Args a, int first, long long i) {
  Places p = {N(first + 12), N(first + 19)};
  for (int axis = 5; axis >= 0; axis--) {
    long long size = N(first + axis), at = i % size;
    p.a += at * N(first + 6 + axis);
    p.b += at * N(first + 13 + axis);
    i /= size;
  }
  return p;
}
