// Gated linear attention on CPU cores: all pairs of tokens inside a chunk, the state from chunk to chunk.
//
// Keys and values play the same game: a read (q, or d_o) meets earlier writes (k, or v) through the gates between them.
// So both are a Side, and each formula stands here once: the outputs are the gradients of d_o.
// A state changes once a chunk, S ← S + (expm1(Σ log gates) S + writes), and what that sum rounds off is kept: the error
// does not grow with the number of tokens. Full gates are in full.cpp.

#include "problem.h"

// One side of a head: reads and writes of a chunk, [C, n] vectors, and the gates of its channels.
template <class F> struct Side {
  using Vec = typename Vector<F>::type;
  Int n;                      // vectors of channels
  bool gated, pairwise;       // gates at all; one for each channel instead of one for all
  Vec *read, *write, *gate;   // gate: of a token; log gates until `weigh`
  Vec *until, *since;         // products of the gates from the chunk's start to a token, after a token to the end
  Vec *early, *late;          // read ⊙ until, write ⊙ since
  Vec *d_read, *d_write, *d_gate;
  Vec *keep, *change;         // [n]: the whole chunk's decay is keep + change, keep 0 or 1
  Vec *passing;               // [n]: d_gate of the first token behind the chunk
};

// out[c] += Σ_i x[c, i] M[i], for J of M's columns; x at c * xc + i * xi. LATER: only i ≥ c, EARLIER: only i ≤ c.
enum Part { ALL, EARLIER, LATER };
template <class F, int J> static void multiply(const F *x, Int xc, Int xi, const typename Vector<F>::type *M, Int m, Int rows,
                                               typename Vector<F>::type *out, Int n, Int steps, Part part) {
  using Vec = typename Vector<F>::type;
  constexpr int R = J == 4 ? 4 : 8;
  for (Int c = 0; c < steps; c += R) {
    const Int begin = part == LATER ? c : 0, end = part == EARLIER ? std::min(c + R, rows) : rows;
    for (Int i0 = begin; i0 < end; i0 += 16) {  // short sums round less
      Vec sum[R][J] = {};
      for (Int i = i0; i < std::min(i0 + 16, end); ++i)
        for (int r = 0; r < R; ++r)
          for (int j = 0; j < J; ++j) sum[r][j] += x[(c + r) * xc + i * xi] * M[i * m + j];
      for (int r = 0; r < R; ++r)
        for (int j = 0; j < J; ++j) out[(c + r) * n + j] += sum[r][j];
    }
  }
}

// The same for all n columns.
template <class F> static void multiply(const F *x, Int xc, Int xi, const typename Vector<F>::type *M, Int rows,
                                        typename Vector<F>::type *out, Int n, Int steps, Part part = ALL) {
  for (Int j = 0; j < n;) {
    if (n - j >= 4) multiply<F, 4>(x, xc, xi, M + j, n, rows, out + j, n, steps, part), j += 4;
    else if (n - j >= 2) multiply<F, 2>(x, xc, xi, M + j, n, rows, out + j, n, steps, part), j += 2;
    else multiply<F, 1>(x, xc, xi, M + j, n, rows, out + j, n, steps, part), j += 1;
  }
}

// y [columns * L, rows / L] ← x [rows, columns] transposed; rows in lanes.
template <class F> static void transpose(const typename Vector<F>::type *x, Int rows, Int columns, typename Vector<F>::type *y) {
  constexpr Int L = 64 / sizeof(F);
  for (Int i = 0; i < rows / L; ++i)
    for (Int j = 0; j < columns; ++j) {
      typename Vector<F>::type square[L];
      for (Int l = 0; l < L; ++l) square[l] = x[(i * L + l) * columns + j];
      flip(square);
      for (Int l = 0; l < L; ++l) y[(j * L + l) * (rows / L) + i] = square[l];
    }
}

