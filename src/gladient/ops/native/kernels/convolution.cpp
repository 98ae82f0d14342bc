// The short causal convolution before a scan on CPU cores, channel by channel: y_t = act(b + Σ_j w_j x_{t-j}), with w_0 the last tap.
//
// Channels lie side by side, and are the lanes; rows of tokens may lie apart, as parts of a wider projection. A job is a block
// of tokens. What the activation is taken of is computed again going backward: that costs less than to read it. A block then
// takes the few tokens behind it too, whose gradients reach it, and sums the gradients of weights for itself: they are added
// up in the order of blocks, whatever the number of threads.

#include "activation.h"

// Sizes; steps from token to token and from row to row of x; whether silu is applied; how many earlier tokens of its own
// sequence each token has, [B, T], null where a row is one sequence.
#define CONVOLUTION(INTEGER, REAL, INTEGERS, INPUT, OUTPUT)                                    \
  INTEGER(B) INTEGER(T) INTEGER(channels) INTEGER(taps) INTEGER(x_step) INTEGER(x_row)         \
  INTEGER(silu) INTEGER(threads)                                                               \
  INTEGERS(reach)                                                                              \
  INPUT(x) INPUT(weight) INPUT(bias) /* [B, T, channels], [channels, taps], [channels] */      \
  OUTPUT(o) INPUT(d_o) /* [B, T, channels] */                                                  \
  OUTPUT(d_x) OUTPUT(d_weight) OUTPUT(d_bias)                                                  \
  INTEGER(kept) OUTPUT(last) /* of one token: the tokens before it, [B, channels, kept], which it joins */

template <class F> struct Convolution {
  CONVOLUTION(INTEGER_FIELD, REAL_FIELD, INTEGERS_FIELD, INPUT_FIELD, OUTPUT_FIELD)
};

constexpr Int BLOCK = 64;  // tokens: of 2000 channels a block's rows stay in a cache of 2 MiB, and 3 tokens more are 5% of it

template <class F, int N> struct Taps {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>;

  const Convolution<F> &p;
  F *sums;  // [blocks, N + 1, channels]: gradients of weights and bias of every block; null going forward

  static Int blocks(const Convolution<F> &p) { return (p.T + BLOCK - 1) / BLOCK; }

  void operator()(Int job) const {
    for (Int c = 0; c < p.channels; c += L) {
      const Int lanes = std::min(L, p.channels - c);
      if (lanes == L) sums ? pass<true, true>(job, c, L) : pass<false, true>(job, c, L);
      else sums ? pass<true, false>(job, c, lanes) : pass<false, false>(job, c, lanes);
    }
  }

  // Down the tokens with the last N of x in registers; going backward, with the gradients of the last N, which grow until the
  // token that reads them last has come.
  template <bool Back, bool Whole> void pass(Int job, Int c, Int some) const {
    const Int lanes = Whole ? L : some, b = job / blocks(p), first = job % blocks(p) * BLOCK, end = std::min(first + BLOCK, p.T);
    const Int last = Back ? std::min(end + N - 1, p.T) : end, width = p.channels;
    const F *rows = p.x + b * p.x_row + c, *d_o = Back ? p.d_o + b * p.T * width + c : nullptr;
    F *o = Back ? p.d_x + b * p.T * width + c : p.o + b * p.T * width + c;
    Vec w[N] = {}, x[N] = {}, d_w[N] = {}, d_x[N] = {}, d_b = {};
    for (int j = 0; j < N; ++j)
      for (Int l = 0; l < lanes; ++l) w[j][l] = p.weight[(c + l) * N + N - 1 - j];
    for (int j = 0; j < N - 1 && first - 1 - j >= 0; ++j) x[j] = load(rows + (first - 1 - j) * p.x_step, lanes);
    const Vec bias = p.bias ? load(p.bias + c, lanes) : Vec{};
    for (Int t = first; t < last; ++t) {
      for (int j = N - 1; j > 0; --j) x[j] = x[j - 1];
      x[0] = load(rows + t * p.x_step, lanes);
      const Int seen = p.reach ? p.reach[b * p.T + t] : t;
      Vec y = bias;
      for (int j = 0; j < N; ++j)
        if (j <= seen) y += w[j] * x[j];
      if (!Back) {
        store<F>(p.silu ? y * sigmoid<F>(y) : y, o + t * width, lanes);
        continue;
      }
      Vec d = load(d_o + t * width, lanes);
      if (p.silu) d *= silu_slope<F>(y);
      for (int j = 0; j < N; ++j)
        if (j <= seen) d_x[j] += w[j] * d, d_w[j] += (t < end ? d : Vec{}) * x[j];
      if (t < end) d_b += d;
      if (p.d_x && t - N + 1 >= first) store<F>(d_x[N - 1], o + (t - N + 1) * width, lanes);
      for (int j = N - 1; j > 0; --j) d_x[j] = d_x[j - 1];
      d_x[0] = Vec{};
    }
    if (!Back) return;
    for (int j = 1; j < N && p.d_x; ++j)
      if (last - j >= first && last - j < end) store<F>(d_x[j], o + (last - j) * width, lanes);
    F *own = sums + job * (N + 1) * width + c;
    for (int j = 0; j < N; ++j) store<F>(d_w[j], own + j * width, lanes);
    store<F>(d_b, own + N * width, lanes);
  }
};

