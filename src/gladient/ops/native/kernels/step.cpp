// One token for every sequence: decoding. The state is read, decayed, written to and read out in one pass.

#include "problem.h"

namespace {

constexpr Int LARGE = Int(1) << 16;  // entries of all states from which a second thread is worth its start

template <class F> struct Step {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>;

  const Problem<F> &p;
  std::vector<F> decay, q, k;  // [K]: of the key channels' gates, the scaled query, the key

  explicit Step(const Problem<F> &p) : p(p), decay(padded()), q(padded()), k(padded()) {}
  Int padded() const { return (p.K + L - 1) / L * L; }
  static Int lanes(Int channels, Int j) { return std::clamp<Int>(channels - j, 0, L); }
  Int head(Int n, Int h, Int heads) const { return n * heads + h / (p.H / heads); }

  void operator()(Int job) {
    const Int n = job / p.H, h = job % p.H;
    const F *from_q = p.q + head(n, h, p.hq) * p.K, *from_k = p.k + head(n, h, p.hk) * p.K;
    const F *gk = p.gk ? p.gk + head(n, h, p.hgk) * p.K : nullptr, g = p.g ? p.g[head(n, h, p.hg)] : F(0);
    for (Int i = 0; i < p.K; i += L) {
      const Int count = lanes(p.K, i);
      const Vec log_gate = g + (gk ? load(gk + i, count) : Vec{}), here = load(from_q + i, count);
      store<F>(exponential<F>(log_gate), decay.data() + i, L);
      store<F>(here * F(p.scale), q.data() + i, L), store<F>(load(from_k + i, count), k.data() + i, L);
    }
    for (Int first = 0; first < p.V;) {
      const Int left = (p.V - first + L - 1) / L;
      if (left >= 4) tile<4>(n, h, first), first += 4 * L;
      else if (left >= 2) tile<2>(n, h, first), first += 2 * L;
      else tile<1>(n, h, first), first += L;
    }
  }

  // J vectors of value channels, all rows of the state.
  template <int J> void tile(Int n, Int h, Int first) {
    if (p.G || p.A) rows<J, true>(n, h, first);
    else rows<J, false>(n, h, first);
  }
  template <int J, bool FULL> void rows(Int n, Int h, Int first) {
    const Int last = lanes(p.V, first + (J - 1) * L), at = (n * p.H + h) * p.K * p.V + first;
    const auto take = [&](const F *x, int j) INLINE { return load(x + j * L, j < J - 1 ? L : last); };

    const F *G = p.G ? p.G + head(n, h, p.hG) * p.K * p.V + first : nullptr;
    const F *A = p.A ? p.A + n * p.A_step + h / (p.H / p.hA) * p.K * p.V + first : nullptr;
    const F *from = p.initial ? p.initial + at : nullptr;
    F *to = p.final ? p.final + at : nullptr;
    const bool before = p.before;
    const Int V = p.V;
    Vec v[J], gate[J], dt[J], o[J] = {};
    for (int j = 0; j < J; ++j) {
      v[j] = take(p.v + head(n, h, p.hv) * V + first, j);
      gate[j] = p.gv ? exponential<F>(take(p.gv + head(n, h, p.hgv) * V + first, j)) : Vec{} + F(1);
      dt[j] = p.dt ? take(p.dt + head(n, h, p.hdt) * V + first, j) : Vec{};
    }
    for (Int i = 0; i < p.K; ++i) {
      const Vec d = Vec{} + decay[i], qi = Vec{} + q[i], ki = Vec{} + k[i];
      for (int j = 0; j < J; ++j) {
        const Vec old = from ? take(from + i * V, j) : Vec{};
        Vec kept = d * gate[j];
        if constexpr (FULL) {
          if (G) kept *= exponential<F>(take(G + i * V, j));
          if (A) kept *= exponential<F>(take(A + i * V, j) * dt[j]);
        }
        const Vec now = kept * old + ki * v[j];
        o[j] += qi * (before ? old : now);
        if (to) store<F>(now, to + i * V + j * L, j < J - 1 ? L : last);
      }
    }
    const F own = p.bonus ? bonus(n, h) : F(0);
    for (int j = 0; j < J; ++j) store<F>(o[j] + own * v[j], p.o + (n * p.H + h) * p.V + first + j * L, j < J - 1 ? L : last);
  }

  F bonus(Int n, Int h) const {
    const F *u = p.bonus + n * p.bonus_step + h * p.K;
    F sum = 0;
    for (Int i = 0; i < p.K; ++i) sum += q[i] * u[i] * k[i];
    return sum;
  }
};

template <class F> void step(const Problem<F> &p) {
  const Int threads = p.N * p.H * p.K * p.V >= LARGE ? p.threads : 1;
  parallel(p.N * p.H, threads, [&] { return Step<F>(p); });
}

}  // namespace

extern "C" {
const char *step_fields() { return NAMES(PROBLEM); }
void step_float(const Problem<float> *p) { step(*p); }
void step_double(const Problem<double> *p) { step(*p); }
}
