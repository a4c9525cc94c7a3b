// Dropout by counter: element i of a stream has its number whatever was drawn before; see trainer/src/exec/random.rs.

DEVICE unsigned long long mixed(unsigned long long x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// P(0): x, OUT(1): y. N(0): elements, N(1): key of the stream, N(2): number of the first element, N(3): whether to add.
// F(0): share that is dropped, F(1): factor of the others.
KERNEL(dropout) {
  EACH(i, N(0)) {
    unsigned long long bits = mixed((unsigned long long)N(1) + (unsigned long long)(N(2) + i) * 0x9e3779b97f4a7c15ULL);
    float uniform = (float)(bits >> 40) * (1.0f / 16777216.0f);
    GIVE(OUT(1)[i], uniform >= F(0) ? P(0)[i] * F(1) : 0.0f, N(3));
  }
}
