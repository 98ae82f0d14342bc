// Keys and values of a chunk play the same game: a read (q, or d_o) meets earlier writes (k, or v) through the gates
// between them. Both are a Side, and each formula stands here once: the outputs are the gradients of d_o.

#pragma once

#include "tiles.h"

// Rows of memory that the next chunk will touch, asked for a few at a time between the products of this one. All at once they
// would wait for one another, and the products for them: a core has some ten to twenty lines under way.
template <class F> class Coming {
  struct Rows { const F *first; Int step, bytes; };
  static constexpr Int MOST = 12;  // of one chunk's tensors
  Rows tensors[MOST];
  Int asks, all = 0, asked = 0, each = 0;

 public:
  explicit Coming(Int asks) : asks(std::max<Int>(asks, 1)) {}  // how often a chunk asks at least
  void clear() { all = asked = 0; }
  void add(const F *first, Int step, Int channels) {  // C rows, `step` apart
    if (all == MOST) return;
    tensors[all++] = {first, step, channels * Int(sizeof(F))};
    each = (all * C + asks - 1) / asks;
  }
  INLINE void ask() {
    for (const Int end = std::min(asked + each, all * C); asked < end; ++asked) {
      const Rows &x = tensors[asked / C];
      const char *row = reinterpret_cast<const char *>(x.first + asked % C * x.step);
      for (Int i = 0; i < x.bytes; i += 64) __builtin_prefetch(row + i);
    }
  }
};

