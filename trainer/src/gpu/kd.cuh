// What every kernel begins with: a kernel is told one struct, and says what it does for each element (EACH) or as a group
// of threads (SHARED, SYNC). CUDA C++ here; the tests' C has its own meaning of these words.
typedef struct { const void *pointers[8]; long long numbers[32]; float floats[8]; unsigned used[4]; } Args;

#define P(i) ((const float *)a.pointers[i])
#define OUT(i) ((float *)a.pointers[i])
#define D(i) ((double *)a.pointers[i])
#define N(i) (a.numbers[i])
#define F(i) (a.floats[i])

#ifndef KERNEL
#define KERNEL(name) extern "C" __global__ void __launch_bounds__(256) name(const Args a)
#define DEVICE static __device__ __forceinline__
#define SHARED __shared__
#define SYNC __syncthreads()
#define THREAD ((int)threadIdx.x)
#define THREADS ((int)blockDim.x)
#define GROUP ((long long)blockIdx.x)
#define GROUPS ((long long)gridDim.x)
#endif

// 1 / (1 + e^-x).
DEVICE float logistic(float x) {
  float e = expf(-fabsf(x)); // Cannot overflow.
  return x >= 0.0f ? 1.0f / (1.0f + e) : e / (1.0f + e);
}

// Elements 0 to n - 1, shared among all threads.
#define EACH(i, n) for (long long i = GROUP * THREADS + THREAD; i < (n); i += GROUPS * THREADS)

// One value of each thread of a group folded into one, in the same order every time. All threads call it.
#define GROUP_FOLD(name, type, fold)                                       \
  DEVICE type name(type *shared, type value) {                             \
    shared[THREAD] = value;                                                \
    SYNC;                                                                  \
    for (int half = THREADS / 2; half > 0; half /= 2) {                    \
      if (THREAD < half) {                                                 \
        type own = shared[THREAD], other = shared[THREAD + half];          \
        shared[THREAD] = (fold);                                           \
      }                                                                    \
      SYNC;                                                                \
    }                                                                      \
    type folded = shared[0];                                               \
    SYNC;                                                                  \
    return folded;                                                         \
  }

GROUP_FOLD(group_sum, float, own + other)
GROUP_FOLD(group_sum_double, double, own + other)
GROUP_FOLD(group_top, float, fmaxf(own, other))

// Writes a gradient, or adds it to what is there.
#define GIVE(place, value, add) ((place) = (add) ? (place) + (value) : (value))
