"use strict";
// The mathematics of the page: weights from operands, one query at a time, backwards from it, as `gladient.lens.weights`
// computes them in float64. Nothing here draws.
const lens = (() => {
  const models = JSON.parse(document.getElementById("data").textContent);
  const cache = new WeakMap();

  // Operands
  async function inflate(text) {
    const raw = Uint8Array.from(atob(text), c => c.charCodeAt(0));
    const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }
  function joined(planes, size) {                                // bytes of equal weight lie together
    const n = planes.length / size, out = new Uint8Array(planes.length);
    for (let b = 0; b < size; b++) for (let i = 0; i < n; i++) out[i * size + b] = planes[b * n + i];
    return out.buffer;
  }
  const floats = async text => new Float32Array(joined(await inflate(text), 4));
  async function numbers(packed) {
    if (packed.f32 !== undefined) return floats(packed.f32);
    const Whole = { 1: Int8Array, 2: Int16Array, 4: Int32Array }[packed.bytes];
    const whole = new Whole(joined(await inflate(packed.integers), packed.bytes)), scales = await floats(packed.scales);
    const each = whole.length / scales.length;
    return Float32Array.from(whole, (v, i) => v * scales[Math.floor(i / each)]);
  }
  function decode(packed) {
    if (!cache.has(packed)) cache.set(packed, numbers(packed));
    return cache.get(packed);
  }
  async function ofHead(packed, head, heads) {
    if (!packed) return null;
    const all = await decode(packed), parts = packed.of ? Math.max(...packed.of) + 1 : heads;
    const size = all.length / parts, place = packed.of ? packed.of[head] : head;
    return all.subarray(place * size, (place + 1) * size);
  }
  async function operands(layer, head) {
    const x = { K: layer.size, before: layer.before, separable: layer.separable, pairs: layer.pairs, early: layer.erases_before };
    for (const name of ["q", "k", "gates", "rate", "write", "beta", "bonus", "norm", "scale", "sizes", "erase_query", "erase_key", "own", "phase"])
      x[name] = await ofHead(layer[name], head, layer.heads.length);
    x.T = x.k.length / x.K;
    x.each = x.gates ? x.gates.length / x.T : 0;                 // gates kept for each token
    x.channels = x.rate ? x.rate.length : x.each;                // gates that a token has
    if (x.phase) for (const name of ["q", "k"]) Object.assign(x, { [name + "Turn"]: turnOf(x, x[name]) });
    return x;
  }

  // Rotation: pairs of channels, each of a length that no turn changes, and a phase; those that do not turn have phase 0
  const first = (x, p) => x.pairs === "adjacent" ? 2 * p : p, second = (x, p) => x.pairs === "adjacent" ? 2 * p + 1 : p + x.K / 2;
  function turnOf(x, a) {
    const n = x.K / 2, P = x.phase.length / x.T, found = { size: new Float64Array(x.T * n), x: new Float64Array(x.T * n), y: new Float64Array(x.T * n) };
    for (let t = 0; t < x.T; t++) for (let p = 0; p < n; p++) {
      const size = Math.hypot(a[t * x.K + first(x, p)], a[t * x.K + second(x, p)]), phase = p < P ? x.phase[t * P + p] : 0;
      found.size[t * n + p] = size;
      found.x[t * n + p] = size * Math.cos(phase);
      found.y[t * n + p] = size * Math.sin(phase);
    }
    return found;
  }
  function turned(x, t, i, weight) {                              // decay times cosine, pairs by the most that they could add
    const n = x.K / 2, { qTurn: q, kTurn: k } = x;
    let sum = 0, most = 0;
    for (let p = 0; p < n; p++) {
      const a = t * n + p, b = i * n + p;
      sum += weight(p) * (q.x[a] * k.x[b] + q.y[a] * k.y[b]);
      most += q.size[a] * k.size[b];
    }
    return most ? sum / most : 0;
  }
  const gate = (x, i, c) => !x.channels ? 0 : x.rate ? x.gates[i] * x.rate[c] : x.gates[i * x.each + c];
  function closed(x, i) {                                         // how far a token's gates close, mean over channels
    if (!x.channels) return null;
    let sum = 0;
    for (let c = 0; c < x.channels; c++) sum += Math.exp(gate(x, i, c));
    return 1 - sum / x.channels;
  }

  // One query
  const quantities = x => ["gates", ...(x.phase ? ["turned"] : []), ...(x.separable ? ["similarity", "product"] : ["kept", "product", "erased"])];
  function dot(a, i, b, j, K) {
    let sum = 0;
    for (let c = 0; c < K; c++) sum += a[i + c] * b[j + c];
    return sum;
  }
  function row(x, t) {
    const found = Object.fromEntries(["gates", "similarity", "product", ...(x.phase ? ["turned"] : [])].map(name => [name, new Float64Array(t + 1)]));
    const { gates, similarity, product } = found, { q, k, K } = x, many = x.channels > 1;
    const past = new Float64Array(Math.max(1, x.channels));
    const shift = i => x.write ? x.write[i] - (x.scale ? x.scale[t] : 0) : 0;
    if (x.before && x.bonus) {
      for (let c = 0; c < K; c++) similarity[t] += q[t * K + c] * x.bonus[c] * k[t * K + c];
      gates[t] = Math.exp(shift(t));
      product[t] = similarity[t] * gates[t];
    }
    for (let i = x.before ? t - 1 : t; i >= 0; i--) {
      similarity[i] = dot(q, t * K, k, i * K, K);
      const late = shift(i);
      if (many) {
        for (let c = 0; c < K; c++) {
          const weight = Math.exp(past[c] + late);
          gates[i] += weight / K;
          product[i] += q[t * K + c] * weight * k[i * K + c];
        }
      } else {
        gates[i] = Math.exp(past[0] + late);
        product[i] = similarity[i] * gates[i];
      }
      if (x.phase) found.turned[i] = turned(x, t, i, p => many ? Math.exp(past[first(x, p)] + late) : gates[i]);
      for (let c = 0; c < x.channels; c++) past[c] += gate(x, i, c);
    }
    if (x.own) for (const name of ["gates", "product", "turned"]) if (found[name]) found[name][t] *= x.own[t];
    if (x.norm) for (let i = 0; i <= t; i++) product[i] *= x.norm[t];
    return x.separable ? found : erasing(x, t, found);
  }
  function erasing(x, t, found) {                                 // the delta rule: what was written, less what is erased since
    const { k, K } = x, u = Float64Array.from(x.q.subarray(t * K, (t + 1) * K));
    const kept = found.product.map((v, i) => v * x.beta[i]), product = new Float64Array(t + 1);
    for (let i = x.before ? t - 1 : t; i >= 0; i--) {
      product[i] = x.beta[i] * dot(k, i * K, u, 0, K);
      const m = x.erase_query ?? k, strength = x.erase_query ? 1 : x.beta[i], taken = strength * dot(x.erase_key ?? k, i * K, u, 0, K);
      for (let c = 0; c < K; c++) {
        const decay = Math.exp(gate(x, i, x.channels > 1 ? c : 0));
        u[c] = u[c] * decay - taken * m[i * K + c] * (x.early ? 1 : decay);
      }
    }
    return { ...found, kept, product, erased: product.map((v, i) => v - kept[i]) };
  }
  const squares = x => Object.fromEntries(quantities(x).map(name => [name, new Float32Array(x.T * x.T)]));
  function matrix(x) {
    const found = squares(x);
    for (let t = 0; t < x.T; t++) {
      const one = row(x, t);
      for (const name in found) found[name].set(one[name], t * x.T);
    }
    return found;
  }

  // Some heads, one or all of a layer: their mean
  const add = (a, b, n) => { for (let i = 0; i < b.length; i++) a[i] += b[i] / n; };
  function shares(x, product) {                                   // of the output, by |weight| · ‖value‖
    let total = 0;
    for (let i = 0; i < product.length; i++) total += Math.abs(product[i]) * x.sizes[i];
    return product.map((v, i) => total === 0 ? 0 : Math.abs(v) * x.sizes[i] / total);
  }
  function read(xs, t) {
    const found = {};
    for (const x of xs) {
      const weights = row(x, t), one = { ...weights, share: shares(x, weights.product) };
      for (const name in one) add(found[name] ??= new Float64Array(t + 1), one[name], xs.length);
    }
    return found;
  }
  async function readAll(xs, onHead = _done => true) {               // onHead is told of each; false ends it
    if (xs.length === 1) return matrix(xs[0]);
    const found = squares(xs[0]);
    for (let h = 0; h < xs.length; h++) {
      const one = matrix(xs[h]);
      for (const name in found) add(found[name], one[name], xs.length);
      await new Promise(go => setTimeout(go));
      if (!onHead(h + 1)) return null;
    }
    return found;
  }
  const rowOf = (whole, T, t) => Object.fromEntries(Object.entries(whole).map(([n, m]) => [n, m.subarray(t * T, (t + 1) * T)]));
  async function moved(here, there) {                             // of one head, where one view is the other with a change
    const after = there && [here, there].find((one, i) => models[one.model.base] === [there, here][i].model);
    return after?.layer.moved && after.head >= 0 ? ofHead(after.layer.moved, after.head, after.layer.heads.length) : null;
  }
  const closedBy = (xs, i) => xs[0].channels ? xs.reduce((sum, x) => sum + closed(x, i) / xs.length, 0) : null;

  // Files
  function npy(values, T) {                                       // NumPy's format 1.0
    const said = `{'descr': '<f4', 'fortran_order': False, 'shape': (${T}, ${T}), }`;
    const header = said.padEnd(Math.ceil((said.length + 11) / 64) * 64 - 11) + "\n";
    const magic = Uint8Array.of(0x93, ...[..."NUMPY"].map(c => c.charCodeAt(0)), 1, 0, header.length & 255, header.length >> 8);
    return new Blob([magic, header, values]);
  }
  function csv(tokens, columns) {
    const safe = text => /^\s*[=+\-@＝＋－＠]|^[\t\r\n]/.test(text) ? `'${text}` : text; // a spreadsheet would compute it (OWASP, CSV injection)
    const quoted = text => `"${safe(text).replace(/"/g, '""')}"`;
    const names = Object.keys(columns), lines = [["position", "token", ...names].join(",")];
    for (let i = 0; i < columns[names[0]].length; i++) lines.push([i, quoted(tokens[i]), ...names.map(n => columns[n][i])].join(","));
    return new Blob([lines.join("\n") + "\n"]);
  }
  return { models, operands, row, matrix, read, readAll, rowOf, moved, quantities, closedBy, npy, csv };
})();
