// Scalar gates alone: they weigh the rows of the value side and the pairs of tokens, and have one gradient for all channels.

#pragma once

// Scalar gates: their products from a token to the chunk's end, and the values weighted by them.
template <class F, Rule rule> inline void Lane<F, rule>::weigh_rows() {
  double total = 0;  // one sum for all channels: here double costs nothing
  for (Int c = C - 1; c >= 0; --c) {
    since[c] = F(total);
    if (c < count) total += p.g[at_g(t0 + c)];
  }
  exponentials(since);
  std::fill_n(key.keep, key.n, Vec{}), std::fill_n(key.change, key.n, Vec{});
  decay<F>(Vec{} + F(total), key.keep[0], key.change[0]);
  std::fill_n(key.keep, key.n, key.keep[0]), std::fill_n(key.change, key.n, key.change[0]);
  weigh(value, since, value.write, value.late);
}

// weights[s, t] = exp Σ_{s < u ≤ t} g_u, sums of their own and never differences; products up to a token; gates.
template <class F, Rule rule> inline void Lane<F, rule>::weigh_pairs() {
  constexpr int D = LANES<double>;
  constexpr Int EXACT = Side<F>::EXACT;  // every fourth row is an exponential; the others are products of a gate and the row
                                         // behind them, which round three times at most and take a third of the time
  typedef F Rounded __attribute__((vector_size(D * sizeof(F))));
  double g[C + 1] = {}, total = 0;
  for (Int c = 0; c < count; ++c) g[c] = p.g[at_g(t0 + c)];
  for (Int c = 0; c < C; ++c) gate[c] = F(g[c]), until[c] = F(total += g[c]);
  exponentials(gate), exponentials(until);
  typename Vector<double>::type sums[C / D] = {}, token[C / D];
  Vec at[CN];
  for (Int c = 0; c < C; ++c) token[c / D][c % D] = double(c), at[c / L][c % L] = F(c);
  for (Int s = steps - 1; s >= 0; --s) {
    Rounded row[C / D];
    for (Int i = 0; i < C / D; ++i) {
      sums[i] = token[i] > double(s) ? sums[i] + g[s + 1] : Vector<double>::type{};
      row[i] = __builtin_convertvector(sums[i], Rounded);
    }
    const bool exact = s % EXACT == EXACT - 1;  // as the last one is: steps are a multiple of EXACT
    if (exact) std::memcpy(weights + s * CN, row, sizeof row);
    for (Int j = s / L; j < CN; ++j) {
      Vec &x = weights[s * CN + j];
      x = exact ? exponential<F>(x) : at[j] > F(s) ? gate[s + 1] * weights[(s + 1) * CN + j] : Vec{} + F(1);
    }
  }
  if (backwards) weigh(value, until, value.read, value.early);
}

// As `d_gates`, for one gate that all channels share.
template <class F, Rule rule> inline void Lane<F, rule>::d_rows(const Vec *S, bool last) {
  double sum = 0, ahead = 0, change[C];
  columns(value.n, [&](auto J, Int j0) {
    Vec entering[J] = {}, rest[J] = {};
    Side<F>::entering(S + j0, dS + j0, value.n, p.K, entering, rest);
    for (int j = 0; j < J; ++j)
      for (Int l = 0; l < L; ++l) sum += double(entering[j][l]) + double(rest[j][l]);
  });
  for (Int i = 0; i < CN; ++i) {
    const auto changes = row_sums<F>([&](int l) {
      Vec sum = {};
      for (Int at = (i * L + l) * key.n, j = 0; j < key.n; ++j, ++at) sum += key.gain(at);
      return sum;
    });
    for (Int l = 0; l < L; ++l) change[i * L + l] = changes[l];
  }
  for (Int j = 0; j < key.n && key.also && key.also->ahead; ++j) ahead += total(key.also->first(j));
  sum -= ahead;
  double d_g[C];
  const Int middle = last ? steps : steps / 2;
  for (Int c = 0; c < middle; ++c) d_g[c] = sum = gate[c] != 0 ? sum : 0, sum += change[c];
  sum = passing;
  for (Int c = steps - 1; c >= middle; --c) d_g[c] = sum = gate[c] != 0 ? sum - change[c] : 0;
  passing = d_g[0] + ahead;
  for (Int c = 0; c < count; ++c) p.d_g[at_o(t0 + c)] = F(d_g[c]);
}
