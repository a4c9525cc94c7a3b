// Soft targets of rows that have a true class; a group does a row. P(0): student, P(1): teacher, P(2): three numbers
// of each row, of which the first is its class, OUT(3): gradient, OUT(4): value of each row. N(0): logits of a row.
// F(0): 1 / temperature, F(1): what the gradient is times.

// What makes logarithms of the softmax of a row's numbers: (x - top) * by - shift.
typedef struct { float by, top, shift; } Softened;

// Of n numbers without one of them, or of all (without: -1).
DEVICE Softened soften(float *shared, const float *x, long long n, long long without, float by) {
  Softened row = {by, x[without == 0 && n > 1 ? 1 : 0], 0.0f};
  float sum = 0.0f;
  for (long long k = THREAD; k < n; k += THREADS) {
    if (k != without) row.top = fmaxf(row.top, x[k]);
  }
  row.top = group_top(shared, row.top);
  for (long long k = THREAD; k < n; k += THREADS) {
    if (k != without) sum += expf((x[k] - row.top) * by);
  }
  row.shift = logf(group_sum(shared, sum));
  return row;
}

// Of a number of the row the logarithm of its probability; of the one that was left out, that of its odds against all
// others.
DEVICE float softened_log(Softened row, float x) { return (x - row.top) * row.by - row.shift; }

// The logarithm of 1 / (1 + e^-x).
DEVICE float log_logistic(float x) { return x < 0.0f ? x - log1pf(expf(x)) : -log1pf(expf(-x)); }

#define LABELLED                                                   \
  SHARED float shared[256];                                        \
  const float *s = P(0) + GROUP * N(0), *t = P(1) + GROUP * N(0);  \
  float *d = OUT(3) + GROUP * N(0), value = 0.0f;                  \
  long long label = (long long)P(2)[3 * GROUP];

// F(2): factor of the part of the class against all others, F(3): of the others among themselves.
KERNEL(decoupled_answers) {
  LABELLED
  Softened rest_s = soften(shared, s, N(0), label, F(0)), rest_t = soften(shared, t, N(0), label, F(0));
  float odds_s = softened_log(rest_s, s[label]), odds_t = softened_log(rest_t, t[label]);
  float p_true = logistic(odds_t), p_rest = logistic(-odds_t), binary = 0.0f;
  if (p_true != 0.0f) binary += p_true * (log_logistic(odds_t) - log_logistic(odds_s));
  if (p_rest != 0.0f) binary += p_rest * (log_logistic(-odds_t) - log_logistic(-odds_s));
  float of_true = F(2) * (logistic(odds_s) - p_true), of_others = F(2) * (logistic(-odds_s) - p_rest);
  for (long long k = THREAD; k < N(0); k += THREADS) {
    float own = of_true;
    if (k != label) {
      float log_s = softened_log(rest_s, s[k]), log_t = softened_log(rest_t, t[k]), p = expf(log_s), q = expf(log_t);
      if (q != 0.0f) value += q * (log_t - log_s);
      own = of_others * p + F(3) * (p - q);
    }
    d[k] = own * F(0) * F(1);
  }
  value = group_sum(shared, value);
  if (THREAD == 0) OUT(4)[GROUP] = F(2) * binary + F(3) * value;
}

// F(2): factor of the part of the others.
KERNEL(normalized_answers) {
  LABELLED
  Softened all_s = soften(shared, s, N(0), -1, 1.0f), all_t = soften(shared, t, N(0), -1, 1.0f);
  Softened rest_s = soften(shared, s, N(0), label, F(0)), rest_t = soften(shared, t, N(0), label, F(0));
  float sure = expf(softened_log(all_t, t[label]));
  for (long long k = THREAD; k < N(0); k += THREADS) {
    float own = expf(softened_log(all_s, s[k])) * sure;
    if (k == label) {
      own -= sure;
    } else {
      float log_s = softened_log(rest_s, s[k]), q = expf(softened_log(rest_t, t[k]));
      if (q != 0.0f) value -= q * log_s;
      own += F(2) * F(0) * (expf(log_s) - q);
    }
    d[k] = F(1) * own;
  }
  value = F(2) * group_sum(shared, value);
  if (sure != 0.0f) value -= sure * softened_log(all_s, s[label]);
  if (THREAD == 0) OUT(4)[GROUP] = value;
}

KERNEL(weighted_answers) {
  LABELLED
  Softened own_s = soften(shared, s, N(0), -1, 1.0f), own_t = soften(shared, t, N(0), -1, 1.0f);
  Softened soft_s = soften(shared, s, N(0), -1, F(0)), soft_t = soften(shared, t, N(0), -1, F(0));
  float ratio = -softened_log(own_s, s[label]) / (1e-7f - softened_log(own_t, t[label]));
  float weight = 1.0f - expf(-fmaxf(ratio, 0.0f));
  for (long long k = THREAD; k < N(0); k += THREADS) {
    float log_s = softened_log(soft_s, s[k]), q = expf(softened_log(soft_t, t[k]));
    if (q != 0.0f) value -= q * log_s;
    d[k] = weight * F(1) * F(0) * (expf(log_s) - q);
  }
  value = weight * group_sum(shared, value);
  if (THREAD == 0) OUT(4)[GROUP] = value;
}

// What a class with this logarithm of the teacher's probability counts.
DEVICE float adapted(float log_t, int is_true, float exponent) {
  return is_true ? expm1f(exponent * log1pf(expf(log_t))) : expf(exponent * log_t);
}

// F(2): exponent.
KERNEL(adapted_answers) {
  LABELLED
  Softened of_s = soften(shared, s, N(0), -1, F(0)), of_t = soften(shared, t, N(0), -1, F(0));
  float whole = 0.0f;
  for (long long k = THREAD; k < N(0); k += THREADS) {
    float q = adapted(softened_log(of_t, t[k]), k == label, F(2));
    if (q != 0.0f) value -= q * softened_log(of_s, s[k]);
    whole += q;
  }
  value = group_sum(shared, value);
  whole = group_sum(shared, whole);
  for (long long k = THREAD; k < N(0); k += THREADS) {
    float q = adapted(softened_log(of_t, t[k]), k == label, F(2));
    d[k] = F(1) * F(0) * (expf(softened_log(of_s, s[k])) * whole - q);
  }
  if (THREAD == 0) OUT(4)[GROUP] = value;
}
#undef LABELLED

// Rows of N(1) logits, N(0) logits in all: OUT(1) is F(0) at the class of each row (P(0), three numbers a row), and
// F(1) elsewhere.
KERNEL(hand_made_answers) {
  EACH(i, N(0)) OUT(1)[i] = P(0)[3 * (i / N(1))] == (float)(i % N(1)) ? F(0) : F(1);
}

// OUT(2): for each of N(1) rows of N(0) logits (P(0)) the next one of its class (P(1), three numbers a row), going
// round; the row itself where it is the only one. A group does a row.
KERNEL(partner_answers) {
  long long from = GROUP;
  for (long long step = 1; step < N(1); step++) {
    long long other = (GROUP + step) % N(1);
    if (P(1)[3 * other] == P(1)[3 * GROUP]) {
      from = other;
      break;
    }
  }
  for (long long k = THREAD; k < N(0); k += THREADS) OUT(2)[GROUP * N(0) + k] = P(0)[from * N(0) + k];
}