template <class F, int N> static void convolve(const Convolution<F> &p, bool back) {
  const Int jobs = p.B * Taps<F, N>::blocks(p), size = (N + 1) * p.channels;
  Buffer<F> sums(back ? jobs * size : 0, false);
  parallel(jobs, p.threads, [&] { return Taps<F, N>{p, back ? sums.data() : nullptr}; });
  if (!back) return;
  Buffer<double> totals(size);  // thousands of tokens end in one number
  for (Int job = 0; job < jobs; ++job)
    for (Int i = 0; i < size; ++i) totals[i] += double(sums[job * size + i]);
  for (Int c = 0; c < p.channels; ++c) {
    if (p.d_bias) p.d_bias[c] = F(totals[N * p.channels + c]);
    for (int j = 0; j < N && p.d_weight; ++j) p.d_weight[c * N + N - 1 - j] = F(totals[j * p.channels + c]);
  }
}

// As many taps as models have; the tokens of a window stand in registers, whose number is known to the compiler.
template <class F> static void convolve(const Convolution<F> &p, bool back) {
  switch (p.taps) {
    case 2: return convolve<F, 2>(p, back);
    case 3: return convolve<F, 3>(p, back);
    case 4: return convolve<F, 4>(p, back);
  }
}

// One token: T and steps are not looked at, and as many taps as kept tokens and one more are allowed.
template <class F> static void advance(const Convolution<F> &p) {
  constexpr Int L = LANES<F>;
  for (Int i = 0; i < p.B * p.channels; ++i) {
    const Int c = i % p.channels, n = p.taps - 1;
    const F *w = p.weight + c * p.taps;
    F *last = p.last + i * p.kept, y = p.bias ? p.bias[c] : F(0);
    for (Int j = 0; j < n; ++j) y += w[j] * last[p.kept - n + j];
    for (Int j = 1; j < p.kept; ++j) last[j - 1] = last[j];
    last[p.kept - 1] = p.x[i], p.o[i] = y + w[n] * p.x[i];
  }
  for (Int i = 0; i < p.B * p.channels && p.silu; i += L) {
    const Int lanes = std::min(L, p.B * p.channels - i);
    const auto y = load(p.o + i, lanes);
    store<F>(y * sigmoid<F>(y), p.o + i, lanes);
  }
}

extern "C" {
const char *convolution_step_fields() { return NAMES(CONVOLUTION); }
void convolution_step_float(const Convolution<float> *p) { advance(*p); }
void convolution_step_double(const Convolution<double> *p) { advance(*p); }
const char *convolution_fields() { return NAMES(CONVOLUTION); }
void convolution_float(const Convolution<float> *p, int backward) { convolve(*p, backward); }
void convolution_double(const Convolution<double> *p, int backward) { convolve(*p, backward); }
}