// One head of one sequence after the other, NV vectors of value channels at a time.
template <class F, int NV> struct Lane {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = 64 / sizeof(F), W = NV * L, CN = C / L;

  const Problem<F> &p;
  const Int nk, rows;             // vectors of key channels, and key channels with padding
  std::vector<Vec> memory;
  Side<F> key, value;
  Vec *S, *rest, *dS, *d_rest;    // [rows, NV]: states, their gradients, and what rounding took from them
  Vec *flipped, *d_flipped;       // [W, nk]: transposed
  Vec *starts;                    // [span, rows, NV]: the states before the chunks of a span, computed again
  Vec *weights, *to_value, *to_key, *columns;  // [C, CN], token in lanes: scalar gates' weights; q·k and d_o·v times them
  Int n = 0, h = 0, first = 0, width = 0, steps = 0;  // sequence, head, first value channel, channels, padded tokens
  Head at_q, at_k, at_v, at_g, at_gk, at_gv;

  Lane(const Problem<F> &p, bool backward) : p(p), nk((p.K + L - 1) / L), rows(nk * L) {
    Int used = 0;
    const auto lay = [&](auto take) {  // once to count, once to hand out
      for (Side<F> *side : {&key, &value}) {
        side->n = side == &key ? nk : NV;
        for (Vec **x : {&side->read, &side->write, &side->gate, &side->until, &side->since, &side->early, &side->late,
                        &side->d_read, &side->d_write, &side->d_gate})
          take(x, C * side->n);
        for (Vec **x : {&side->keep, &side->change, &side->passing}) take(x, side->n);
      }
      for (Vec **x : {&S, &rest}) take(x, rows * NV);
      for (Vec **x : {&weights, &to_value, &to_key}) take(x, C * CN);
      take(&columns, std::max(rows, W) * CN);
      if (!backward) return;
      for (Vec **x : {&dS, &d_rest}) take(x, rows * NV);
      for (Vec **x : {&flipped, &d_flipped}) take(x, W * nk);
      take(&starts, p.span * rows * NV);
    };
    lay([&](Vec **, Int size) { used += size; });
    memory.resize(used);
    used = 0;
    lay([&](Vec **x, Int size) { *x = memory.data() + used, used += size; });
    key.gated = p.g || p.gk, key.pairwise = p.gk, value.gated = value.pairwise = p.gv;
    for (Int s = 0; s < C; ++s)
      for (Int t = s; t < C; ++t) scalars(weights)[s * C + t] = 1;
  }

  static F *scalars(Vec *x) { return reinterpret_cast<F *>(x); }
  static const F *scalars(const Vec *x) { return reinterpret_cast<const F *>(x); }
  static Int lanes(Int channels, Int j) { return std::clamp<Int>(channels - j * L, 0, L); }

  void run(Int job, Int first_channel, bool backward) {
    n = job / p.H, h = job % p.H, first = first_channel, width = std::min(W, p.V - first);
    const auto head = [&](Int heads) { return Head{heads, h / (p.H / std::max<Int>(heads, 1))}; };
    at_q = {p.H, h}, at_k = head(p.hk), at_v = head(p.hv), at_g = head(p.hg), at_gk = head(p.hgk), at_gv = head(p.hgv);
    backward ? this->backward() : forward();
  }

  void load_state(const F *x, Vec *S, Vec *rest) const {
    std::fill_n(S, rows * NV, Vec{}), std::fill_n(rest, rows * NV, Vec{});
    for (Int i = 0; x && i < p.K; ++i)
      for (int j = 0; j < NV; ++j) S[i * NV + j] = load(x + i * p.V + first + j * L, lanes(width, j));
  }
  void store_state(const Vec *S, F *x) const {
    for (Int i = 0; i < p.K; ++i)
      for (int j = 0; j < NV; ++j) store<F>(S[i * NV + j], x + i * p.V + first + j * L, lanes(width, j));
  }
  void take(const F *x, Int channels, Vec *y, Int n) const {
    for (Int j = 0; j < n; ++j) y[j] = load(x + j * L, lanes(channels, j));
  }

  // Queries, keys, values and log gates of a chunk, zeros behind its last token.
  void load_chunk(Int t0, Int t1) {
    const Int count = t1 - t0;
    steps = (count + 7) / 8 * 8;
    for (Int c = 0; c < count; ++c) {
      take(p.q + at_q(t0 + c) * p.K, p.K, key.read + c * nk, nk);
      take(p.k + at_k(t0 + c) * p.K, p.K, key.write + c * nk, nk);
      take(p.v + at_v(t0 + c) * p.V + first, width, value.write + c * NV, NV);
      if (p.gk) take(p.gk + at_gk(t0 + c) * p.K, p.K, key.gate + c * nk, nk);
      if (p.gv) take(p.gv + at_gv(t0 + c) * p.V + first, width, value.gate + c * NV, NV);
      if (p.g && p.gk)
        for (Int j = 0; j < nk; ++j) key.gate[c * nk + j] += p.g[at_g(t0 + c)];
    }
    for (Side<F> *side : {&key, &value})
      for (Vec *x : {side->read, side->write, side->gate}) std::fill(x + count * side->n, x + steps * side->n, Vec{});
    for (Int i = 0; i < count * nk; ++i) key.read[i] *= p.scale;
    if (p.d_o)
      for (Int c = 0; c < count; ++c) take(p.d_o + at_q(t0 + c) * p.V + first, width, value.read + c * NV, NV);
    weigh_pairs(t0, count);
    weigh(key), weigh(value);
  }

  // weights[s, t] of scalar gates: exp Σ_{s < u ≤ t} g_u, sums of their own and never differences; 0 before s.
  void weigh_pairs(Int t0, Int count) {
    if (p.gk || !p.g) return;
    using Eight = Vector<double>::type;
    typedef F Rounded __attribute__((vector_size(8 * sizeof(F))));
    double g[C + 1] = {}, total = 0;
    alignas(64) F single[C], prefix[C], suffix[C];
    for (Int c = 0; c < count; ++c) g[c] = p.g[at_g(t0 + c)];
    const Eight lane = {0, 1, 2, 3, 4, 5, 6, 7};
    Eight sums[2] = {Eight{} - INFINITY, Eight{} - INFINITY};
    for (Int s = C - 1; s >= 0; --s) {
      Rounded halves[2];
      for (int i = 0; i < 2; ++i) {
        sums[i] = lane == double(s - 8 * i) ? Eight{} : sums[i] + g[s + 1];
        halves[i] = __builtin_convertvector(sums[i], Rounded);
      }
      Vec row[CN];
      std::memcpy(row, halves, sizeof row);
      for (Int j = 0; j < CN; ++j) weights[s * CN + j] = exponential<F>(row[j]);
      suffix[s] = scalars(weights)[s * C + C - 1];
    }
    for (Int c = 0; c < C; ++c) single[c] = F(g[c]), prefix[c] = F(total += g[c]);
    for (F *x : {single, prefix})
      for (Int j = 0; j < CN; ++j) store<F>(exponential<F>(load(x + j * L, L)), x + j * L, L);
    for (Int c = 0; c < steps; ++c)
      for (Int j = 0; j < nk; ++j) {
        key.gate[c * nk + j] = Vec{} + single[c];
        key.until[c * nk + j] = Vec{} + prefix[c], key.since[c * nk + j] = Vec{} + suffix[c];
      }
    for (Int j = 0; j < nk; ++j) decay<F>(Vec{} + F(total), key.keep[j], key.change[j]);
  }

  // Gates from log gates, their products from both ends, and reads and writes weighted by them.
  void weigh(Side<F> &side) {
    const Int n = side.n;
    for (Int j = 0; j < n && side.pairwise; ++j) {
      Vec sum = {}, behind = {};
      for (Int c = steps - 1; c >= 0; --c) side.since[c * n + j] = exponential<F>(behind), behind += side.gate[c * n + j];
      for (Int c = 0; c < steps; ++c) {
        const Int i = c * n + j;
        side.until[i] = exponential<F>(sum += side.gate[i]), side.gate[i] = exponential<F>(side.gate[i]);
      }
      decay<F>(sum, side.keep[j], side.change[j]);
    }
    for (Int j = 0; j < n && !side.gated; ++j) side.keep[j] = Vec{} + F(1), side.change[j] = Vec{};
    for (Int i = 0; i < steps * n; ++i) {
      side.early[i] = side.gated ? side.read[i] * side.until[i] : side.read[i];
      side.late[i] = side.gated ? side.write[i] * side.since[i] : side.write[i];
    }
  }

  // out[s, t] = Σ read_t ⊙ gates between ⊙ write_s, times the scalar gates' weights.
  void meet(const Side<F> &side, Vec *out) {
    const Int n = side.n;
    if (!side.pairwise) {
      std::fill_n(out, C * CN, Vec{});
      transpose<F>(side.read, C, n, columns);
      multiply<F>(scalars(side.write), n * L, 1, columns, side.n * L, out, CN, steps);
    } else {
      for (Int s = 0; s < steps; ++s) {
        Vec products[C] = {};
        for (Int j = 0; j < n;) {
          if (n - j >= 4) meet<4>(side, s, j, products), j += 4;
          else if (n - j >= 2) meet<2>(side, s, j, products), j += 2;
          else meet<1>(side, s, j, products), j += 1;
        }
        for (Int i = 0; i < CN; ++i) out[s * CN + i] = row_sums<F>([&](int l) { return products[i * L + l]; });
      }
      std::fill(out + steps * CN, out + C * CN, Vec{});
    }
    for (Int i = 0; i < C * CN; ++i) out[i] *= weights[i];
  }
  template <int J> void meet(const Side<F> &side, Int s, Int j0, Vec *products) const {
    Vec x[J];
    for (int j = 0; j < J; ++j) x[j] = side.write[s * side.n + j0 + j];
    for (Int t = s; t < steps; ++t) {
      Vec sum = products[t];
      for (int j = 0; j < J; ++j) {
        const Int i = t * side.n + j0 + j;
        if (t > s) x[j] *= side.gate[i];
        sum += x[j] * side.read[i];
      }
      products[t] = sum;
    }
  }

  // What the tokens of the chunk give to one another's gradients, through pairs[s, t] of the other side.
  void give(Side<F> &side, const Vec *pairs, bool both) const {
    const F *x = scalars(pairs);
    const Int n = side.n;
    if (!side.pairwise) {
      multiply<F>(x, 1, C, side.write, steps, side.d_read, n, steps, EARLIER);
      if (both) multiply<F>(x, C, 1, side.read, steps, side.d_write, n, steps, LATER);
      return;
    }
    for (Int s = 0; s < steps; ++s)
      for (Int j = 0; j < n;) {
        if (n - j >= 4) give<4>(side, x, s, j, both), j += 4;
        else if (n - j >= 2) give<2>(side, x, s, j, both), j += 2;
        else give<1>(side, x, s, j, both), j += 1;
      }
  }
  template <int J> void give(Side<F> &side, const F *pairs, Int s, Int j0, bool both) const {
    Vec weight[J], write[J], sum[J];
    for (int j = 0; j < J; ++j) {
      const Int i = s * side.n + j0 + j;
      weight[j] = Vec{} + F(1), write[j] = side.write[i], sum[j] = side.d_write[i];
    }
    for (Int t = s; t < steps; ++t) {
      const F x = pairs[s * C + t];
      for (int j = 0; j < J; ++j) {
        const Int i = t * side.n + j0 + j;
        if (t > s) weight[j] *= side.gate[i];
        side.d_read[i] += x * (weight[j] * write[j]);
        if (both) sum[j] += x * (weight[j] * side.read[i]);
      }
    }
    for (int j = 0; j < J && both; ++j) side.d_write[s * side.n + j0 + j] = sum[j];
  }

  // y ← (x · state) ⊙ weights: what the state before the chunk, or the gradient of the one behind it, gives.
  void through(const Vec *x, Int channels, const Vec *state, Int state_rows, const Side<F> &side, const Vec *weights, Vec *y) const {
    std::fill_n(y, steps * side.n, Vec{});
    multiply<F>(scalars(x), channels, 1, state, state_rows, y, side.n, steps);
    for (Int i = 0; i < steps * side.n && side.gated; ++i) y[i] *= weights[i];
  }

  // state ← decay ⊙ state + Σ_c x_c y_cᵀ.
  void carry(Vec *state, Vec *rest, const Vec *x, const Vec *y) const {
    const F *keep = scalars(key.keep), *change = scalars(key.change), *scalar = scalars(x);
    for (Int i = 0; i < p.K; i += 4) {
      Vec sum[4][NV] = {};
      for (Int c = 0; c < steps; ++c)
        for (int r = 0; r < 4; ++r)
          for (int j = 0; j < NV; ++j) sum[r][j] += scalar[c * rows + i + r] * y[c * NV + j];
      for (int r = 0; r < 4; ++r)
        for (int j = 0; j < NV; ++j) {
          Vec &s = state[(i + r) * NV + j], &e = rest[(i + r) * NV + j];
          const F m = keep[i + r], d = change[i + r];
          if (!value.gated) {
            add<F>(s, e, Vec{} + m, Vec{} + d, sum[r][j]);
          } else {
            const Vec mv = value.keep[j], dv = value.change[j];
            add<F>(s, e, m * mv, d * dv + (m * dv + d * mv), sum[r][j]);
          }
        }
    }
  }

  const F *checkpoint(Int chunk) const { return p.checkpoints + place(chunk); }
  Int place(Int chunk) const { return ((p.span_offsets[n] + chunk / p.span) * p.H + h) * p.K * p.V; }

  void forward() {
    const Int at = (n * p.H + h) * p.K * p.V, end = p.offsets[n + 1];
    load_state(p.initial ? p.initial + at : nullptr, S, rest);
    Int chunk = 0;
    for (Int t0 = p.offsets[n]; t0 < end; t0 += C, ++chunk) {
      if (p.checkpoints && chunk % p.span == 0) store_state(S, p.checkpoints + place(chunk));
      load_chunk(t0, std::min(t0 + C, end));
      meet(key, to_value);
      through(key.early, rows, S, p.K, value, value.until, value.d_read);
      give(value, to_value, false);
      carry(S, rest, key.late, value.late);
      for (Int t = t0; t < std::min(t0 + C, end); ++t) put(value.d_read + (t - t0) * NV, p.o + at_q(t) * p.V + first, width, NV);
    }
    store_state(S, p.final + at);
  }

  void backward() {
    const Int at = (n * p.H + h) * p.K * p.V, begin = p.offsets[n], end = p.offsets[n + 1], size = rows * NV;
    load_state(p.d_final ? p.d_final + at : nullptr, dS, d_rest);
    transpose<F>(dS, rows, NV, d_flipped);
    for (Int c = (end - begin + C - 1) / C - 1, last = c; c >= 0; --c) {
      const Int within = c % p.span, t0 = begin + c * C, t1 = std::min(t0 + C, end);
      if (c == last || within == p.span - 1) {
        load_state(checkpoint(c), S, rest);
        for (Int i = 0; i < within; ++i) {
          std::copy_n(S, size, starts + i * size);
          load_chunk(t0 - (within - i) * C, t0 - (within - i - 1) * C);
          carry(S, rest, key.late, value.late);
        }
        std::copy_n(S, size, starts + within * size);
      }
      load_chunk(t0, t1);
      gradients(starts + within * size, c == last);
      write(t0, t1);
    }
    if (p.d_initial) store_state(dS, p.d_initial + at);
  }

  void gradients(const Vec *S, bool last) {
    transpose<F>(S, rows, NV, flipped);
    meet(key, to_value), meet(value, to_key);
    through(value.early, W, flipped, W, key, key.until, key.d_read);
    through(value.late, W, d_flipped, W, key, key.since, key.d_write);
    give(key, to_key, true);
    through(key.late, rows, dS, p.K, value, value.since, value.d_write);
    if (value.gated) through(key.early, rows, S, p.K, value, value.until, value.d_read);
    give(value, to_value, true);
    carry(dS, d_rest, key.early, value.early);
    transpose<F>(dS, rows, NV, d_flipped);
    if (key.gated) d_gates(key, flipped, d_flipped, W, last);
    if (value.gated) d_gates(value, S, dS, p.K, last);
  }

  // The gradient of a log gate is what passes it: at the first token S ⊙ dS; each token then takes its read, adds its
  // write. From the middle on, as seen from what passes behind the chunk: the shorter way adds up less rounding.
  void d_gates(Side<F> &side, const Vec *state, const Vec *d_state, Int m, bool last) const {
    const Vec one = Vec{} + F(1);
    for (Int j = 0; j < side.n; ++j) {
      Vec passing = {}, rest = {};
      const auto change = [&](Int c, F sign) {
        const Int i = c * side.n + j;
        add<F>(passing, rest, one, Vec{}, sign * side.write[i] * side.d_write[i]);
        add<F>(passing, rest, one, Vec{}, -sign * side.read[i] * side.d_read[i]);
      };
      const auto pass = [&](Int c) {  // exactly nothing passes a gate of 0
        const Int i = c * side.n + j;
        const auto open = side.gate[i] != 0;
        side.d_gate[i] = passing = open ? passing : Vec{}, rest = open ? rest : Vec{};
      };
      for (Int i = 0; i < m; ++i) add<F>(passing, rest, one, Vec{}, state[i * side.n + j] * d_state[i * side.n + j]);
      const Int middle = last ? steps : steps / 2;
      for (Int c = 0; c < middle; ++c) pass(c), change(c, 1);
      passing = side.passing[j], rest = Vec{};
      for (Int c = steps - 1; c >= middle; --c) change(c, -1), pass(c);
      side.passing[j] = side.d_gate[j];
    }
  }

  void put(const Vec *x, F *y, Int channels, Int n, bool add = false) const {
    for (Int j = 0; j < n && j * L < channels; ++j) {
      const Int count = lanes(channels, j);
      store<F>(add ? x[j] + load(y + j * L, count) : x[j], y + j * L, count);
    }
  }

  // The tiles of value channels add up their shares of the gradients of q, k and the gates.
  void write(Int t0, Int t1) {
    for (Int i = 0; i < steps * nk; ++i) key.d_read[i] *= p.scale;
    for (Int t = t0; t < t1; ++t) {
      const Int to = at_q(t), c = t - t0;
      put(key.d_read + c * nk, p.d_q + to * p.K, p.K, nk, first);
      put(key.d_write + c * nk, p.d_k + to * p.K, p.K, nk, first);
      put(value.d_write + c * NV, p.d_v + to * p.V + first, width, NV);
      if (p.d_gk) put(key.d_gate + c * nk, p.d_gk + to * p.K, p.K, nk, first);
      if (p.d_gv) put(value.d_gate + c * NV, p.d_gv + to * p.V + first, width, NV);
      if (!p.d_g) continue;
      Vec sum = {};
      for (Int j = 0; j < nk; ++j) sum += key.d_gate[c * nk + j];
      F d = first ? p.d_g[to] : F(0);
      for (Int l = 0; l < L; ++l) d += sum[l];
      p.d_g[to] = d;
    }
  }
};

template <class F, int NV> static void scan(const Problem<F> &p, bool backward) {
  parallel(p.N * p.H, p.threads, [&] {
    return [&p, backward, lane = Lane<F, NV>(p, backward)](Int job) mutable {
      for (Int first = 0; first < p.V; first += NV * 64 / sizeof(F)) lane.run(job, first, backward);
    };
  });
}

template <class F> static void scan(const Problem<F> &p, bool backward) {
  constexpr Int L = 64 / sizeof(F);
  if (p.V > 2 * L) scan<F, 4>(p, backward);
  else if (p.V > L) scan<F, 2>(p, backward);
  else scan<F, 1>(p, backward);
}

extern "C" {
void scan_float(const Problem<float> *p, int backward) { scan(*p, backward); }
void scan_double(const Problem<double> *p, int backward) { scan(*p, backward); }
}
