// The last query's output of the generalised delta rule without a state, and its gradients: the query runs back through tokens.
//
// With y = q after the last token, a token's value weighs y·k, and y ← D y + a (b·y) is what the state before it would be asked.
// The gradients run forward over the y that were kept.

#include "recall.h"

namespace {

template <class F> struct GeneralRecall : Recall<F> {
  using Base = Recall<F>;
  using Base::L, Base::p, Base::T, Base::reads, Base::rows, typename Base::Rows, typename Base::Vec;
  Buffer<Vec> moves;  // [T]: b·y

  explicit GeneralRecall(const Problem<F> &p) : Base(p), moves(p.offsets[1]) {}

  void operator()(Int job) {
    this->turn_to(job);
    if (this->nk == 1 && this->nv == 1) run<1, 1>();
    else run<0, 0>();
  }

  template <int NK, int NV> void run() {
    const Int nk = NK ? NK : this->nk, nv = NV ? NV : this->nv, count = this->count;
    const Rows q = rows(p.q, p.hq, p.K, 1), k = rows(p.k, p.hk, p.K, T), v = rows(p.v, p.hv, p.V, T);
    const Rows a = rows(p.a, p.ha, p.K, T), b = rows(p.b, p.hb, p.K, T), g = rows(p.g, p.hg, 1, T), gk = rows(p.gk, p.hgk, p.K, T);
    const bool backward = !p.o;
    alignas(64) F weight[3][L];
    Decay<F> decay{g, gk, count, {}};
    const auto each = [&](Int n, auto act) INLINE { Base::each(count, n, act); };
    const auto sums = [&](Int n, auto of) INLINE { return Base::sums(count, n, of); };

    Vec *y = this->a.data() + (backward ? T * L * nk : 0), *out = this->o.data();
    each(nk, [&](int r, Int j, Int i) INLINE { y[i] = F(p.scale) * q.get(r, 0, j); });
    std::fill_n(out, L * nv, Vec{});
    for (Int t = T - 1; t >= 0; --t) {
      reads[t] = sums(nk, [&](int r, Int j, Int i) INLINE { return y[i] * k.get(r, t, j); });
      moves[t] = sums(nk, [&](int r, Int j, Int i) INLINE { return y[i] * b.get(r, t, j); });
      store<F>(reads[t], weight[0], L), store<F>(moves[t], weight[1], L), decay.turn_to(t);
      if (!backward) each(nv, [&](int r, Int j, Int i) INLINE { out[i] += weight[0][r] * v.get(r, t, j); });
      Vec *next = backward ? y - L * nk : y;
      each(nk, [&](int r, Int j, Int i) INLINE { next[i] = decay(r, t, j, y[i]) + weight[1][r] * a.get(r, t, j); });
      y = next;
    }
    if (!backward) {
      const Rows o = rows(p.o, p.H, p.V, 1), end = rows(p.final, p.H, p.K, 1);
      each(nv, [&](int r, Int j, Int i) INLINE { o.put(r, 0, j, out[i]); });
      return each(nk, [&](int r, Int j, Int i) INLINE { end.put(r, 0, j, y[i]); });
    }

    const Rows d_q = rows(p.d_q, p.H, p.K, 1), d_k = rows(p.d_k, p.H, p.K, T), d_v = rows(p.d_v, p.H, p.V, T);
    const Rows d_a = rows(p.d_a, p.H, p.K, T), d_b = rows(p.d_b, p.H, p.K, T);
    const Rows d_g = rows(p.d_g, p.H, 1, T), d_gk = rows(p.d_gk, p.H, p.K, T);
    const Rows d_o = rows(p.d_o, p.H, p.V, 1), d_end = rows(p.d_final, p.H, p.K, 1);
    Vec *d = this->d_a.data();
    each(nk, [&](int r, Int j, Int i) INLINE { d[i] = d_end ? d_end.get(r, 0, j) : Vec{}; });
    each(nv, [&](int r, Int j, Int i) INLINE { out[i] = d_o.get(r, 0, j); });
    for (Int t = 0; t < T; ++t) {
      y += L * nk, decay.turn_to(t);
      store<F>(reads[t], weight[0], L), store<F>(moves[t], weight[1], L);
      if (d_a) each(nk, [&](int r, Int j, Int i) INLINE { d_a.put(r, t, j, weight[1][r] * d[i]); });
      if (d_v) each(nv, [&](int r, Int j, Int i) INLINE { d_v.put(r, t, j, weight[0][r] * out[i]); });
      store<F>(sums(nv, [&](int r, Int j, Int i) INLINE { return out[i] * v.get(r, t, j); }), weight[1], L);
      store<F>(sums(nk, [&](int r, Int j, Int i) INLINE { return d[i] * a.get(r, t, j); }), weight[2], L);
      each(nk, [&](int r, Int j, Int i) INLINE { d[i] = decay(r, t, j, d[i]); });
      if (d_g) d_g.put_column(sums(nk, [&](int, Int, Int i) INLINE { return y[i] * d[i]; }), t, count);
      each(nk, [&](int r, Int j, Int i) INLINE {
        if (d_gk) d_gk.put(r, t, j, y[i] * d[i]);
        if (d_k) d_k.put(r, t, j, weight[1][r] * y[i]);
        if (d_b) d_b.put(r, t, j, weight[2][r] * y[i]);
        d[i] += weight[1][r] * k.get(r, t, j) + weight[2][r] * b.get(r, t, j);
      });
    }
    if (d_q) each(nk, [&](int r, Int j, Int i) INLINE { d_q.put(r, 0, j, F(p.scale) * d[i]); });
  }
};

template <class F> void recall(const Problem<F> &p) {
  parallel((p.N * p.H + LANES<F> - 1) / LANES<F>, p.threads, [&] { return GeneralRecall<F>(p); });
}

}  // namespace

extern "C" {
const char *general_last_fields() { return NAMES(PROBLEM); }
void general_last_float(const Problem<float> *p) { recall(*p); }
void general_last_double(const Problem<double> *p) { recall(*p); }
}
