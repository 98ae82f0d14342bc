// The last query's output of the delta rule without a state, and its gradients: the query runs back through the tokens.
//
// With a = q after the last token, a token is read by p = a·k, which adds p β v to the output, and passes on
// a ← D (a - p e m): what the state before it would be asked. The gradients run forward over the a that were kept.
// The fields are those of problem.h: all N rows have offsets[1] tokens and one query, o is [N, H, V], `final` the a before
// the first token, [N, H, K], which the initial state is read with. As many heads as a vector has lanes go side by side;
// what is summed over channels has a lane for each.

#include "problem.h"

namespace {

template <class F> struct Recall {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>;
  const Problem<F> &p;
  const Int T, nk, nv;
  std::vector<Vec> a, d_a;     // [T + 1, L, nk], or [L, nk] where none are kept; [L, nk]
  std::vector<Vec> o, reads;   // [L, nv]; [T], p
  Int first = 0, count = 0;    // the heads of this job

  // One tensor [N, T, heads, channels], for the heads of the job.
  struct Rows {
    F *x[L] = {};
    Int step = 0, channels = 0;
    F *at(int r, Int t, Int j) const { return x[r] + t * step + j * L; }
    Int lanes(Int j) const { return std::min(channels - j * L, L); }
    Vec get(int r, Int t, Int j) const { return load<F>(at(r, t, j), lanes(j)); }
    void put(int r, Int t, Int j, Vec y) const { store<F>(y, at(r, t, j), lanes(j)); }
    Vec column(Int t, Int count) const {
      F y[L] = {};
      for (int r = 0; r < count; ++r) y[r] = *at(r, t, 0);
      return load<F>(y, L);
    }
    void put_column(Vec x, Int t, Int count) const {
      F y[L];
      store<F>(x, y, L);
      for (int r = 0; r < count && step; ++r) *at(r, t, 0) = y[r];
    }
    explicit operator bool() const { return step; }
  };
  Rows rows(const F *x, Int heads, Int channels, Int tokens) const {
    Rows y;
    if (!x) return y;
    y.step = heads * channels, y.channels = channels;
    for (Int r = 0; r < count; ++r) {
      const Int n = (first + r) / p.H, h = (first + r) % p.H;
      y.x[r] = const_cast<F *>(x) + Head(p.H, heads, h)(n * tokens) * channels;
    }
    return y;
  }

  explicit Recall(const Problem<F> &p)
      : p(p), T(p.offsets[1]), nk((p.K + L - 1) / L), nv((p.V + L - 1) / L), a((p.o ? 1 : T + 1) * L * nk), d_a(L * nk),
        o(L * nv), reads(T) {}

  void operator()(Int job) {
    first = job * L, count = std::min(L, p.N * p.H - first);
    if (nk == 1 && nv == 1) run<1, 1>();
    else run<0, 0>();
  }

  template <int NK, int NV> void run() {
    const Int nk = NK ? NK : this->nk, nv = NV ? NV : this->nv, count = this->count;
    const Rows q = rows(p.q, p.hq, p.K, 1), k = rows(p.k, p.hk, p.K, T), v = rows(p.v, p.hv, p.V, T);
    const Rows m = p.m ? rows(p.m, p.hm, p.K, T) : k, beta = rows(p.beta, p.hbeta, 1, T), erase = rows(p.erase, p.herase, 1, T);
    const Rows g = rows(p.g, p.hg, 1, T), gk = rows(p.gk, p.hgk, p.K, T);
    const bool backward = !p.o;
    alignas(64) F scalar[2][L];
    const auto each = [&](Int n, auto f) INLINE {
      for (int r = 0; r < count; ++r)
        for (Int j = 0; j < n; ++j) f(r, j, r * n + j);
    };
    const auto sums = [&](Int n, auto f) INLINE {  // over channels
      return row_sums<F>([&](int r) INLINE {
        Vec sum = {};
        for (Int j = 0; j < n; ++j) sum += f(r, j, r * n + j);
        return sum;
      }, count);
    };
    const auto or_one = [&](const Rows &x, Int t) INLINE { return x ? x.column(t, count) : Vec{} + F(1); };
    const auto decay = [&](Int t) INLINE {
      store<F>(g ? exponential<F>(g.column(t, count)) : Vec{} + F(1), scalar[1], L);
    };
    const auto decayed = [&](int r, Int t, Int j, Vec x) INLINE {
      return gk ? x * (scalar[1][r] * exponential<F>(gk.get(r, t, j))) : x * scalar[1][r];
    };

    Vec *at = a.data() + (backward ? T * L * nk : 0), *out = o.data();
    each(nk, [&](int r, Int j, Int i) INLINE { at[i] = F(p.scale) * q.get(r, 0, j); });
    std::fill(o.begin(), o.end(), Vec{});
    for (Int t = T - 1; t >= 0; --t) {
      reads[t] = sums(nk, [&](int r, Int j, Int i) INLINE { return at[i] * k.get(r, t, j); });
      if (!backward) {
        store<F>(reads[t] * or_one(beta, t), scalar[0], L);
        each(nv, [&](int r, Int j, Int i) INLINE { out[i] += scalar[0][r] * v.get(r, t, j); });
      }
      store<F>(reads[t] * or_one(erase, t), scalar[0], L), decay(t);
      Vec *next = backward ? at - L * nk : at;
      each(nk, [&](int r, Int j, Int i) INLINE { next[i] = decayed(r, t, j, at[i] - scalar[0][r] * m.get(r, t, j)); });
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
    Vec *d = d_a.data();
    each(nk, [&](int r, Int j, Int i) INLINE { d[i] = d_end ? d_end.get(r, 0, j) : Vec{}; });
    each(nv, [&](int r, Int j, Int i) INLINE { out[i] = d_o.get(r, 0, j); });
    for (Int t = 0; t < T; ++t) {
      if (d_g) d_g.put_column(sums(nk, [&](int, Int, Int i) INLINE { return at[i] * d[i]; }), t, count);
      if (d_gk) each(nk, [&](int r, Int j, Int i) INLINE { d_gk.put(r, t, j, at[i] * d[i]); });
      at += L * nk, decay(t);
      each(nk, [&](int r, Int j, Int i) INLINE { d[i] = decayed(r, t, j, d[i]); });
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
  parallel((p.N * p.H + LANES<F> - 1) / LANES<F>, p.threads, [&] { return Recall<F>(p); });
}

}  // namespace

extern "C" {
const char *delta_last_fields() { return NAMES(PROBLEM); }
void delta_last_float(const Problem<float> *p) { recall(*p); }
void delta_last_double(const Problem<double> *p) { recall(*p); }
}
