// The gated delta rule on CPU cores: what a token writes is its error, u = β v - (D S)ᵀ m, with m the key that erases.
//
// Inside a chunk the errors depend on one another through a triangle, u_t = w_t - (Γ_t m_t)ᵀ S - Σ_{s < t} A_ts u_s with
// w = β v, which is solved row by row; with values u all else is gated linear attention (lane.h). Its gradient solves the
// transpose from the last token on: dw_s = du_s - Σ_{t > s} A_ts dw_t, and X = -dw is the gradient of what m reads.

#include "lane.h"
#include "solve.h"

template <class F, Rule rule> template <class Take> void Lane<F, rule>::lay_errors(Take take) {
  error = key, missed = value;
  for (Side<F> *side : {&error, &missed}) {
    take(&side->read, C * side->n), side->early = side->read;
    if (weighed(side == &error ? key : value)) take(&side->early, C * side->n);
  }
  for (Vec **x : {&error.d_read, &error.d_write}) take(x, C * key.n);
  for (Vec **x : {&to_missed, &to_error}) take(x, C * CN);
  key.also = &error;
}

template <class F, Rule rule> void Lane<F, rule>::find_errors() {
  at_m = p.m ? Head(p.H, p.hm, h) : at_k, at_beta = {p.H, p.hbeta, h}, at_erase = {p.H, p.herase, h};
  if (backwards) v = p.u, at_v = at_o;
}

template <class F, Rule rule> void Lane<F, rule>::load_errors() {
  copy(p.m ? p.m : p.k, at_m, t0, count, key, error.read);
  for (Int c = 0; c < count && p.erase; ++c)
    for (Int j = 0; j < key.n; ++j) error.read[c * key.n + j] *= p.erase[at_erase(t0 + c)];
  for (Int i = 0; i < steps * key.n && key.gated; ++i) error.early[i] = error.read[i] * key.until[i];
  error.meet(to_error, spare, scalar ? weights : nullptr, steps);
}

// Values become what is written: the errors.
template <class F, Rule rule> void Lane<F, rule>::correct() {
  load_errors();
  for (Int c = 0; c < count && p.beta; ++c)
    for (Int j = 0; j < value.n; ++j) value.write[c * value.n + j] *= p.beta[at_beta(t0 + c)];
  solve<EARLIER>(value.write, value.n, scalars<F>(to_error), error.early, key.n * L, S, p.K, value.until_row, steps);
  if (scalar) weigh(value, since, value.write, value.late);
  for (Int c = 0; c < count && p.u; ++c) put(value.write + c * value.n, p.u + at_o(t0 + c) * p.V, p.V);
}

template <class F, Rule rule> void Lane<F, rule>::error_gradients(const Vec *S) {
  transpose<F>(S, rows, value.n, flipped);
  load_errors();
  key.meet(to_value, spare, scalar ? weights : nullptr, steps);
  value.meet(to_key, spare, scalar ? weights : nullptr, steps);
  if (key.gated) key.give_through_gates(to_key, true, steps);
  take<LATER>(value, key.late, key, dS, to_value, value.d_write);
  solve<LATER>(value.d_write, value.n, scalars<F>(to_error), error.early, 0, S, 0, ones, steps);
  for (Int i = 0; i < steps * value.n; ++i) missed.read[i] = -value.d_write[i];
  if (scalar) weigh(value, until, missed.read, missed.early);
  missed.meet(to_missed, spare, scalar ? weights : nullptr, steps);
  for (Int c = 0; c < C; ++c) scalars<F>(to_missed)[c * C + c] = 0;  // no token reads its own error
  if (key.gated) error.give_through_gates(to_missed, true, steps);
  take<EARLIER>(key, value.early, value, flipped, to_key, key.d_read);
  take<EARLIER>(error, missed.early, value, flipped, to_missed, error.d_read);
  take<LATER>(key, value.late, value, d_flipped, to_key, key.d_write);
  error.template take<LATER>(value.late, value.n, 0, d_flipped, to_missed, scalars<F>(error.d_write), key.n * L, steps);
  for (Int i = 0; i < steps * key.n; ++i) key.d_write[i] += error.d_write[i];
  carry(dS, dS, d_rest, key.early, value.early, error.early, missed.early);
}

// d_v = β dw, d_β = dw·v and likewise for m: d_m = e d, d_e = d·m with d of e m. Keys that erase themselves add theirs.
template <class F, Rule rule> void Lane<F, rule>::write_errors() const {
  const auto dot = [&](const Vec *x, const F *y, Int channels) {
    Vec sum = {};
    for (Int j = 0; j * L < channels; ++j) sum += x[j] * part(y, channels, j);
    return total(sum);
  };
  for (Int c = 0; c < count; ++c) {
    const Int t = t0 + c, to = at_o(t);
    const F *v = p.v + Head(p.H, p.hv, h)(t) * p.V, *m = (p.m ? p.m : p.k) + at_m(t) * p.K;
    const Vec *dw = value.d_write + c * value.n, *d = error.d_read + c * key.n;
    if (p.d_v) put(dw, p.d_v + to * p.V, p.V, p.beta ? p.beta[at_beta(t)] : F(1));
    if (p.d_beta) p.d_beta[to] = dot(dw, v, p.V);
    if (p.d_erase) p.d_erase[to] = dot(d, m, p.K);
    F *d_m = p.m ? p.d_m : p.d_k;
    if (d_m) put(d, d_m + to * p.K, p.K, p.erase ? p.erase[at_erase(t)] : F(1), !p.m);
  }
}

extern "C" {
const char *delta_fields() { return NAMES(PROBLEM); }
void delta_float(const Problem<float> *p, int backward) { run<float, Rule::correct>(*p, backward); }
void delta_double(const Problem<double> *p, int backward) { run<double, Rule::correct>(*p, backward); }
}
