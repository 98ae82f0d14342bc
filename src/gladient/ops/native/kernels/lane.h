// One head of one sequence after the other: all pairs of tokens inside a chunk, the state from chunk to chunk. scan.cpp adds up
// what the tokens write, delta.cpp their errors, general.cpp beside their writes what they move.
//
// A state changes once a chunk, S ← S + (expm1(Σ log gates) S + writes), and what that sum rounds off is kept: the error
// does not grow with the number of tokens. Gates for channels weigh reads and writes of their side (side.h). Scalar gates
// alone weigh the rows of the value side and the pairs; next to others they are part of these. Full gates: full.cpp.

#pragma once

#include "side.h"

enum class Rule { add, correct, move };

template <class F, Rule rule> struct Lane {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>, CN = C / L;

  const Problem<F> &p;
  const bool backwards, scalar;           // scalar gates alone
  const Int shift;                        // chunks read `shift` tokens behind their writes
  Int rows;                               // key channels with padding
  Buffer<Vec> memory;
  Side<F> key{}, value{};
  Side<F> error{}, missed{};              // correct: the same gates and writes, read by the keys that erase and by -dL/du
  Side<F> keys[2][2]{}, values[2][2]{};   // move: reads by q and -a, d_o and -dL/du, of writes k and b, v and u
  Vec *S, *rest, *dS, *d_rest;            // [rows, n]: states, their gradients, and what rounding took from them
  Vec *flipped, *d_flipped;               // [value channels with padding, key.n]: transposed
  Vec *starts;                            // [span + 1, rows, n]: the states before the chunks of a span, computed again
  Vec *weights, *to_value, *to_key;       // [C, CN], token in lanes: scalar gates' weights; q·k and d_o·v times them
  Vec *to_missed, *to_error;              // likewise for the second reads
  Vec *key_pairs[2][2], *value_pairs[2][2];  // and of each read and write
  Vec *a, *early_a, *x, *early_x;         // [C + 1, n]: what is moved is read a token ahead of q and d_o
  Vec *spare, *bonus, *d_bonus;
  alignas(64) F ones[C], until[C], since[C], gate[C], before[C];  // of scalar gates; before: until the token before
  double passing = 0;                                  // d_g of the first token behind the chunk
  Int n = 0, h = 0;                       // sequence, head
  Int t0 = 0, count = 0, reads = 0, steps = 0;  // the chunk: first token, tokens written, tokens read, tokens with padding
  Head at_q{1, 1, 0}, at_k = at_q, at_v = at_q, at_g = at_q, at_gk = at_q, at_gv = at_q, at_o = at_q;
  Head at_m = at_q, at_beta = at_q, at_erase = at_q;
  Coming<F> coming;
  Int onward = C;                         // tokens from a chunk to the one that comes next
  const F *v;                             // the values, or what was written of them

  Lane(const Problem<F> &p, bool backwards)
      : p(p), backwards(backwards), scalar(p.g && !p.gk && !p.gv), shift(p.before ? 1 : 0),
        coming(p.K * p.V / (ROWS<SLIM> * SLIM * L)) {  // the tiles of `carry`
    const Int block = std::max(L, TALL);
    rows = (p.K + block - 1) / block * block;
    key.coming = value.coming = &coming;
    key.n = rows / L, key.channels = p.K, key.gated = p.gk;
    value.n = (p.V + L - 1) / L, value.channels = p.V, value.gated = p.gv;
    std::fill_n(ones, C, F(1));
    key.until_row = key.since_row = ones;
    value.until_row = scalar ? until : ones, value.since_row = scalar ? since : ones;
    Int used = 0;
    lay([&](Vec **, Int size) { used += size; });
    memory = Buffer<Vec>(used);
    used = 0;
    lay([&](Vec **x, Int size) { *x = memory.data() + used, used += size; });
    for (Side<F> *side : {&key, &value})
      for (Int j = 0; j < side->n; ++j) side->keep[j] = Vec{} + F(1);
  }

  bool weighed(const Side<F> &side) const { return side.gated || (scalar && &side == &value); }

  // Every array and its size, once to count and once to hand out.
  template <class Take> void lay(Take take) {
    for (Side<F> *side : {&key, &value}) {
      const Int size = C * side->n;
      for (Vec **x : {&side->read, &side->write, &side->d_read, &side->d_write}) take(x, size);
      side->early = side->read, side->late = side->write;
      if (weighed(*side)) take(&side->early, size), take(&side->late, size);
      if (side->gated)
        for (Vec **x : {&side->gate, &side->until, &side->since, &side->d_gate}) take(x, size);
      for (Vec **x : {&side->keep, &side->change, &side->passing}) take(x, side->n);
    }
    const Int state = rows * value.n, flip = value.n * L * key.n;
    for (Vec **x : {&S, &rest}) take(x, state);
    for (Vec **x : {&weights, &to_value, &to_key}) take(x, C * CN);
    take(&spare, std::max(rows, value.n * L) * CN);
    for (Vec **x : {&bonus, &d_bonus}) take(x, key.n);
    if constexpr (rule == Rule::correct) lay_errors(take);
    if constexpr (rule == Rule::move) lay_moves(take);
    if (!backwards) return;
    for (Vec **x : {&dS, &d_rest}) take(x, state);
    for (Vec **x : {&flipped, &d_flipped}) take(x, flip);
    take(&starts, (p.span + 1) * state);
  }
  template <class Take> void lay_errors(Take take);  // delta.cpp
  template <class Take> void lay_moves(Take take);   // general.cpp

  void run(Int job) {
    n = job / p.H, h = job % p.H;
    at_q = {p.H, p.hq, h}, at_k = {p.H, p.hk, h}, at_v = {p.H, p.hv, h}, at_o = {p.H, p.H, h};
    at_g = {p.H, p.hg, h}, at_gk = {p.H, p.hgk, h}, at_gv = {p.H, p.hgv, h};
    v = p.v;
    if constexpr (rule == Rule::correct) find_errors();
    if (p.bonus) copy_row(p.bonus + n * p.bonus_step + h * p.K, p.K, bonus, key.n);
    backwards ? backward() : forward();
  }

  static Int lanes(Int channels, Int j) { return std::clamp<Int>(channels - j * L, 0, L); }
  static void copy_row(const F *x, Int channels, Vec *y, Int n) {
    for (Int j = 0; j < channels / L; ++j) std::memcpy(y + j, x + j * L, BYTES);
    for (Int j = channels / L; j < n; ++j) y[j] = load(x + j * L, lanes(channels, j));
  }
  // y ← or += factor x
  static void put(const Vec *x, F *y, Int channels, F factor = 1, bool add = false) {
    for (Int j = 0; j * L < channels; ++j) {
      const Int count = lanes(channels, j);
      Vec z = factor * x[j];
      if (add) z += load(y + j * L, count);
      if (count == L) std::memcpy(y + j * L, &z, BYTES);
      else store<F>(z, y + j * L, count);
    }
  }

  void load_state(const F *x, Vec *S, Vec *rest) const {
    std::fill_n(rest, rows * value.n, Vec{});
    if (!x) return std::fill_n(S, rows * value.n, Vec{}), void();
    for (Int i = 0; i < p.K; ++i) copy_row(x + i * p.V, value.channels, S + i * value.n, value.n);
    std::fill_n(S + p.K * value.n, (rows - p.K) * value.n, Vec{});
  }
  void store_state(const Vec *S, F *x) const {
    for (Int i = 0; x && i < p.K; ++i) put(S + i * value.n, x + i * p.V, value.channels);
  }
  Int state_of(Int sequence) const { return (sequence * p.H + h) * p.K * p.V; }
  Int place(Int chunk) const { return state_of(p.span_offsets[n] + chunk / p.span); }

  // `count` tokens of a tensor from t on, zeros behind them.
  void copy(const F *x, const Head &at, Int t, Int count, const Side<F> &side, Vec *y) {
    const Int channels = side.channels;
    for (Int c = 0; c < count; ++c) copy_row(x + at(t + c) * channels, channels, y + c * side.n, side.n);
    std::fill(y + count * side.n, y + steps * side.n, Vec{});
    coming.add(x + at(t + onward) * channels, at.heads * channels, channels);
  }

  void load_writes(Int begin, Int end) {
    t0 = begin, count = std::min(C, end - begin), steps = (count + TALL - 1) / TALL * TALL;
    coming.clear();
    copy(p.k, at_k, t0, count, key, key.write);
    copy(v, at_v, t0, count, value, value.write);
    if (key.gated) copy(p.gk, at_gk, t0, count, key, key.gate);
    if (value.gated) copy(p.gv, at_gv, t0, count, value, value.gate);
    if (scalar) weigh_rows();
    else if (p.g) add_scalar_gates(key.gated ? key : value);
    if (key.gated) key.weigh_writes(steps);
    if (value.gated) value.weigh_writes(steps);
    if constexpr (rule == Rule::move) load_moved();
  }
  void add_scalar_gates(Side<F> &side) const {
    for (Int c = 0; c < count; ++c)
      for (Int j = 0; j < side.n; ++j) side.gate[c * side.n + j] += p.g[at_g(t0 + c)];
  }

  void load_reads(Int end) {
    reads = std::min(C, end - t0 - shift);
    copy(p.q, at_q, t0 + shift, reads, key, key.read);
    for (Int i = 0; i < reads * key.n; ++i) key.read[i] *= F(p.scale);
    if (backwards) copy(p.d_o, at_o, t0 + shift, reads, value, value.read);
    if (scalar) weigh_pairs();
    if (key.gated) key.weigh_reads(steps);
    if (value.gated) value.weigh_reads(steps);
  }

  static void exponentials(F *x) {
    for (Int j = 0; j < CN; ++j) store<F>(exponential<F>(load(x + j * L, L)), x + j * L, L);
  }
  void weigh_rows();                               // scalar.h
  void weigh_pairs();
  void d_rows(const Vec *S, bool last);
  void weigh(const Side<F> &side, const F *weight, const Vec *x, Vec *y) const {
    for (Int c = 0; c < steps; ++c)
      for (Int j = 0; j < side.n; ++j) y[c * side.n + j] = weight[c] * x[c * side.n + j];
  }
  // to ← decay ⊙ from + Σ_c x_c y_cᵀ, and the same of a second x and y, if there are any.
  void carry(const Vec *from, Vec *to, Vec *rest, const Vec *x, const Vec *y, const Vec *x2 = nullptr, const Vec *y2 = nullptr) {
    const F *keep = scalars<F>(key.keep), *change = scalars<F>(key.change);
    columns<SLIM>(value.n, [&](auto width, Int j0) {
      constexpr int J = width, R = ROWS<J>;
      for (Int i = 0; i < p.K; i += R) {
        coming.ask();
        Vec sum[R][J] = {};
        add_products<ACROSS>(sum, scalars<F>(x) + i, rows, y + j0, value.n, steps);
        if constexpr (rule != Rule::add)
          if (x2) add_products<ACROSS>(sum, scalars<F>(x2) + i, rows, y2 + j0, value.n, steps);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
          for (int j = 0; j < J; ++j) {
            const Int at = (i + r) * value.n + j0 + j;
            const F m = keep[i + r], d = change[i + r];
            Vec s = from[at];
            if (!value.gated) {
              add<F>(s, rest[at], Vec{} + m, Vec{} + d, sum[r][j]);
            } else {
              const Vec mv = value.keep[j0 + j], dv = value.change[j0 + j];
              add<F>(s, rest[at], m * mv, d * dv + (m * dv + d * mv), sum[r][j]);
            }
            to[at] = s;
          }
      }
    });
  }

  void forward() {
    const Int begin = p.offsets[n], end = p.offsets[n + 1];
    load_state(p.initial ? p.initial + state_of(n) : nullptr, S, rest);
    if (shift && begin < end) read_first(begin);
    for (Int t = begin, chunk = 0; t < end; t += C, ++chunk) {
      if (p.checkpoints && chunk % p.span == 0) store_state(S, p.checkpoints + place(chunk));
      load_writes(t, end), load_reads(end);
      if constexpr (rule == Rule::correct) correct();
      if constexpr (rule == Rule::move) move();
      outputs();
      carry_writes(S, S);
    }
    store_state(S, p.final ? p.final + state_of(n) : nullptr);
  }

  void carry_writes(const Vec *from, Vec *to) {
    if constexpr (rule == Rule::move) carry(from, to, rest, key.late, value.late, keys[0][1].late, values[0][1].late);
    else carry(from, to, rest, key.late, value.late);
  }

  void outputs() {
    if constexpr (rule != Rule::move) key.meet(to_value, spare, scalar ? weights : nullptr, steps);
    if (value.gated) value.give_through_gates(to_value, false, steps);
    F *o = p.o + at_o(t0 + shift) * p.V;
    coming.add(o + C * p.H * p.V, p.H * p.V, p.V);
    const bool whole = reads == C && value.channels % L == 0;
    value.template take<EARLIER, rule == Rule::move>(key.early, key.n, p.K, S, to_value, whole ? o : scalars<F>(value.d_read),
                                                  whole ? p.H * p.V : value.n * L, steps, &values[0][1], key_pairs[0][1]);
    for (Int c = 0; c < reads && !whole; ++c) put(value.d_read + c * value.n, o + c * p.H * p.V, value.channels);
    if constexpr (rule == Rule::add)
      if (p.bonus) add_bonus(t0 + shift, reads);
  }

  // The first token reads the initial state.
  void read_first(Int t) {
    steps = 1;
    copy(p.q, at_q, t, 1, key, key.read);
    multiply(key.read, p.K, S, value.n, value.d_read);
    put(value.d_read, p.o + at_o(t) * p.V, value.channels, F(p.scale));
    if constexpr (rule == Rule::add)
      if (p.bonus) add_bonus(t, 1);
  }
  static void multiply(const Vec *x, Int count, const Vec *M, Int n, Vec *y) {
    columns(n, [&](auto width, Int j) {
      Vec sum[1][width] = {};
      add_products<ALONG>(sum, scalars<F>(x), 0, M + j, n, count);
      std::copy_n(sum[0], int(width), y + j);
    });
  }

  Vec part(const F *x, Int channels, Int j) const { return load(x + j * L, lanes(channels, j)); }
  static F total(Vec x) {
    F sum = 0;
    for (Int l = 0; l < L; ++l) sum += x[l];
    return sum;
  }
  void add_bonus(Int begin, Int count) const;      // scan.cpp
  void add_bonus_gradients(Int begin, Int count);
  void find_errors();                              // delta.cpp
  void load_errors();
  void correct();
  void error_gradients(const Vec *S);
  void write_errors() const;
  void load_moved();                               // general.cpp
  void load_moves();
  void move();
  void move_gradients(const Vec *S);
  void write_moves() const;

  void backward() {
    const Int begin = p.offsets[n], end = p.offsets[n + 1], size = rows * value.n, last = (end - begin + C - 1) / C - 1;
    load_state(p.d_final ? p.d_final + state_of(n) : nullptr, dS, d_rest);
    std::fill_n(d_bonus, key.n, Vec{});
    transpose<F>(dS, rows, value.n, d_flipped);
    for (Int chunk = last; chunk >= 0; --chunk) {
      const Int within = chunk % p.span, t = begin + chunk * C;
      if (chunk == last || within == p.span - 1) run_again(chunk - within, t, end);
      load_writes(t, end), load_reads(end);
      if constexpr (rule == Rule::add) gradients(starts + within * size);
      if constexpr (rule == Rule::correct) error_gradients(starts + within * size);
      if constexpr (rule == Rule::move) move_gradients(starts + within * size);
      gate_gradients(starts + within * size, chunk == last);
      write();
      if constexpr (rule == Rule::correct) write_errors();
      if constexpr (rule == Rule::move) write_moves();
      if constexpr (rule == Rule::add)
        if (p.bonus) add_bonus_gradients(t0 + shift, reads);
    }
    if (shift && begin < end) read_first_back(begin);
    if (p.d_initial) store_state(dS, p.d_initial + state_of(n));
    if (p.bonus && p.d_bonus) put(d_bonus, p.d_bonus + (n * p.H + h) * p.K, p.K);
  }

  // The states before the chunks of a span, up to the one that begins at `stop`.
  void run_again(Int chunk, Int stop, Int end) {
    Vec *state = starts;
    load_state(p.checkpoints + place(chunk), state, rest);
    onward = C;
    for (Int t = p.offsets[n] + chunk * C; t < stop; t += C) {
      load_writes(t, end);
      carry_writes(state, state + rows * value.n);
      state += rows * value.n;
    }
    onward = -C;
  }

  void gradients(const Vec *S) {
    transpose<F>(S, rows, value.n, flipped);
    key.meet(to_value, spare, scalar ? weights : nullptr, steps);
    value.meet(to_key, spare, scalar ? weights : nullptr, steps);
    if (key.gated) key.give_through_gates(to_key, true, steps);
    if (value.gated) value.give_through_gates(to_value, true, steps);
    take<EARLIER>(key, value.early, value, flipped, to_key, key.d_read);
    take<LATER>(key, value.late, value, d_flipped, to_key, key.d_write);
    take<LATER>(value, key.late, key, dS, to_value, value.d_write);
    if (value.gated) take<EARLIER>(value, key.early, key, S, to_value, value.d_read);
    carry(dS, dS, d_rest, key.early, value.early);
  }
  template <Part P, bool Two = false>
  void take(const Side<F> &side, const Vec *x, const Side<F> &from, const Vec *M, const Vec *pairs, Vec *y,
            const Side<F> *second = nullptr, const Vec *second_pairs = nullptr) const {
    side.template take<P, Two>(x, from.n, from.channels, M, pairs, scalars<F>(y), side.n * L, steps, second, second_pairs);
  }
  void gate_gradients(const Vec *S, bool last) {
    transpose<F>(dS, rows, value.n, d_flipped);
    if (key.gated && (p.d_gk || p.d_g)) key.d_gates(flipped, d_flipped, p.V, last, steps);
    if (value.gated && (p.d_gv || p.d_g)) value.d_gates(S, dS, p.K, last, steps);
    if (scalar && p.d_g) d_rows(S, last);
  }

  void write() {
    for (Int c = 0; c < reads && p.d_q; ++c)
      put(key.d_read + c * key.n, p.d_q + at_o(t0 + shift + c) * p.K, p.K, F(p.scale));
    for (Int c = 0; c < count; ++c) {
      const Int to = at_o(t0 + c);
      if (p.d_k) put(key.d_write + c * key.n, p.d_k + to * p.K, p.K);
      if (p.d_v && rule != Rule::correct) put(value.d_write + c * value.n, p.d_v + to * p.V, p.V);
      if (p.d_gk) put(key.d_gate + c * key.n, p.d_gk + to * p.K, p.K);
      if (p.d_gv) put(value.d_gate + c * value.n, p.d_gv + to * p.V, p.V);
      if (p.d_g && !scalar) p.d_g[to] = shared(key.gated ? key : value, c);
    }
  }
  // The gradient of a scalar gate that is part of every channel's.
  static F shared(const Side<F> &side, Int c) {
    Vec sum = {};
    for (Int j = 0; j < side.n; ++j)
      for (Int l = 0; l < L; ++l) sum[l] += j * L + l < side.channels ? side.d_gate[c * side.n + j][l] : F(0);
    return total(sum);
  }

  void read_first_back(Int t) {
    steps = 1;
    copy(p.q, at_q, t, 1, key, key.read);
    copy(p.d_o, at_o, t, 1, value, value.read);
    multiply(value.read, p.V, flipped, key.n, key.d_read);
    if (p.d_q) put(key.d_read, p.d_q + at_o(t) * p.K, p.K, F(p.scale));
    if constexpr (rule == Rule::add)
      if (p.bonus) add_bonus_gradients(t, 1);
    const Vec one = Vec{} + F(1);
    for (Int i = 0; i < p.K; ++i)
      for (Int j = 0; j < value.n; ++j) {
        const Int at = i * value.n + j;
        add<F>(dS[at], d_rest[at], one, Vec{}, F(p.scale) * scalars<F>(key.read)[i] * value.read[j]);
      }
  }
};

#include "scalar.h"

template <class F, Rule rule> static void run(const Problem<F> &p, bool backward) {
  parallel(p.N * p.H, p.threads, [&] {
    return [lane = Lane<F, rule>(p, backward)](Int job) mutable { lane.run(job); };
  });
}
