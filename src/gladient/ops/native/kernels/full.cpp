// Full gates on CPU cores, one for each entry of the state: the recurrence itself, a few rows of the state in registers.
//
// A job is a tile of the value channels of one head of one sequence, so that one head alone keeps every thread at work.
// Gates come as logarithms G, or as rates A times steps dt (`Rates`), and are exponentiated where they are used: they meet
// memory once, rates never. The gradients of queries, keys and bonus are sums over all value channels: each tile
// writes its share, and a second loop adds the shares in the order of the tiles.

#include "gate.h"
#include "problem.h"

// Vectors of value channels in a tile: some 64 channels, fewer where jobs would be few. The sizes alone decide, not the
// threads, so that sums do not depend on them.
template <class F> static Int tile_vectors(const Problem<F> &p) {
  const Int all = (p.V + LANES<F> - 1) / LANES<F>;
  Int vectors = std::clamp<Int>(64 / LANES<F>, 1, std::max<Int>(all, 1));
  while (vectors > 1 && p.N * p.H * ((all + vectors - 1) / vectors) < 16) vectors = (vectors + 1) / 2;
  return vectors;
}

// Where a tile writes its share of the gradients that sum over all value channels; null where nobody asks.
template <class F> struct Shares { F *q, *k, *bonus; };

