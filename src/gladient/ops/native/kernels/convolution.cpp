// The short causal convolution before a scan on CPU cores, channel by channel: y_t = act(b + Σ_j w_j x_{t-j}), with w_0 the last tap.
//
// Channels lie side by side, and are the lanes; rows of tokens may lie apart, as parts of a wider projection. A job is a block
// of tokens. What the activation is taken of is computed again going backward: it costs less than to read it. A block then
// takes the few tokens behind it, too, whose gradients reach it, and sums the gradients of weights for itself: they are added
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
  OUTPUT(d_x) OUTPUT(d_weight) OUTPUT(d_bias)

template <class F> struct Convolution {
  CONVOLUTION(INTEGER_FIELD, REAL_FIELD, INTEGERS_FIELD, INPUT_FIELD, OUTPUT_FIELD)
};

constexpr Int BLOCK = 64;  // tokens: of 2000 channels a block's rows stay in a cache of 2 MiB, and 3 tokens more are 5% of it

template <class F> struct Taps {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>;

  const Convolution<F> &p;
  const F *w;        // [taps, channels]: w_0 first
  F *sums;           // [blocks, taps + 1, channels]: gradients of weights and bias of every block
  Buffer<Vec> d_sum; // [BLOCK + taps]: gradients of what the activation is taken of

  Taps(const Convolution<F> &p, const F *w, F *sums) : p(p), w(w), sums(sums), d_sum(sums ? BLOCK + p.taps : 0) {}

  static Int blocks(const Convolution<F> &p) { return (p.T + BLOCK - 1) / BLOCK; }

  Int seen(Int b, Int t) const { return std::min(p.reach ? p.reach[b * p.T + t] : t, p.taps - 1); }
  const F *at(Int b, Int t) const { return p.x + b * p.x_row + t * p.x_step; }

  INLINE Vec sum(Int b, Int t, Int c, Int lanes) const {
    Vec y = p.bias ? load(p.bias + c, lanes) : Vec{};
    for (Int j = 0, n = seen(b, t); j <= n; ++j) y += load(w + j * p.channels + c, lanes) * load(at(b, t - j) + c, lanes);
    return y;
  }

  void operator()(Int job) {
    const Int b = job / blocks(p), first = job % blocks(p) * BLOCK, end = std::min(first + BLOCK, p.T);
    if (sums) return backward(job, b, first, end);
    for (Int t = first; t < end; ++t)
      for (Int c = 0; c < p.channels; c += L) {
        const Int lanes = std::min(L, p.channels - c);
        const Vec y = sum(b, t, c, lanes);
        store<F>(p.silu ? y * sigmoid<F>(y) : y, p.o + (b * p.T + t) * p.channels + c, lanes);
      }
  }

  void backward(Int job, Int b, Int first, Int end) {
    const Int last = std::min(end + p.taps - 1, p.T);
    F *own = sums + job * (p.taps + 1) * p.channels;
    for (Int c = 0; c < p.channels; c += L) {
      const Int lanes = std::min(L, p.channels - c);
      for (Int t = first; t < last; ++t) {
        Vec d = load(p.d_o + (b * p.T + t) * p.channels + c, lanes);
        if (p.silu) d *= silu_slope<F>(sum(b, t, c, lanes));
        d_sum[t - first] = d;
      }
      for (Int j = 0; j <= p.taps; ++j) {
        Vec total = {};
        for (Int t = first; t < end; ++t)
          if (j == p.taps) total += d_sum[t - first];
          else if (j <= seen(b, t)) total += d_sum[t - first] * load(at(b, t - j) + c, lanes);
        store<F>(total, own + j * p.channels + c, lanes);
      }
      for (Int t = first; t < end && p.d_x; ++t) {
        Vec d = {};
        for (Int j = 0; j < p.taps && t + j < p.T; ++j)
          if (j <= seen(b, t + j)) d += load(w + j * p.channels + c, lanes) * d_sum[t + j - first];
        store<F>(d, p.d_x + (b * p.T + t) * p.channels + c, lanes);
      }
    }
  }
};

template <class F> static void convolve(const Convolution<F> &p, bool back) {
  const Int jobs = p.B * Taps<F>::blocks(p), size = (p.taps + 1) * p.channels;
  Buffer<F> w(p.taps * p.channels, false), sums(back ? jobs * size : 0, false);
  for (Int c = 0; c < p.channels; ++c)
    for (Int j = 0; j < p.taps; ++j) w[j * p.channels + c] = p.weight[c * p.taps + p.taps - 1 - j];
  parallel(jobs, p.threads, [&] { return Taps<F>(p, w.data(), back ? sums.data() : nullptr); });
  for (Int c = 0; c < p.channels && back; ++c)
    for (Int j = 0; j <= p.taps; ++j) {
      double total = 0;  // one number for thousands of tokens
      for (Int job = 0; job < jobs; ++job) total += double(sums[job * size + j * p.channels + c]);
      if (j == p.taps) { if (p.d_bias) p.d_bias[c] = F(total); }
      else if (p.d_weight) p.d_weight[c * p.taps + p.taps - 1 - j] = F(total);
    }
}

extern "C" {
const char *convolution_fields() { return NAMES(CONVOLUTION); }
void convolution_float(const Convolution<float> *p, int backward) { convolve(*p, backward); }
void convolution_double(const Convolution<double> *p, int backward) { convolve(*p, backward); }
}