// One side of a head: reads and writes of a chunk, [C, n] vectors, and the gates of its channels, if it has any.
template <class F> struct Side {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>, CN = C / L;
  Int n, channels;                 // vectors, and the channels in them
  bool gated;                      // a gate for each channel
  Vec *read, *write;
  Vec *early, *late;               // read ⊙ until, write ⊙ since; where nothing weighs them, read and write themselves
  Vec *d_read, *d_write;
  Vec *gate;                       // of a token; log gates until `weigh_reads`
  Vec *until, *since;              // products of the gates from the chunk's start to a token, after a token to the end
  const F *until_row, *since_row;  // [C]: of scalar gates; they weigh values alone, so for keys they are 1
  Vec *d_gate;
  Vec *keep, *change;              // [n]: the whole chunk's decay is keep + change, keep 0 or 1
  Vec *passing;                    // [n]: d_gate of the first token behind the chunk
  Coming<F> *coming;               // the lane's: what the next chunk will touch
  const Side *also;                // further reads through the same gates, or null
  const Side *beside;              // further writes through the same gates, or null
  bool ahead;                      // whether reads stand a token ahead: row -1 reads the state before the chunk as it is

  // Of the products of gates every fourth is the exponential of a sum, the others round three times more at most: that
  // takes half the exponentials of all sums, and products alone would double the error where gates are near 1.
  static constexpr Int EXACT = 4;

  // The products of the gates from a token to the chunk's end, and writes weighted by them; `until` holds the gates.
  void weigh_writes(Int steps) {
    for (Int j = 0; j < n; ++j) {
      Vec behind = {}, weight = {};
      for (Int c = steps - 1; c >= 0; --c) {
        const Int i = c * n + j;
        since[i] = weight = c % EXACT == EXACT - 1 ? exponential<F>(behind) : weight * until[i + n];
        late[i] = write[i] * weight, behind += gate[i], until[i] = exponential<F>(gate[i]);
      }
      decay<F>(behind, keep[j], change[j]);
    }
  }
  // The products of the gates up to a token, and reads weighted by them; gates from log gates.
  void weigh_reads(Int steps) {
    for (Int j = 0; j < n; ++j) {
      Vec sum = {}, weight = Vec{} + F(1);
      for (Int c = 0; c < steps; ++c) {
        const Int i = c * n + j;
        sum += gate[i], gate[i] = until[i];
        until[i] = weight = c % EXACT == EXACT - 1 ? exponential<F>(sum) : weight * gate[i];
        early[i] = read[i] * weight;
      }
    }
  }

  // pairs[s, t] = Σ read_t ⊙ gates between ⊙ write_s for s ≤ t; what the others hold nobody reads. Spare: [channels, CN].
  void meet(Vec *pairs, Vec *spare, const Vec *weights, Int steps) const {
    if (gated) return meet_through_gates(pairs, steps);
    transpose<F>(read, C, n, spare);
    columns(CN, [&](auto width, Int j) {
      constexpr int J = width, R = ROWS<J>;
      for (Int s = 0; s < std::min(steps, (j + J) * L); s += R) {
        Vec sum[R][J] = {};
        add_products<ALONG>(sum, scalars<F>(write) + s * n * L, n * L, spare + j, CN, channels);
        for (int r = 0; r < R; ++r)
          for (int i = 0; i < J; ++i) {
            const Int at = (s + r) * CN + j + i;
            pairs[at] = weights ? sum[r][i] * weights[at] : sum[r][i];
          }
      }
    });
  }

  static constexpr int TOGETHER = 2;  // writes that go through the gates side by side: a gate is loaded once for both
  void meet_through_gates(Vec *pairs, Int steps) const {
    for (Int s = 0; s < steps; s += TOGETHER) {
      Vec products[TOGETHER][C];
      columns(n, [&](auto J, Int j) { meet_through_gates<J>(products, s, j, steps); });
      for (int a = 0; a < TOGETHER; ++a)
        for (Int i = s / L; i < CN; ++i)
          pairs[(s + a) * CN + i] = row_sums<F>([&](int l) { return products[a][i * L + l]; });
    }
  }
  template <int J> void meet_through_gates(Vec (*products)[C], Int s, Int j0, Int steps) const {
    Vec x[TOGETHER][J];
    const auto meet = [&](Int t, int met) INLINE {  // the last of those met is at t itself, or all came before
#pragma GCC unroll 4
      for (int a = 0; a < TOGETHER; ++a) {
        if (a >= met) break;
        Vec sum = j0 ? products[a][t] : Vec{};
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j) {
          const Int i = t * n + j0 + j;
          x[a][j] = a == met - 1 ? write[i] : x[a][j] * gate[i];
          sum += x[a][j] * read[i];
        }
        products[a][t] = sum;
      }
    };
#pragma GCC unroll 4
    for (int a = 0; a < TOGETHER; ++a) meet(s + a, a + 1);
    for (Int t = s + TOGETHER; t < steps; ++t) meet(t, TOGETHER + 1);
  }

  // What the tokens of the chunk give to one another's gradients through the gates and the pairs of the other side.
  void give_through_gates(const Vec *pairs, bool both, Int steps) {
    for (Int s = 0; s < steps; s += GIVERS)
      columns<WIDE / 2>(n, [&](auto J, Int j) {
        if (both) give_through_gates<J, true>(scalars<F>(pairs), s, j, steps);
        else give_through_gates<J, false>(scalars<F>(pairs), s, j, steps);
      });
  }
  static constexpr int GIVERS = 4;  // their weights, writes and sums, WIDE / 2 vectors each, take 3 of 4 registers
  template <int J, bool Both> void give_through_gates(const F *pairs, Int s, Int j0, Int steps) {
    Vec weight[GIVERS][J], given[GIVERS][J], sum[GIVERS][J] = {};
    const auto give = [&](Int t, int met) INLINE {
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) {
        const Int i = t * n + j0 + j;
        Vec taken = s ? d_read[i] : Vec{};
#pragma GCC unroll 4
        for (int a = 0; a < GIVERS; ++a) {
          if (a >= met) break;
          if (a == met - 1) weight[a][j] = Vec{} + F(1), given[a][j] = write[i];
          else weight[a][j] *= gate[i];
          const Vec x = pairs[(s + a) * C + t] * weight[a][j];
          taken += x * given[a][j];
          if (Both) sum[a][j] += x * read[i];
        }
        d_read[i] = taken;
      }
    };