template <class F, bool Rates> struct Tile {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>;
  // Rows of the state at a time. Going backward, a chunk's states, gates and gradients of 4 rows take 20 KiB with
  // 64-byte vectors, which a nearest cache of 32 KiB holds; those of 8 rows would not fit.
  static constexpr int R = 4;

  const Problem<F> &p;
  const Int vectors;                   // of a tile's value channels, n below
  Buffer<Vec> memory;
  Vec *S, *rest;                       // [K, n]: the state, and what rounding took from it
  Vec *v, *dt, *o;                     // [C, n]: a chunk's values, steps and outputs
  Vec *A;                              // [K, n]: rates
  Vec *starts, *dS, *d_rest;           // [span, K, n]: states before the chunks of a span; [K, n]
  Vec *d_o, *d_v, *d_dt;               // [C, n]
  Vec *slope, *d_A, *d_A_rest;         // [K, n]: what dt's gradient takes for A, 0 where A is -∞
  Buffer<F> own;                       // [C]: Σ q u k of a token, the weight of its own value
  Buffer<double> d_bonus;              // [K]
  Int n = 0, h = 0, first = 0, t0 = 0, steps = 0;  // sequence, head, first value channel; the chunk's tokens
  Head at, at_q, at_k, at_v, at_G, at_dt;

  Tile(const Problem<F> &p, Int vectors, bool backward)
      : p(p), vectors(vectors), own(C), d_bonus(p.K), at(p.H, p.H, 0), at_q(at), at_k(at), at_v(at), at_G(at), at_dt(at) {
    const Int state = p.K * vectors, chunk = C * vectors;
    Int used = 0;
    const auto lay = [&](auto take) {  // once to count, once to hand out
      for (Vec **x : {&S, &rest}) take(x, state);
      for (Vec **x : {&v, &o}) take(x, chunk);
      if (Rates) take(&A, state), take(&dt, chunk);
      if (!backward) return;
      take(&starts, p.span * state);
      for (Vec **x : {&dS, &d_rest}) take(x, state);
      for (Vec **x : {&d_o, &d_v}) take(x, chunk);
      if (Rates) take(&slope, state), take(&d_A, state), take(&d_A_rest, state), take(&d_dt, chunk);
    };
    lay([&](Vec **, Int size) { used += size; });
    memory = Buffer<Vec>(used);
    used = 0;
    lay([&](Vec **x, Int size) { *x = memory.data() + used, used += size; });
  }

  void run(Int job, Int first_channel, const Shares<F> *shares) {
    n = job / p.H, h = job % p.H, first = first_channel;
    at = {p.H, p.H, h}, at_q = {p.H, p.hq, h}, at_k = {p.H, p.hk, h}, at_v = {p.H, p.hv, h};
    at_G = {p.H, p.hG, h}, at_dt = {p.H, p.hdt, h};
    if (Rates) load_rates();
    shares ? backward(*shares) : forward();
  }

  Int lanes(Int j) const { return std::clamp<Int>(p.V - first - j * L, 0, L); }
  const F *bonus() const { return p.bonus ? p.bonus + n * p.bonus_step + h * p.K : nullptr; }

  // `rows` rows of this tile, `step` apart, from memory (null: zeros) and back.
  void take(const F *x, Int step, Int rows, Vec *y) const {
    for (Int i = 0; i < rows; ++i)
      for (Int j = 0; j < vectors; ++j) y[i * vectors + j] = x ? load(x + i * step + first + j * L, lanes(j)) : Vec{};
  }
  void put(const Vec *y, F *x, Int step, Int rows) const {
    for (Int i = 0; x && i < rows; ++i)
      for (Int j = 0; j < vectors; ++j) store<F>(y[i * vectors + j], x + i * step + first + j * L, lanes(j));
  }
  template <class X> X *state(X *x, Int row) const { return x ? x + (row * p.H + h) * p.K * p.V : nullptr; }
  template <class X> X *tokens(X *x, const Head &at) const { return x ? x + at(t0) * p.V : nullptr; }

  void load_rates() {
    take(p.A + n * p.A_step + Head(p.H, p.hA, h).own * p.K * p.V, p.V, p.K, A);
    for (Int i = 0; i < p.K * vectors; ++i) A[i] = finite<F>(A[i]);
  }

  void load_chunk(Int begin, Int end) {
    t0 = begin, steps = end - begin;
    take(tokens(p.v, at_v), p.hv * p.V, steps, v);
    if (!Rates) return;
    take(tokens(p.dt, at_dt), p.hdt * p.V, steps, dt);
    for (Int i = 0; i < steps * vectors; ++i) dt[i] = finite<F>(dt[i]);
  }

  void load_own() {
    for (Int c = 0; bonus() && c < steps; ++c) {
      const F *q = p.q + at_q(t0 + c) * p.K, *k = p.k + at_k(t0 + c) * p.K;
      own[c] = 0;
      for (Int i = 0; i < p.K; ++i) own[c] += q[i] * bonus()[i] * k[i];
    }
  }

  // All rows of the state, R at a time, the rest one by one.
  template <class Block> void for_rows(Block block) {
    Int i = 0;
    for (; i + R <= p.K; i += R) block(i, std::integral_constant<int, R>());
    for (; i < p.K; ++i) block(i, std::integral_constant<int, 1>());
  }

  template <int Rows> INLINE Vec log_gate(Int c, Int i, Int j) const {
    if constexpr (Rates) return A[i * vectors + j] * dt[c * vectors + j];
    const F *x = p.G + (at_G(t0 + c) * p.K + i) * p.V + first + j * L;
    __builtin_prefetch(x + Rows * p.V);  // rows of a token lie too far apart for the hardware to foresee the next block
    return load(x, lanes(j));
  }

  void forward() {
    const Int begin = p.offsets[n], end = p.offsets[n + 1];
    take(state(p.initial, n), p.V, p.K, S);
    std::fill_n(rest, p.K * vectors, Vec{});
    for (Int t = begin, chunk = 0; t < end; t += C, ++chunk) {
      if (chunk % p.span == 0) put(S, state(p.checkpoints, p.span_offsets[n] + chunk / p.span), p.V, p.K);
      load_chunk(t, std::min(t + C, end));
      std::fill_n(o, C * vectors, Vec{});
      forward_chunk();
      load_own();
      for (Int c = 0; c < steps; ++c)
        for (Int j = 0; j < vectors; ++j) {
          Vec &y = o[c * vectors + j];
          y = (bonus() ? y + own[c] * v[c * vectors + j] : y) * F(p.scale);
        }
      put(o, tokens(p.o, at), p.H * p.V, steps);
    }
    put(S, state(p.final, n), p.V, p.K);
  }

  void forward_chunk() {
    for_rows([&](Int i, auto rows) {
      for (Int j = 0; j < vectors; ++j) forward_rows<rows()>(i, j);
    });
  }

  template <int Rows> void forward_rows(Int i, Int j) {
    Vec s[Rows], e[Rows];
    for (int r = 0; r < Rows; ++r) s[r] = S[(i + r) * vectors + j], e[r] = rest[(i + r) * vectors + j];
    for (Int c = 0; c < steps; ++c) {
      const F *q = p.q + at_q(t0 + c) * p.K + i, *k = p.k + at_k(t0 + c) * p.K + i;
      const Vec x = v[c * vectors + j];
      Vec sum = o[c * vectors + j];
      for (int r = 0; r < Rows; ++r) {
        Vec keep, change;
        split<F>(log_gate<Rows>(c, i + r, j), keep, change);
        if (p.before) sum += q[r] * s[r];
        add<F>(s[r], e[r], keep, change, k[r] * x);
        if (!p.before) sum += q[r] * s[r];
      }
      o[c * vectors + j] = sum;
    }
    for (int r = 0; r < Rows; ++r) S[(i + r) * vectors + j] = s[r], rest[(i + r) * vectors + j] = e[r];
  }

  void backward(const Shares<F> &shares) {
    const Int begin = p.offsets[n], end = p.offsets[n + 1], size = p.K * vectors;
    take(state(p.d_final, n), p.V, p.K, dS);
    std::fill_n(d_rest, size, Vec{});
    std::fill_n(d_bonus.data(), p.K, 0.0);
    if (Rates) {
      const Vec infinite = Vec{} + std::numeric_limits<F>::lowest();
      for (Int i = 0; i < size; ++i) slope[i] = A[i] == infinite ? Vec{} : A[i], d_A[i] = d_A_rest[i] = Vec{};
    }
    for (Int chunk = (end - begin + C - 1) / C - 1, last = chunk; chunk >= 0; --chunk) {
      const Int within = chunk % p.span;
      if (chunk == last || within == p.span - 1) load_starts(chunk - within, within);
      load_chunk(begin + chunk * C, std::min(begin + (chunk + 1) * C, end));
      backward_chunk(starts + within * size, shares);
    }
    put(dS, state(p.d_initial, n), p.V, p.K);
    if (Rates) put(d_A, state(p.d_A, n), p.V, p.K);
    for (Int i = 0; shares.bonus && i < p.K; ++i) shares.bonus[(n * p.H + h) * p.K + i] = F(d_bonus[i]);
  }

  // The states before the chunks of a span up to its chunk `within`, computed again.
  void load_starts(Int chunk, Int within) {
    take(state(p.checkpoints, p.span_offsets[n] + chunk / p.span), p.V, p.K, S);
    std::fill_n(rest, p.K * vectors, Vec{});
    for (Int i = 0; i <= within; ++i) {
      std::copy_n(S, p.K * vectors, starts + i * p.K * vectors);
      if (i == within) break;
      load_chunk(p.offsets[n] + (chunk + i) * C, p.offsets[n] + (chunk + i + 1) * C);
      forward_chunk();
    }
  }

  void backward_chunk(const Vec *start, const Shares<F> &shares) {
    take(tokens(p.d_o, at), p.H * p.V, steps, d_o);
    for (Int i = 0; i < steps * vectors; ++i) d_o[i] *= F(p.scale);
    std::fill_n(d_v, C * vectors, Vec{});
    if (Rates) std::fill_n(d_dt, C * vectors, Vec{});
    for_rows([&](Int i, auto rows) {
      Vec d_q[rows()][C] = {}, d_k[rows()][C] = {};
      for (Int j = 0; j < vectors; ++j) backward_rows<rows()>(i, j, start, d_q, d_k);
      put_rows<rows()>(i, d_q, shares.q), put_rows<rows()>(i, d_k, shares.k);
    });
    if (bonus()) backward_own(shares);
    put(d_v, tokens(p.d_v, at), p.H * p.V, steps);
    if (Rates) put(d_dt, tokens(p.d_dt, at), p.H * p.V, steps);
  }

  template <int Rows> void backward_rows(Int i, Int j, const Vec *start, Vec (*d_q)[C], Vec (*d_k)[C]) {
    Vec states[C + 1][Rows], keep[C][Rows], change[C][Rows], e[Rows] = {}, g[Rows], d_log[Rows] = {};
    for (int r = 0; r < Rows; ++r) states[0][r] = start[(i + r) * vectors + j];
    for (Int c = 0; c < steps; ++c)
      for (int r = 0; r < Rows; ++r) {
        split<F>(log_gate<Rows>(c, i + r, j), keep[c][r], change[c][r]);
        Vec s = states[c][r];
        add<F>(s, e[r], keep[c][r], change[c][r], key(c)[i + r] * v[c * vectors + j]);
        states[c + 1][r] = s;
      }
    for (int r = 0; r < Rows; ++r) {
      g[r] = dS[(i + r) * vectors + j], e[r] = d_rest[(i + r) * vectors + j];
      if (!p.before) add<F>(g[r], e[r], Vec{} + F(1), Vec{}, query(steps - 1)[i + r] * d_o[(steps - 1) * vectors + j]);
    }
    for (Int c = steps - 1; c >= 0; --c) {
      const Int read = p.before ? c : c - 1, at = c * vectors + j;  // read: the token whose output reads the state before c
      for (int r = 0; r < Rows; ++r) {
        d_q[r][c] += states[p.before ? c : c + 1][r] * d_o[at];
        d_k[r][c] += g[r] * v[at];
        d_v[at] += key(c)[i + r] * g[r];
        const Vec to_log = (keep[c][r] + change[c][r]) * g[r] * states[c][r];
        if constexpr (Rates) d_log[r] += to_log * dt[at], d_dt[at] += to_log * slope[(i + r) * vectors + j];
        else if (p.d_G) store<F>(to_log, p.d_G + (this->at(t0 + c) * p.K + i + r) * p.V + first + j * L, lanes(j));
        add<F>(g[r], e[r], keep[c][r], change[c][r], read >= 0 ? query(read)[i + r] * d_o[read * vectors + j] : Vec{});
      }
    }
    for (int r = 0; r < Rows; ++r) {
      const Int at = (i + r) * vectors + j;
      dS[at] = g[r], d_rest[at] = e[r];
      if constexpr (Rates) add<F>(d_A[at], d_A_rest[at], Vec{} + F(1), Vec{}, d_log[r]);
    }
  }
  const F *query(Int c) const { return p.q + at_q(t0 + c) * p.K; }
  const F *key(Int c) const { return p.k + at_k(t0 + c) * p.K; }

  template <int Rows> void put_rows(Int i, const Vec (*d)[C], F *x) const {
    for (int r = 0; x && r < Rows; ++r)
      for (Int c = 0; c < steps; c += L) {
        const Vec sums = row_sums<F>([&](int l) { return d[r][c + l]; });
        for (Int l = 0; l < std::min(L, steps - c); ++l) x[at(t0 + c + l) * p.K + i + r] = sums[l];
      }
  }

  // A token's own value passes the bonus: its share of the gradients of queries, keys, values and the bonus.
  void backward_own(const Shares<F> &shares) {
    load_own();
    for (Int c = 0; c < steps; ++c) {
      Vec products = {};
      for (Int j = 0; j < vectors; ++j) {
        products += d_o[c * vectors + j] * v[c * vectors + j];
        d_v[c * vectors + j] += own[c] * d_o[c * vectors + j];
      }
      F d_own = 0;
      for (Int l = 0; l < L; ++l) d_own += products[l];
      const F *q = query(c), *k = key(c), *u = bonus();
      const Int to = at(t0 + c) * p.K;
      for (Int i = 0; i < p.K; ++i) {
        if (shares.q) shares.q[to + i] += u[i] * k[i] * d_own;
        if (shares.k) shares.k[to + i] += u[i] * q[i] * d_own;
        d_bonus[i] += q[i] * k[i] * d_own;
      }
    }
  }
};

