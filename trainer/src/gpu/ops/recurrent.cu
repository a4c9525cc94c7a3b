// Recurrent layers: what all have, then steps of an LSTM and of a GRU, forward and back.

// OUT(2) [.., N(1)] = P(0) + P(1), the latter in the first N(2) columns. N(0): elements.
KERNEL(recurrent_biases) {
  EACH(i, N(0)) {
    long long column = i % N(1);
    OUT(2)[i] = P(0)[column] + (column < N(2) ? P(1)[column] : 0.0f);
  }
}

// OUT(1) [T, N(2), N(1)] at direction N(3) = P(0) [T, N(1)]. N(0): elements of the latter.
KERNEL(recurrent_write) { EACH(i, N(0)) OUT(1)[(i / N(1) * N(2) + N(3)) * N(1) + i % N(1)] = P(0)[i]; }

// Gates in rows of 4 times N(1): input, output, forget, cell; N(0): elements of a state.
// P(0): the cells before. OUT(1): gates, sums before and values after; OUT(2): cells, OUT(3): states.
KERNEL(lstm_step) {
  EACH(i, N(0)) {
    long long h = N(1);
    float *gates = OUT(1) + i / h * 4 * h + i % h;
    float in = logistic(gates[0]), out = logistic(gates[h]), forget = logistic(gates[2 * h]), cell = tanhf(gates[3 * h]);
    float c = forget * P(0)[i] + in * cell;
    gates[0] = in, gates[h] = out, gates[2 * h] = forget, gates[3 * h] = cell;
    OUT(2)[i] = c;
    OUT(3)[i] = out * tanhf(c);
  }
}

// P(0): gradient of the states by the step after, P(1): by the outputs, P(2): gates, P(3): cells, P(4): cells before. OUT(5):
// gradient of the cells, which becomes that of those before; OUT(6): of the sums.
KERNEL(lstm_step_back) {
  EACH(i, N(0)) {
    long long h = N(1), first = i / h * 4 * h + i % h;
    const float *gates = P(2) + first;
    float *d = OUT(6) + first, in = gates[0], out = gates[h], forget = gates[2 * h], cell = gates[3 * h];
    float d_h = P(0)[i] + P(1)[i], t = tanhf(P(3)[i]), d_c = OUT(5)[i] + d_h * out * (1.0f - t * t);
    d[0] = d_c * cell * in * (1.0f - in);
    d[h] = d_h * t * out * (1.0f - out);
    d[2 * h] = d_c * P(4)[i] * forget * (1.0f - forget);
    d[3 * h] = d_c * in * (1.0f - cell * cell);
    OUT(5)[i] = d_c * forget;
  }
}

// Gates in rows of 3 times N(1): update, reset, hidden.
// P(0): states before, P(1): the state's part of update and reset. OUT(2): gates, sums before; OUT(3): states after the reset.
KERNEL(gru_gates) {
  EACH(i, N(0)) {
    long long h = N(1), row = i / h, j = i % h;
    float *gates = OUT(2) + row * 3 * h + j;
    const float *sums = P(1) + row * 2 * h + j;
    gates[0] = logistic(gates[0] + sums[0]);
    gates[h] = logistic(gates[h] + sums[h]);
    if (N(2)) OUT(3)[i] = gates[h] * P(0)[i];
  }
}

// P(0): states before, P(1): the state's part of the hidden gate, which N(2) says the reset multiplies. OUT(2): gates, OUT(3):
// states.
KERNEL(gru_state) {
  EACH(i, N(0)) {
    long long h = N(1);
    float *gates = OUT(2) + i / h * 3 * h + i % h;
    float own = N(2) ? gates[h] * P(1)[i] : P(1)[i], value = tanhf(gates[2 * h] + own), z = gates[0];
    gates[2 * h] = value;
    OUT(3)[i] = (1.0f - z) * value + z * P(0)[i];
  }
}

// P(0): gradient by the outputs, P(1): gates, P(2): states before, P(3): what the reset met. OUT(4): gradient of the states,
// which becomes the part of those before that does not go through products; OUT(5): of the sums; OUT(6): of the state's part of
// the hidden gate, if N(2) says that the reset multiplies it.
KERNEL(gru_back) {
  EACH(i, N(0)) {
    long long h = N(1), first = i / h * 3 * h + i % h;
    const float *gates = P(1) + first;
    float *d_t = OUT(5) + first, d = OUT(4)[i] + P(0)[i], update = gates[0], reset = gates[h], value = gates[2 * h];
    d_t[0] = d * (P(2)[i] - value) * update * (1.0f - update);
    d_t[2 * h] = d * (1.0f - update) * (1.0f - value * value);
    OUT(4)[i] = d * update;
    if (N(2)) {
      d_t[h] = d_t[2 * h] * P(3)[i] * reset * (1.0f - reset);
      OUT(6)[i] = d_t[2 * h] * reset;
    }
  }
}

// Where the reset comes first. P(0): gradient of the states after it, P(1): gates, P(2): states before. OUT(3): gradient of the
// sums, OUT(4): of the states before.
KERNEL(gru_reset_back) {
  EACH(i, N(0)) {
    long long h = N(1), at = i / h * 3 * h + h + i % h;
    float reset = P(1)[at];
    OUT(3)[at] = P(0)[i] * P(2)[i] * reset * (1.0f - reset);
    OUT(4)[i] += P(0)[i] * reset;
  }
}