#pragma GCC unroll 4
    for (int a = 0; a < GIVERS; ++a) give(s + a, a + 1);
    for (Int t = s + GIVERS; t < steps; ++t) give(t, GIVERS + 1);
    for (int a = 0; a < GIVERS && Both; ++a)
      for (int j = 0; j < J; ++j) d_write[(s + a) * n + j0 + j] = sum[a][j];
  }

  // y_t ← (x_t · M) ⊙ weights, M what the state before the chunk, or the gradient of the one behind it, holds, plus what
  // the tokens of the chunk give, with Two also by the second side's writes (reads). Row t of y is at t * step; x has m
  // vectors a row, the first `count` channels count.
  template <Part P, bool Two = false>
  void take(const Vec *x, Int m, Int count, const Vec *M, const Vec *pairs, F *y, Int step, Int steps,
            const Side *second = nullptr, const Vec *second_pairs = nullptr) const {
    const Vec *weights = P == EARLIER ? until : since, *given = P == EARLIER ? d_read : d_write;
    const F *weight = P == EARLIER ? until_row : since_row;
    columns<SLIM>(n, [&](auto width, Int j) {
      constexpr int J = width, R = ROWS<J>;
      for (Int t = 0; t < steps; t += R) {
        coming->ask();
        Vec sum[R][J] = {};
        add_products<ALONG>(sum, scalars<F>(x) + t * m * L, m * L, M + j, n, count);
        if (gated) {
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int i = 0; i < J; ++i) sum[r][i] = sum[r][i] * weights[(t + r) * n + j + i] + given[(t + r) * n + j + i];
#pragma GCC unroll 8
          for (int r = 0; r < R && Two; ++r)
#pragma GCC unroll 4
            for (int i = 0; i < J; ++i) sum[r][i] += (P == EARLIER ? second->d_read : second->d_write)[(t + r) * n + j + i];
        } else {
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int i = 0; i < J; ++i) sum[r][i] *= weight[t + r];
          add_pairs<P>(sum, scalars<F>(pairs), (P == EARLIER ? write : read) + j, n, t, steps);
          if constexpr (Two)
            add_pairs<P>(sum, scalars<F>(second_pairs), (P == EARLIER ? second->write : second->read) + j, n, t, steps);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
          for (int i = 0; i < J; ++i) store<F>(sum[r][i], y + (t + r) * step + (j + i) * L, L);
      }
    });
  }

  // What passes the gate of the chunk's first token: Σ_i state[i] ⊙ d_state[i].
  template <int J> static void entering(const Vec *state, const Vec *d_state, Int n, Int rows, Vec (&sum)[J], Vec (&rest)[J]) {
    for (Int i = 0; i < rows;) {
      Vec part[J] = {};
      for (const Int end = std::min(i + 16, rows); i < end; ++i)  // 16 products, then the sum that keeps its rounding
        for (int j = 0; j < J; ++j) part[j] += state[i * n + j] * d_state[i * n + j];
      for (int j = 0; j < J; ++j) add<F>(sum[j], rest[j], Vec{} + F(1), Vec{}, part[j]);
    }
  }

  // What a token adds to the gradient that passes the gates: its write, less its reads.
  INLINE Vec gain(Int i) const {
    Vec x = write[i] * d_write[i] - read[i] * d_read[i];
    if (also) x -= also->read[i] * also->d_read[i];
    if (beside) x += beside->write[i] * beside->d_write[i];
    return x;
  }
  // What the read that stands ahead of the chunk takes.
  Vec first(Int j) const { return read[j - n] * d_read[j - n]; }

  // The gradient of a log gate is what passes it: at the first token S ⊙ dS; each token then takes its read, adds its
  // write. From the middle on, as seen from what passes behind the chunk: the shorter way adds up less rounding.
  void d_gates(const Vec *state, const Vec *d_state, Int rows, bool last, Int steps) {
    columns(n, [&](auto width, Int j0) {
      constexpr int J = width;
      Vec sum[J] = {}, rest[J] = {};
      entering(state + j0, d_state + j0, n, rows, sum, rest);
      const bool ahead = also && also->ahead;
      for (int j = 0; j < J && ahead; ++j) add<F>(sum[j], rest[j], Vec{} + F(1), Vec{}, -also->first(j0 + j));
      const auto step = [&](Int c, F sign) INLINE {
        for (int j = 0; j < J; ++j) {
          const Int i = c * n + j0 + j;
          add<F>(sum[j], rest[j], Vec{} + F(1), Vec{}, sign * gain(i));
        }
      };
      const auto pass = [&](Int c) INLINE {  // exactly nothing passes a gate of 0
        for (int j = 0; j < J; ++j) {
          const Int i = c * n + j0 + j;
          const auto open = gate[i] != 0;
          d_gate[i] = sum[j] = open ? sum[j] : Vec{}, rest[j] = open ? rest[j] : Vec{};
        }
      };
      const Int middle = last ? steps : steps / 2;
      for (Int c = 0; c < middle; ++c) pass(c), step(c, 1);
      for (int j = 0; j < J; ++j) sum[j] = passing[j0 + j], rest[j] = Vec{};
      for (Int c = steps - 1; c >= middle; --c) step(c, -1), pass(c);
      for (int j = 0; j < J; ++j) passing[j0 + j] = ahead ? d_gate[j0 + j] + also->first(j0 + j) : d_gate[j0 + j];
    });
  }
};
