// The generalised delta rule on CPU cores: S ← D S + b u' + k v' with u = S'a, which reads the state before its decay D.
//
// A token's a reads what stands behind the token before it, as a query there would. So the reads stand a token ahead: row c is
// that of token c + 1, every weight between it and a write is the exponential of a sum of its own, and the chunk's first token
// reads the state before the chunk as it is. Inside a chunk
//     u_t = (Γ_{t-1} a_t)ᵀ S + Σ_{s < t} (a_t·Γ k_s) v_s + (a_t·Γ b_s) u_s
// is a triangle, solved row by row as that of the delta rule (-a stands for a); with it b and u are keys and values beside k and
// v (lane.h). Its gradient solves the transpose from the last token on, and its negative is the gradient of what -a reads.

#include "lane.h"
#include "solve.h"

template <class Do> static void each(Do act) {  // read and write
  for (int r = 0; r < 2; ++r)
    for (int w = 0; w < 2; ++w) act(r, w);
}

template <class F, Rule rule> template <class Take> void Lane<F, rule>::lay_moves(Take take) {
  const Int of_key = (C + 1) * key.n, of_value = (C + 1) * value.n;
  for (Vec **y : {&a, &early_a}) take(y, of_key);
  for (Vec **y : {&x, &early_x}) take(y, of_value);
  if (!key.gated) early_a = a;
  if (!scalar) early_x = x;
  Side<F> along = key, moved = value;  // writes b and u
  for (Vec **y : {&along.write, &along.late}) take(y, of_key);
  for (Vec **y : {&moved.write, &moved.late}) take(y, of_value);
  if (!key.gated) along.late = along.write;
  if (!scalar) moved.late = moved.write;
  each([&](int r, int w) {
    Side<F> &k = keys[r][w] = w ? along : key;
    values[r][w] = w ? moved : value, key_pairs[r][w] = to_value, value_pairs[r][w] = to_key;
    if (r + w == 0) return;
    for (Vec **y : {&k.d_read, &k.d_write}) take(y, of_key);
    for (Vec **y : {&key_pairs[r][w], &value_pairs[r][w]}) take(y, C * CN);
    if (!memory.data() || !r) return;  // null: sizes are being counted, and a null pointer stays where it is
    Side<F> &v = values[r][w];
    k.ahead = true, k.read = a + key.n, k.early = early_a + key.n, k.d_read += key.n;
    v.read = x + value.n, v.early = early_x + value.n;
  });
  key.also = &keys[1][0], key.beside = &keys[0][1];
}

// Writes along b; going backward, what was written.
template <class F, Rule rule> void Lane<F, rule>::load_moved() {
  const Side<F> &k = keys[0][1], &v = values[0][1];
  copy(p.b, {p.H, p.hb, h}, t0, count, key, k.write);
  for (Int i = 0; i < steps * key.n && key.gated; ++i) k.late[i] = k.write[i] * key.since[i];
  if (!backwards) return;
  copy(p.u, at_o, t0, count, value, v.write);
  if (scalar) weigh(value, since, v.write, v.late);
}

// Reads by -a, and all that keys give to one another.
template <class F, Rule rule> void Lane<F, rule>::load_moves() {
  copy(p.a, {p.H, p.ha, h}, t0, count, key, a);
  for (Int i = 0; i < steps * key.n; ++i) a[i] = -a[i];
  std::fill_n(a + steps * key.n, key.n, Vec{});  // the next chunk's first token reads the state behind this one
  if (key.gated) std::copy_n(a, key.n, early_a);
  for (Int i = 0; i < steps * key.n && key.gated; ++i) early_a[key.n + i] = a[key.n + i] * key.until[i];
  before[0] = 1;
  for (Int c = 1; c < C; ++c) before[c] = scalar ? until[c - 1] : F(1);
  each([&](int r, int w) { keys[r][w].meet(key_pairs[r][w], spare, scalar ? weights : nullptr, steps); });
}

template <class F, Rule rule> void Lane<F, rule>::move() {
  load_moves();
  const Side<F> &v = values[0][1];
  std::fill_n(v.write, steps * value.n, Vec{});
  // pairs one token back: reads stand ahead
  solve<EARLIER, true>(v.write, value.n, scalars<F>(key_pairs[1][1]) - 1, early_a, key.n * L, S, p.K, before, steps,
                       scalars<F>(key_pairs[1][0]) - 1, value.write);
  if (scalar) weigh(value, since, v.write, v.late);
  for (Int c = 0; c < count && p.u; ++c) put(v.write + c * value.n, p.u + at_o(t0 + c) * p.V, p.V);
}

template <class F, Rule rule> void Lane<F, rule>::move_gradients(const Vec *S) {
  transpose<F>(S, rows, value.n, flipped);
  load_moves();
  take<LATER>(value, keys[0][1].late, key, dS, key_pairs[0][1], x);
  solve<LATER>(x, value.n, scalars<F>(key_pairs[1][1]) - 1, a, 0, S, 0, ones, steps);
  for (Int i = 0; i < steps * value.n; ++i) x[i] = -x[i];
  std::fill_n(x + steps * value.n, value.n, Vec{});
  if (scalar) std::copy_n(x, value.n, early_x), weigh(value, until, x + value.n, early_x + value.n);
  each([&](int r, int w) { values[r][w].meet(value_pairs[r][w], spare, scalar ? weights : nullptr, steps); });
  if (key.gated) each([&](int r, int w) { keys[r][w].give_through_gates(value_pairs[r][w], true, steps); });
  for (int i = 0; i < 2; ++i) {
    const Side<F> &read = keys[i][0], &write = keys[0][i];
    take<EARLIER, true>(read, values[i][0].early, value, flipped, value_pairs[i][0], read.d_read, &keys[i][1], value_pairs[i][1]);
    take<LATER, true>(write, values[0][i].late, value, d_flipped, value_pairs[0][i], write.d_write, &keys[1][i], value_pairs[1][i]);
  }
  multiply(x, p.V, flipped, key.n, keys[1][0].d_read - key.n);
  take<LATER, true>(value, key.late, key, dS, to_value, value.d_write, &values[1][0], key_pairs[1][0]);
  carry(dS, dS, d_rest, key.early, value.early, early_a, early_x);
}

template <class F, Rule rule> void Lane<F, rule>::write_moves() const {
  for (Int c = 0; c < count; ++c) {
    const Int to = at_o(t0 + c) * p.K;
    if (p.d_a) put(keys[1][0].d_read + (c - 1) * key.n, p.d_a + to, p.K, -1);
    if (p.d_b) put(keys[0][1].d_write + c * key.n, p.d_b + to, p.K);
  }
}

extern "C" {
const char *general_fields() { return NAMES(PROBLEM); }
void general_float(const Problem<float> *p, int backward) { run<float, Rule::move>(*p, backward); }
void general_double(const Problem<double> *p, int backward) { run<double, Rule::move>(*p, backward); }
}
