// One token per sequence, as decoding takes them: S ← exp(log gates) ⊙ S + k v', and the output that reads it. The delta rule
// writes β v - (exp(log gates) ⊙ S)ᵀ m for v, with m the key that erases. The generalised one adds b (Sᵀ a)ᵀ.
//
// The fields are those of whole sequences (problem.h) with a token in each of N rows; offsets and gradients are not looked
// at. A job is a tile of the value channels of one head of one row, whose state passes through the registers once: it may
// be overwritten in place. The log gates of an entry are added up before their exponential is taken, which stays apart as
// keep + change (gate.h): a gate near 1, rounded, would drift over thousands of tokens. A gate of 0 leaves nothing, whatever
// was there: 0 times infinity would be NaN.

#include "gate.h"
#include "problem.h"

enum class Gates { rows, lanes, entries };  // where the gate of an entry varies: with its key channel, its value channel, both

template <class F> static Gates gates_of(const Problem<F> &p) {
  if (p.G || p.A || (p.gk && p.gv)) return Gates::entries;
  return p.gv ? Gates::lanes : Gates::rows;
}

template <class F> struct Token {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>;
  static constexpr int wide = 4;  // vectors of value channels in a tile

  const Problem<F> &p;
  Buffer<F> rows, keep, change;  // [K] filled up to whole vectors: log gates that all value channels share, and their exponentials
  Buffer<F> error;               // [K]: m
  Int head = -1, n = 0, h = 0;        // the head of all rows that they belong to
  F own = 0;                          // Σ q u k, the weight of the token's own value
  F beta = 1;
  alignas(64) F nowhere[wide * L] = {}, ignored[wide * L];  // a row of the state where there is none
  const F *q = nullptr, *k = nullptr, *a = nullptr, *b = nullptr;

  explicit Token(const Problem<F> &p) : p(p), rows(padded(p)), keep(padded(p)), change(padded(p)), error(padded(p)) {}
  static Int padded(const Problem<F> &p) { return (p.K + L - 1) / L * L; }
  static Int tiles(const Problem<F> &p) { return (p.V + wide * L - 1) / (wide * L); }

  void operator()(Int job) {
    const Int all = tiles(p), first = job % all * wide * L, count = std::min(p.V - first, wide * L);
    if (job / all != head) turn_to(job / all);
    if (count == wide * L) return read<wide, true>(first, L);
    Int j = first;
    for (; j + L <= p.V; j += L) read<1, true>(j, L);
    if (j < p.V) read<1, false>(j, p.V - j);
  }

  Int own_head(Int heads) const { return n * heads + (heads ? h / (p.H / heads) : 0); }

  void turn_to(Int to) {
    head = to, n = head / p.H, h = head % p.H;
    q = p.q + own_head(p.hq) * p.K, k = p.k + own_head(p.hk) * p.K;
    const F *u = p.bonus ? p.bonus + n * p.bonus_step + h * p.K : nullptr;
    own = 0;
    for (Int i = 0; u && i < p.K; ++i) own += q[i] * u[i] * k[i];
    const F g = p.g ? p.g[own_head(p.hg)] : F(0), *gk = p.gk ? p.gk + own_head(p.hgk) * p.K : nullptr;
    for (Int i = 0; i < p.K; ++i) rows[i] = gk ? g + gk[i] : g;
    if (p.delta) turn_to_error();
    if (p.a) a = p.a + own_head(p.ha) * p.K, b = p.b + own_head(p.hb) * p.K;
    if (gates_of(p) == Gates::rows)
      for (Int i = 0; i < p.K; i += L) {
        Vec kept, changed;
        split<F>(load(&rows[i], L), kept, changed);
        store<F>(kept, &keep[i], L), store<F>(changed, &change[i], L);
      }
  }

  void turn_to_error() {
    const F *m = p.m ? p.m + own_head(p.hm) * p.K : k, erase = p.erase ? p.erase[own_head(p.herase)] : F(1);
    for (Int i = 0; i < p.K; ++i) error[i] = erase * m[i];
    beta = p.beta ? p.beta[own_head(p.hbeta)] : F(1);
  }

  template <int J, bool Whole> void read(Int first, Int lanes) {
    p.before ? read<J, Whole, true>(first, lanes) : read<J, Whole, false>(first, lanes);
  }
  template <int J, bool Whole, bool Before> void read(Int first, Int lanes) {
    if (p.a) return pass<J, Whole, Gates::rows, Before, true>(first, lanes);
    switch (gates_of(p)) {
      case Gates::rows: return pass<J, Whole, Gates::rows, Before>(first, lanes);
      case Gates::lanes: return pass<J, Whole, Gates::lanes, Before>(first, lanes);
      case Gates::entries: return pass<J, Whole, Gates::entries, Before>(first, lanes);
    }
  }

  // Only the last vector of a row is not whole; known beforehand, whole ones need no masks.
  template <bool Whole> INLINE static Vec get(const F *x, Int lanes) {
    Vec y;
    if constexpr (Whole) std::memcpy(&y, x, BYTES);
    else y = load(x, lanes);
    return y;
  }
  template <bool Whole> INLINE static void put(Vec y, F *x, Int lanes) {
    if constexpr (Whole) std::memcpy(x, &y, BYTES);
    else store<F>(y, x, lanes);
  }

  // J vectors of value channels, all key channels, R sums each.
  template <int J, bool Whole, Gates where, bool Before, bool Move = false> void pass(Int first, Int lanes) {
    // Two sums can start in a cycle, and each takes four: 8 that need not wait for one another. Where a row has 4 vectors, to
    // load and store them takes as long, and 16 registers hold no more; nor do they with a gate for each entry.
    constexpr int R = where == Gates::entries || J == 4 ? 1 : 8;
    const Int state = head * p.K * p.V + first;
    const F *initial = p.initial ? p.initial + state : nowhere;
    F *final = p.final ? p.final + state : ignored;
    const Int from = p.initial ? p.V : 0, to = p.final ? p.V : 0;  // from a row to the next
    const F *G = p.G ? p.G + own_head(p.hG) * p.K * p.V + first : nullptr;
    const F *A = p.A ? p.A + n * p.A_step + Head(p.H, p.hA, h).own * p.K * p.V + first : nullptr;
    const F *q = this->q, *k = this->k, *a = this->a, *b = this->b, *rows = this->rows.data(), *keep = this->keep.data(), *change = this->change.data();
    const Int K = p.K, V = p.V;  // here once more: to the compiler, what is written to the state might change any member
    Vec v[J], gate[J], dt[J], kept[J], changed[J], moved[J] = {}, sums[R][J];
    for (int j = 0; j < J; ++j) {
      v[j] = get<Whole>(p.v + own_head(p.hv) * p.V + first + j * L, lanes);
      gate[j] = p.gv ? get<Whole>(p.gv + own_head(p.hgv) * p.V + first + j * L, lanes) : Vec{};
      dt[j] = A ? finite<F>(get<Whole>(p.dt + own_head(p.hdt) * p.V + first + j * L, lanes)) : Vec{};
      if (where == Gates::lanes) split<F>(gate[j] + rows[0], kept[j], changed[j]);
    }
    const auto over_rows = [&](auto row) INLINE {  // sums[0] ← the sums of all
      Vec total[J] = {};
      for (Int i = 0; i < K;) {
        for (auto &sum : sums) std::fill_n(sum, J, Vec{});
        const Int end = std::min(i + 16, K);  // the rounding of n products grows as 16 + n / 16, not as n
        for (; i + R <= end; i += R) {
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) row(i + r, sums[r]);
        }
        for (; i < end; ++i) row(i, sums[0]);
        for (int j = 0; j < J; ++j)
          for (int r = 0; r < R; ++r) total[j] += sums[r][j];
      }
      std::copy_n(total, J, sums[0]);
    };
    if (where == Gates::rows && p.delta) {
      const auto predict = [&](Int i, Vec *sum) INLINE {
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j) {
          const Vec old = get<Whole>((keep[i] != 0 ? initial + i * from : nowhere) + j * L, lanes);
          sum[j] += error[i] * (keep[i] * old + change[i] * old);
        }
      };
      over_rows(predict);
      for (int j = 0; j < J; ++j) v[j] = beta * v[j] - sums[0][j];
    }
    if (Move) {
      over_rows([&](Int i, Vec *sum) INLINE {
        for (int j = 0; j < J; ++j) sum[j] += a[i] * get<Whole>(initial + i * from + j * L, lanes);
      });
      std::copy_n(sums[0], J, moved);
    }
    const auto row = [&](Int i, Vec *sum) INLINE {
      const F *before = initial + i * from;
      F *after = final + i * to;
      const Vec read = Vec{} + q[i], write = Vec{} + k[i];  // once: stores to the state might change them
      const F keeps = keep[i], changes = change[i], logs = rows[i], along = Move ? b[i] : F(0);
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) {
        Vec stay, move;
        if constexpr (where == Gates::rows) stay = Vec{} + keeps, move = Vec{} + changes;
        if constexpr (where == Gates::lanes) stay = kept[j], move = changed[j];
        if constexpr (where == Gates::entries) {
          Vec x = gate[j] + logs;
          if (G) x += get<Whole>(G + i * V + j * L, lanes);
          if (A) x += finite<F>(get<Whole>(A + i * V + j * L, lanes)) * dt[j];
          split<F>(x, stay, move);
        }
        const Vec old = get<Whole>(before + j * L, lanes);
        Vec left;  // of it: where the gate is 0 nothing, not 0 times what may be infinite
        if constexpr (where == Gates::rows) left = keeps != 0 ? old : Vec{};
        else left = stay != Vec{} ? old : Vec{};
        Vec written = move * left + write * v[j];
        if (Move) written += along * moved[j];
        const Vec now = stay * left + written;
        put<Whole>(now, after + j * L, lanes);
        sum[j] += read * (Before ? old : now);
      }
    };
    over_rows(row);
    for (int j = 0; j < J; ++j) {
      if (Before && p.bonus) sums[0][j] += own * v[j];
      put<Whole>(sums[0][j] * F(p.scale), p.o + head * p.V + first + j * L, lanes);
    }
  }
};

template <class F> static void step(const Problem<F> &p) {
  const Int jobs = p.N * p.H * Token<F>::tiles(p);
  const bool small = p.N * p.H * p.K * p.V < 1 << 16;  // 256 KiB in float: done before other threads would wake
  if (small || p.threads == 1) {
    Token<F> token(p);
    for (Int job = 0; job < jobs; ++job) token(job);
  } else
    parallel(jobs, p.threads, [&] { return Token<F>(p); });
}

extern "C" {
const char *step_fields() { return NAMES(PROBLEM); }
void step_float(const Problem<float> *p) { step(*p); }
void step_double(const Problem<double> *p) { step(*p); }
}
