// A last query that is led back through the tokens, without a state (delta_last.cpp, general_last.cpp).
//
// The fields are those of problem.h: all N rows have offsets[1] tokens and one query, o is [N, H, V], `final` what the state
// before the first token is read with, [N, H, K]. As many heads as a vector has lanes go side by side; what is summed over
// channels has a lane for each.

#pragma once

#include "problem.h"

template <class F> struct Recall {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>;
  const Problem<F> &p;
  const Int T, nk, nv;
  Buffer<Vec> a, d_a;     // [T + 1, L, nk], or [L, nk] where none are kept; [L, nk]: the query on its way, its gradient
  Buffer<Vec> o, reads;   // [L, nv]; [T], the weights of the tokens' values
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
  void turn_to(Int job) { first = job * L, count = std::min(L, p.N * p.H - first); }

  template <class Do> INLINE static void each(Int count, Int n, Do act) {
    for (int r = 0; r < count; ++r)
      for (Int j = 0; j < n; ++j) act(r, j, r * n + j);
  }
  template <class Of> INLINE static Vec sums(Int count, Int n, Of of) {  // over channels
    return row_sums<F>([&](int r) INLINE {
      Vec sum = {};
      for (Int j = 0; j < n; ++j) sum += of(r, j, r * n + j);
      return sum;
    }, count);
  }
};

// One exponential for all channels of a head, times one for each channel.
template <class F> struct Decay {
  using Rows = typename Recall<F>::Rows;
  using Vec = typename Vector<F>::type;
  const Rows &g, &gk;
  const Int count;
  alignas(64) F scalar[LANES<F>];
  void turn_to(Int t) { store<F>(g ? exponential<F>(g.column(t, count)) : Vec{} + F(1), scalar, LANES<F>); }
  INLINE Vec operator()(int r, Int t, Int j, Vec x) const {
    return gk ? x * (scalar[r] * exponential<F>(gk.get(r, t, j))) : x * scalar[r];
  }
};