// A gradient as the sum of its tiles' shares; one tile writes it at once.
template <class F> struct Sum {
  F *sum;
  Int size, tiles;
  bool apart;
  Buffer<F> shares;
  Sum(F *sum, Int size, Int tiles)
      : sum(sum), size(size), tiles(tiles), apart(sum && tiles > 1), shares(apart ? size * tiles : 0, false) {}
  F *share(Int tile) const { return apart ? shares.data() + tile * size : sum; }
  void add(Int threads) const {
    constexpr Int block = 4096;  // 16 KiB in float: the sum stays in the nearest cache while the shares pass
    if (apart) parallel((size + block - 1) / block, threads, [&] {
      return [&](Int job) {
        const Int begin = job * block, end = std::min(begin + block, size);
        std::copy(share(0) + begin, share(0) + end, sum + begin);
        for (Int tile = 1; tile < tiles; ++tile)
          for (Int i = begin; i < end; ++i) sum[i] += share(tile)[i];
      };
    });
  }
};

template <class F, bool Rates> static void full(const Problem<F> &p, bool backward) {
  const Int vectors = tile_vectors(p), width = vectors * LANES<F>, tiles = std::max<Int>(1, (p.V + width - 1) / width);
  const Int rows = backward ? p.offsets[p.N] * p.H * p.K : 0;
  const Sum<F> q(p.d_q, rows, tiles), k(p.d_k, rows, tiles), bonus(p.d_bonus, p.N * p.H * p.K, tiles);
  parallel(p.N * p.H * tiles, p.threads, [&] {
    return [&, tile = Tile<F, Rates>(p, vectors, backward)](Int job) mutable {
      const Shares<F> shares = {q.share(job % tiles), k.share(job % tiles), bonus.share(job % tiles)};
      tile.run(job / tiles, job % tiles * width, backward ? &shares : nullptr);
    };
  });
  if (backward)
    for (const Sum<F> *x : {&q, &k, &bonus}) x->add(p.threads);
}

template <class F> static void full(const Problem<F> &p, bool backward) {
  p.A ? full<F, true>(p, backward) : full<F, false>(p, backward);
}

extern "C" {
const char *full_fields() { return NAMES(PROBLEM); }
void full_float(const Problem<float> *p, int backward) { full(*p, backward); }
void full_double(const Problem<double> *p, int backward) { full(*p, backward); }
}
