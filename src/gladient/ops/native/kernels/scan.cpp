// Gated linear attention on CPU cores: lane.h, and the bonus that outputs add for their own token when they read before its write.

#include "lane.h"

// o_t += scale (q_t · u ⊙ k_t) v_t
template <class F, Rule rule> void Lane<F, rule>::add_bonus(Int begin, Int count) const {
  for (Int t = begin; t < begin + count; ++t) {
    const F *q = p.q + at_q(t) * p.K, *k = p.k + at_k(t) * p.K, *v = p.v + at_v(t) * p.V;
    F *o = p.o + at_o(t) * p.V;
    Vec sum = {};
    for (Int j = 0; j < key.n; ++j) sum += part(q, p.K, j) * part(k, p.K, j) * bonus[j];
    const F b = F(p.scale) * total(sum);
    for (Int j = 0; j < value.n; ++j) {
      const Vec x = b * part(v, value.channels, j);
      put(&x, o + j * L, lanes(value.channels, j), 1, true);
    }
  }
}
// Its gradients: with b = scale q·(u ⊙ k) and e = scale d_o·v, d_v += b d_o, and of q, k and u in b those times e.
template <class F, Rule rule> void Lane<F, rule>::add_bonus_gradients(Int begin, Int count) {
  for (Int t = begin; t < begin + count; ++t) {
    const F *q = p.q + at_q(t) * p.K, *k = p.k + at_k(t) * p.K, *v = p.v + at_v(t) * p.V, *d_o = p.d_o + at_o(t) * p.V;
    const auto give = [&](F *y, Int channels, Int j, Vec x) {
      if (y) put(&x, y + at_o(t) * channels + j * L, lanes(channels, j), 1, true);
    };
    Vec sums[2] = {};
    for (Int j = 0; j < key.n; ++j) sums[0] += part(q, p.K, j) * part(k, p.K, j) * bonus[j];
    for (Int j = 0; j < value.n; ++j) sums[1] += part(d_o, p.V, j) * part(v, p.V, j);
    const F b = F(p.scale) * total(sums[0]), e = F(p.scale) * total(sums[1]);
    for (Int j = 0; j < value.n; ++j) give(p.d_v, p.V, j, b * part(d_o, p.V, j));
    for (Int j = 0; j < key.n; ++j) {
      const Vec x = part(q, p.K, j), y = part(k, p.K, j);
      give(p.d_q, p.K, j, e * bonus[j] * y), give(p.d_k, p.K, j, e * bonus[j] * x), d_bonus[j] += e * x * y;
    }
  }
}

extern "C" {
const char *scan_fields() { return NAMES(PROBLEM); }
void scan_float(const Problem<float> *p, int backward) { run<float, Rule::add>(*p, backward); }
void scan_double(const Problem<double> *p, int backward) { run<double, Rule::add>(*p, backward); }
}
