// One token of Mamba and Mamba-2 in the layout of their caches, a state of [V, K]: S ← exp(A Δ) ⊙ S + Δ x B', o = S C + D x, and its gate.
//
// With step sizes softplus(dt + bias). A job is as many value channels as a vector has lanes: the state passes through the
// registers once, key channels are the lanes, and the sums over them are added up in a square. Gates are kept as keep + change
// (gate.h), and one of 0 leaves nothing, whatever was there.

#include "activation.h"
#include "gate.h"

// N rows of H heads of P value and K key channels; B and C have `groups` of them. With `shared` a head has one step and one
// rate, [H], else each value channel has its step, [H, P], and each entry its rate, [H, P, K]; `D` is like the steps.
#define SELECTIVE(INTEGER, REAL, INTEGERS, INPUT, OUTPUT)                                        \
  INTEGER(N) INTEGER(H) INTEGER(P) INTEGER(K) INTEGER(groups)                                    \
  INTEGER(shared) INTEGER(softplus) INTEGER(threads)                                             \
  INPUT(x) INPUT(dt) INPUT(bias) INPUT(A) INPUT(B) INPUT(C) INPUT(D) INPUT(z)                    \
  OUTPUT(state) OUTPUT(o)

template <class F> struct Selective {
  SELECTIVE(INTEGER_FIELD, REAL_FIELD, INTEGERS_FIELD, INPUT_FIELD, OUTPUT_FIELD)
};

template <class F> struct Channels {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>;

  const Selective<F> &p;

  static Int tiles(const Selective<F> &p) { return (p.P + L - 1) / L; }

  Vec steps(Int n, Int at, Int rows) const {
    const F *dt = p.dt + n * (p.shared ? p.H : p.H * p.P) + at;
    Vec x = load(dt, rows);
    if (p.bias) x += load(p.bias + at, rows);
    return p.softplus ? softplus<F>(x) : x;
  }

  void operator()(Int job) const {
    const Int first = job % tiles(p) * L, head = job / tiles(p), n = head / p.H, h = head % p.H, rows = std::min(L, p.P - first);
    const Int keys = (n * p.groups + h / (p.H / p.groups)) * p.K, at = head * p.P + first;
    const Int own = p.shared ? h : h * p.P + first, some = p.shared ? 1 : rows;
    const Vec dt = steps(n, own, some), D = p.D ? load(p.D + own, some) : Vec{};
    Vec sums[L] = {}, keep = {}, change = {};
    if (p.shared) split<F>(Vec{} + finite<F>(Vec{} + p.A[h])[0] * dt[0], keep, change);
    for (Int r = 0; r < rows; ++r) {
      const F step = dt[p.shared ? 0 : r];
      F *state = p.state + (at + r) * p.K;
      for (Int k = 0; k < p.K; k += L) {
        const Int lanes = std::min(L, p.K - k);
        if (!p.shared) split<F>(finite<F>(load(p.A + (own + r) * p.K + k, lanes)) * step, keep, change);
        const Vec old = load(state + k, lanes), left = keep != Vec{} ? old : Vec{};
        const Vec now = keep * left + (change * left + step * p.x[at + r] * load(p.B + keys + k, lanes));
        store<F>(now, state + k, lanes);
        sums[r] += now * load(p.C + keys + k, lanes);
      }
    }
    Vec o = row_sums<F>([&](int r) { return sums[r]; }) + (p.shared ? Vec{} + D[0] : D) * load(p.x + at, rows);
    if (p.z) {
      const Vec z = load(p.z + at, rows);
      o *= z * sigmoid<F>(z);
    }
    store<F>(o, p.o + at, rows);
  }
};

template <class F> static void selective(const Selective<F> &p) {
  const bool small = p.N * p.H * p.P * p.K < 1 << 16;  // 256 KiB in float: done before other threads would wake
  parallel(p.N * p.H * Channels<F>::tiles(p), small ? 1 : p.threads, [&] { return Channels<F>{p}; });
}

extern "C" {
const char *selective_fields() { return NAMES(SELECTIVE); }
void selective_float(const Selective<float> *p) { selective(*p); }
void selective_double(const Selective<double> *p) { selective(*p); }
}
