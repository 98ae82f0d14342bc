// Norms of groups of channels on CPU cores, with a gate: o = w ⊙ n(x ⊙ act(z)), or w ⊙ n(x) ⊙ act(z), n(u) = u / √(mean u² + ε).
//
// Weights and gates may be absent, and a sum stand for the mean: keys of length 1. A job is a block of tokens, whose
// gradients of weights are summed apart and added up in the order of blocks, whatever the number of threads.

#include "activation.h"

enum Act { NONE, SILU, SIGMOID };

// Steps are those from token to token of x and of z; share is what a square weighs in the sum, 1 / size for a mean; `first` tells
// whether the gate comes before the norm.
#define NORM(INTEGER, REAL, INTEGERS, INPUT, OUTPUT)                                              \
  INTEGER(tokens) INTEGER(groups) INTEGER(size) INTEGER(x_step) INTEGER(z_step)                   \
  INTEGER(act) INTEGER(first) INTEGER(threads)                                                    \
  REAL(share) REAL(eps)                                                                           \
  INPUT(x) INPUT(z) INPUT(w) /* [tokens, groups, size] twice, [groups, size] */                   \
  OUTPUT(o) INPUT(d_o) OUTPUT(d_x) OUTPUT(d_z) OUTPUT(d_w)

template <class F> struct Norm {
  NORM(INTEGER_FIELD, REAL_FIELD, INTEGERS_FIELD, INPUT_FIELD, OUTPUT_FIELD)
};

constexpr Int BLOCK = 32;  // tokens: enough blocks for any number of threads, and weights' sums that cost little beside them

template <class F> struct Row {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>;

  const Norm<F> &p;
  F *sums;         // [blocks, groups, size]: gradients of weights
  Buffer<F> open;  // [size]: sigmoid(z), which is taken once

  Row(const Norm<F> &p, F *sums) : p(p), sums(sums), open(p.z ? p.size : 0) {}

  static Int blocks(const Norm<F> &p) { return (p.tokens + BLOCK - 1) / BLOCK; }

  INLINE Vec gate_at(const F *z, Int c, Int lanes) const {
    const Vec s = load(&open[c], lanes);
    return p.act == SILU ? load(z + c, lanes) * s : s;
  }
  // The gate's slope by z.
  INLINE Vec slope_at(const F *z, Int c, Int lanes) const {
    const Vec s = load(&open[c], lanes);
    return p.act == SILU ? s + load(z + c, lanes) * s * (F(1) - s) : s * (F(1) - s);
  }
  INLINE static F total(Vec x) {
    F sum = 0;
    for (int l = 0; l < L; ++l) sum += x[l];
    return sum;
  }
  template <class Do> INLINE void each(Do act) const {
    for (Int c = 0; c < p.size; c += L) act(c, std::min(L, p.size - c));
  }

  void operator()(Int job) {
    const Int end = std::min((job + 1) * BLOCK, p.tokens), width = p.groups * p.size;
    F *own = sums ? sums + job * width : nullptr;
    if (own) std::fill_n(own, width, F(0));
    for (Int t = job * BLOCK; t < end; ++t)
      for (Int g = 0; g < p.groups; ++g) {
        const Int at = g * p.size;
        const F *x = p.x + t * p.x_step + at, *z = p.z ? p.z + t * p.z_step + at : nullptr, *w = p.w ? p.w + at : nullptr;
        p.d_o ? backward(x, z, w, t * width + at, own ? own + at : nullptr) : forward(x, z, w, p.o + t * width + at);
      }
  }

  // 1 / √(share Σ u² + ε), where u are the first factors
  INLINE F inverse(const F *x, const F *z) const {
    Vec squares = {};
    if (z) each([&](Int c, Int lanes) INLINE { store<F>(sigmoid<F>(load(z + c, lanes)), &open[c], lanes); });
    each([&](Int c, Int lanes) INLINE {
      Vec u = load(x + c, lanes);
      if (z && p.first) u *= gate_at(z, c, lanes);
      squares += u * u;
    });
    return F(1) / std::sqrt(total(squares) * F(p.share) + F(p.eps));
  }

  void forward(const F *x, const F *z, const F *w, F *o) const {
    const F scale = inverse(x, z);
    each([&](Int c, Int lanes) INLINE {
      Vec y = load(x + c, lanes) * scale;
      if (z) y *= gate_at(z, c, lanes);
      if (w) y *= load(w + c, lanes);
      store<F>(y, o + c, lanes);
    });
  }

  // With r = 1 / √(…) and e the gradient of n(u): du = r (e - share r² (Σ e u) u).
  void backward(const F *x, const F *z, const F *w, Int at, F *own) const {
    const F *d_o = p.d_o + at, r = inverse(x, z);
    const bool ahead = z && p.first, behind = z && !p.first;
    Vec products = {};
    const auto parts = [&](Int c, Int lanes, Vec &u, Vec &gate, Vec &e) INLINE {
      u = load(x + c, lanes), e = load(d_o + c, lanes);
      if (z) gate = gate_at(z, c, lanes);
      if (ahead) u *= gate;
      if (w) e *= load(w + c, lanes);
      if (behind) e *= gate;
    };
    each([&](Int c, Int lanes) INLINE {
      Vec u, gate = {}, e;
      parts(c, lanes, u, gate, e);
      products += e * u;
    });
    const F along = F(p.share) * r * r * total(products);
    each([&](Int c, Int lanes) INLINE {
      Vec u, gate = {}, e;
      parts(c, lanes, u, gate, e);
      const Vec d_u = r * (e - along * u), upstream = load(d_o + c, lanes);
      if (p.d_x) store<F>(ahead ? d_u * gate : d_u, p.d_x + at + c, lanes);
      if (p.d_z) {
        const Vec by = ahead ? d_u * load(x + c, lanes) : upstream * r * u * (w ? load(w + c, lanes) : Vec{} + F(1));
        store<F>(by * slope_at(z, c, lanes), p.d_z + at + c, lanes);
      }
      if (own) store<F>(load(own + c, lanes) + upstream * r * u * (behind ? gate : Vec{} + F(1)), own + c, lanes);
    });
  }
};

template <class F> static void norm(const Norm<F> &p) {
  const Int jobs = Row<F>::blocks(p), width = p.groups * p.size;
  Buffer<F> sums(p.d_w ? jobs * width : 0, false);
  parallel(jobs, p.threads, [&] { return Row<F>(p, p.d_w ? sums.data() : nullptr); });
  if (!p.d_w) return;
  Buffer<double> totals(width);  // thousands of tokens end in one number
  for (Int job = 0; job < jobs; ++job)
    for (Int c = 0; c < width; ++c) totals[c] += double(sums[job * width + c]);
  for (Int c = 0; c < width; ++c) p.d_w[c] = F(totals[c]);
}

extern "C" {
const char *norm_fields() { return NAMES(NORM); }
void norm_float(const Norm<float> *p) { norm(*p); }
void norm_double(const Norm<double> *p) { norm(*p); }
}
