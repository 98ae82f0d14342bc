// The last query's output of the delta rule without a state, and its gradients: the query runs back through the tokens.
//
// With a = q after the last token, a token is read by p = a·k, which adds p β v to the output, and passes on
// a ← D (a - p e m): what the state before it would be asked. The gradients run forward over the a that were kept.

#include "recall.h"

namespace {

template <class F> struct DeltaRecall : Recall<F> {
  using Base = Recall<F>;
  using Base::Base, Base::L, Base::p, Base::T, Base::reads, Base::rows, typename Base::Rows, typename Base::Vec;

  void operator()(Int job) {
    this->turn_to(job);
    if (this->nk == 1 && this->nv == 1) run<1, 1>();
    else run<0, 0>();
  }

  template <int NK, int NV> void run() {
    const Int nk = NK ? NK : this->nk, nv = NV ? NV : this->nv, count = this->count;
    const Rows q = rows(p.q, p.hq, p.K, 1), k = rows(p.k, p.hk, p.K, T), v = rows(p.v, p.hv, p.V, T);
    const Rows m = p.m ? rows(p.m, p.hm, p.K, T) : k, beta = rows(p.beta, p.hbeta, 1, T), erase = rows(p.erase, p.herase, 1, T);
    const Rows g = rows(p.g, p.hg, 1, T), gk = rows(p.gk, p.hgk, p.K, T);
    const bool backward = !p.o;
    alignas(64) F scalar[2][L];
    Decay<F> decay{g, gk, count, {}};
    const auto each = [&](Int n, auto act) INLINE { Base::each(count, n, act); };
    const auto sums = [&](Int n, auto of) INLINE { return Base::sums(count, n, of); };
    const auto or_one = [&](const Rows &x, Int t) INLINE { return x ? x.column(t, count) : Vec{} + F(1); };

    Vec *at = this->a.data() + (backward ? T * L * nk : 0), *out = this->o.data();
    each(nk, [&](int r, Int j, Int i) INLINE { at[i] = F(p.scale) * q.get(r, 0, j); });
    std::fill_n(out, L * nv, Vec{});
    for (Int t = T - 1; t >= 0; --t) {
      reads[t] = sums(nk, [&](int r, Int j, Int i) INLINE { return at[i] * k.get(r, t, j); });
      if (!backward) {
        store<F>(reads[t] * or_one(beta, t), scalar[0], L);
        each(nv, [&](int r, Int j, Int i) INLINE { out[i] += scalar[0][r] * v.get(r, t, j); });
      }
      store<F>(reads[t] * or_one(erase, t), scalar[0], L), decay.turn_to(t);
      Vec *next = backward ? at - L * nk : at;
      each(nk, [&](int r, Int j, Int i) INLINE { next[i] = decay(r, t, j, at[i] - scalar[0][r] * m.get(r, t, j)); });
      at = next;
    }
    if (!backward) {
      const Rows o = rows(p.o, p.H, p.V, 1), end = rows(p.final, p.H, p.K, 1);
      each(nv, [&](int r, Int j, Int i) INLINE { o.put(r, 0, j, out[i]); });
      return each(nk, [&](int r, Int j, Int i) INLINE { end.put(r, 0, j, at[i]); });
    }

    const Rows d_k = rows(p.d_k, p.H, p.K, T), d_v = rows(p.d_v, p.H, p.V, T), d_m = rows(p.d_m, p.H, p.K, T);
    const Rows d_beta = rows(p.d_beta, p.H, 1, T), d_erase = rows(p.d_erase, p.H, 1, T), d_q = rows(p.d_q, p.H, p.K, 1);
    const Rows d_g = rows(p.d_g, p.H, 1, T), d_gk = rows(p.d_gk, p.H, p.K, T);
    const Rows d_o = rows(p.d_o, p.H, p.V, 1), d_end = rows(p.d_final, p.H, p.K, 1);
    Vec *d = this->d_a.data();
    each(nk, [&](int r, Int j, Int i) INLINE { d[i] = d_end ? d_end.get(r, 0, j) : Vec{}; });
    each(nv, [&](int r, Int j, Int i) INLINE { out[i] = d_o.get(r, 0, j); });
    for (Int t = 0; t < T; ++t) {
      if (d_g) d_g.put_column(sums(nk, [&](int, Int, Int i) INLINE { return at[i] * d[i]; }), t, count);
      if (d_gk) each(nk, [&](int r, Int j, Int i) INLINE { d_gk.put(r, t, j, at[i] * d[i]); });
      at += L * nk, decay.turn_to(t);
      each(nk, [&](int r, Int j, Int i) INLINE { d[i] = decay(r, t, j, d[i]); });
      const Vec written = sums(nv, [&](int r, Int j, Int i) INLINE { return out[i] * v.get(r, t, j); });
      const Vec erased = sums(nk, [&](int r, Int j, Int i) INLINE { return d[i] * m.get(r, t, j); });
      const Vec b = or_one(beta, t), e = or_one(erase, t);
      d_beta.put_column(reads[t] * written, t, count), d_erase.put_column(-(reads[t] * erased), t, count);
      store<F>(reads[t] * b, scalar[0], L);
      if (d_v) each(nv, [&](int r, Int j, Int i) INLINE { d_v.put(r, t, j, scalar[0][r] * out[i]); });
      store<F>(b * written - e * erased, scalar[0], L), store<F>(-(reads[t] * e), scalar[1], L);
      each(nk, [&](int r, Int j, Int i) INLINE {
        const Vec of_m = scalar[1][r] * d[i], of_k = scalar[0][r] * at[i];
        if (d_m) d_m.put(r, t, j, of_m);
        if (d_k) d_k.put(r, t, j, p.m ? of_k : of_k + of_m);
        d[i] += scalar[0][r] * k.get(r, t, j);
      });
    }
    if (d_q) each(nk, [&](int r, Int j, Int i) INLINE { d_q.put(r, 0, j, F(p.scale) * d[i]); });
  }
};

template <class F> void recall(const Problem<F> &p) {
  parallel((p.N * p.H + LANES<F> - 1) / LANES<F>, p.threads, [&] { return DeltaRecall<F>(p); });
}

}  // namespace

extern "C" {
const char *delta_last_fields() { return NAMES(PROBLEM); }
void delta_last_float(const Problem<float> *p) { recall(*p); }
void delta_last_double(const Problem<double> *p) { recall(*p); }
}
