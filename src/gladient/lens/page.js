"use strict";
// Weights from operands, one query at a time, backwards from it: what `gladient.lens._weights` computes in float64.
const lens = (() => {
  const models = JSON.parse(document.getElementById("data").textContent);
  const cache = new WeakMap();

  function bytes(text) {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out;
  }
  let halves = null;
  function half(bits) {
    if (!halves) {
      halves = new Float32Array(65536);
      for (let b = 0; b < 65536; b++) {
        const e = (b >> 10) & 31, f = b & 1023, sign = b & 32768 ? -1 : 1;
        halves[b] = sign * (e ? 2 ** (e - 15) * (1 + f / 1024) : 2 ** -14 * (f / 1024));
      }
    }
    return halves[bits];
  }
  function decode(packed) {
    if (!cache.has(packed)) {
      if (packed.f32 !== undefined) cache.set(packed, new Float32Array(bytes(packed.f32).buffer));
      else {
        const bits = new Uint16Array(bytes(packed.f16).buffer), each = bits.length / packed.scales.length;
        cache.set(packed, Float32Array.from(bits, (b, i) => half(b) * packed.scales[Math.floor(i / each)]));
      }
    }
    return cache.get(packed);
  }
  function ofHead(packed, head, heads) {
    if (!packed) return null;
    const all = decode(packed), parts = packed.of ? Math.max(...packed.of) + 1 : heads;
    const size = all.length / parts, place = packed.of ? packed.of[head] : head;
    return all.subarray(place * size, (place + 1) * size);
  }
  function operands(layer, head) {
    const pick = name => ofHead(layer[name], head, layer.heads.length);
    const x = { K: layer.size, before: layer.before, separable: layer.separable };
    for (const name of ["q", "k", "gates", "rate", "write", "beta", "bonus", "norm", "scale", "sizes"]) x[name] = pick(name);
    x.T = x.k.length / x.K;
    x.each = x.gates ? x.gates.length / x.T : 0;                 // gates kept a token
    x.channels = x.rate ? x.rate.length : x.each;                // gates a token has
    return x;
  }
  function dot(a, i, b, j, K) {
    let sum = 0;
    for (let c = 0; c < K; c++) sum += a[i + c] * b[j + c];
    return sum;
  }
  const gate = (x, i, c) => !x.channels ? 0 : x.rate ? x.gates[i] * x.rate[c] : x.gates[i * x.each + c];

  function row(x, t) {
    const gates = new Float64Array(t + 1), similarity = new Float64Array(t + 1), product = new Float64Array(t + 1);
    if (!x.separable) return { gates: null, similarity: null, product: deltaRow(x, t, product) };
    const { q, k, K } = x, many = x.channels > 1, past = new Float64Array(Math.max(1, x.channels));
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
      for (let c = 0; c < x.channels; c++) past[c] += gate(x, i, c);
    }
    if (x.norm) for (let i = 0; i <= t; i++) product[i] *= x.norm[t];
    return { gates, similarity, product };
  }
  function deltaRow(x, t, product) {
    const { k, K } = x, u = Float64Array.from(x.q.subarray(t * K, (t + 1) * K));
    for (let i = t; i >= 0; i--) {
      product[i] = x.beta[i] * dot(k, i * K, u, 0, K);
      for (let c = 0; c < K; c++) u[c] = (u[c] - product[i] * k[i * K + c]) * Math.exp(gate(x, i, x.channels > 1 ? c : 0));
    }
    return product;
  }
  function matrix(x) {
    const names = x.separable ? ["gates", "similarity", "product"] : ["product"];
    const found = Object.fromEntries(names.map(name => [name, new Float32Array(x.T * x.T)]));
    for (let t = 0; t < x.T; t++) {
      const one = row(x, t);
      for (const name of names) found[name].set(one[name], t * x.T);
    }
    return found;
  }
  return { models, operands, row, matrix, gate };
})();

(() => {
  const $ = id => document.getElementById(id);
  const NAMES = { gates: "gates, Γ", similarity: "similarity, qᵀk", product: "implicit attention" };
  const LONG = {
    gates: "<b>Γ</b>, the gates' weight", similarity: "<b>qᵀk</b>, similarity", product: "<b>Their product</b>, the implicit attention",
  };
  const RAMPS = {
    light: { up: ["#f1f4f8", "#c9dcf2", "#86b4e4", "#3b82c9", "#14579f", "#08305f"], down: ["#f1f4f8", "#fadcc6", "#f0a675", "#d86b33", "#a5431a", "#5f2409"] },
    dark: { up: ["#1d232d", "#1f3f64", "#2a6aa6", "#559fe2", "#a3d0f8", "#eef8ff"], down: ["#1d232d", "#54321f", "#935228", "#d97c3d", "#f6b688", "#fff2e7"] },
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const state = { model: 0, layer: 0, head: 0, t: 0, near: null, quantity: "product" };
  let x = null, whole = null, current = null, size = {}, tables = null;

  const model = () => lens.models[state.model];
  const layer = () => model().layers[state.layer];
  const escape = text => String(text).replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
  const shown = i => model().tokens[i].replace(/\n/g, "⏎").trim() || "␣";
  const number = v => v === null || v === undefined || Number.isNaN(v) ? "–" : v === 0 ? "0"
    : Math.abs(v) < 1e-3 || Math.abs(v) >= 1e5 ? v.toExponential(2).replace("-", "−").replace("e−", "e−") : Number(v.toPrecision(3)).toString().replace("-", "−");

  // Colours
  function table(stops) {
    const rgb = stops.map(s => [1, 3, 5].map(i => parseInt(s.slice(i, i + 2), 16)));
    return Array.from({ length: 256 }, (_, n) => {
      const at = n / 255 * (rgb.length - 1), a = Math.min(Math.floor(at), rgb.length - 2), f = at - a;
      return rgb[a].map((v, c) => Math.round(v + f * (rgb[a + 1][c] - v)));
    });
  }
  function prepare() {
    const ramps = RAMPS[dark.matches ? "dark" : "light"];
    tables = { up: table(ramps.up), down: table(ramps.down), stops: ramps };
  }
  function strength(v, most) {
    const r = Math.min(1, Math.abs(v) / (most || 1)), how = $("scale").value;
    return how === "linear" ? r : how === "sqrt" ? Math.sqrt(r) : r > 0 ? Math.max(0, 1 + Math.log10(r) / 4) : 0;
  }
  const colour = (v, most) => tables[v < 0 ? "down" : "up"][Math.round(255 * strength(v, most))];
  const ink = rgb => 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 140 ? "#10161f" : "#ffffff";
  function largest(values) {                                      // all but the 2 in 1000 largest
    const step = Math.max(1, Math.floor(values.length / 40000)), some = [];
    for (let i = 0; i < values.length; i += step) if (values[i] !== 0) some.push(Math.abs(values[i]));
    some.sort((a, b) => a - b);
    return some.length ? some[Math.min(some.length - 1, Math.floor(some.length * 0.998))] : 1;
  }

  // What a token says when it is pointed at
  const share = i => {
    let total = 0;
    for (let j = 0; j <= state.t; j++) total += Math.abs(current.product[j]) * x.sizes[j];
    return total ? Math.abs(current.product[i]) * x.sizes[i] / total : 0;
  };
  function describe(t, i, values) {
    const head = `“${shown(i)}” at ${i}` + (t === i ? ", the query itself" : ` seen from “${shown(t)}” at ${t}, ${t - i} later`);
    if (i > t) return `“${shown(i)}” at ${i} comes after the query: weight 0`;
    return [head, ...["gates", "similarity", "product"].filter(n => values[n]).map(n => `${NAMES[n]}: ${number(values[n][i])}`)].join("\n");
  }
  const CLOSED = i => {
    if (!x.channels) return null;
    let sum = 0;
    for (let c = 0; c < x.channels; c++) sum += Math.exp(lens.gate(x, i, c));
    return 1 - sum / x.channels;
  };
  function tip(text, event) {
    const box = $("tip");
    box.textContent = text;
    box.hidden = false;
    const w = box.offsetWidth, h = box.offsetHeight;
    box.style.left = Math.min(event.clientX + 14, innerWidth - w - 8) + "px";
    box.style.top = (event.clientY + 18 + h > innerHeight ? event.clientY - h - 12 : event.clientY + 18) + "px";
  }
  const untip = () => { $("tip").hidden = true; };

  // Panels
  function drawHeader() {
    const m = model(), good = m.layers.filter(l => l.reconstruction.passed).length;
    $("title").textContent = `${m.name}, ${m.tokens.length} tokens, ${m.layers.length} ${m.layers.length === 1 ? "layer" : "layers"}`;
    $("verdict").textContent = good === m.layers.length ? `✓ ${good} of ${good} layers rebuilt within tolerance` : `✗ ${m.layers.length - good} of ${m.layers.length} layers are NOT rebuilt within tolerance`;
    $("verdict").className = "verdict " + (good === m.layers.length ? "pass" : "fail");
    $("facts").textContent = m.facts;
  }
  function drawStrip() {
    const box = $("strip");
    if (box.children.length !== model().tokens.length || box.dataset.model !== String(state.model)) {
      box.dataset.model = state.model;
      box.innerHTML = model().tokens.map((token, i) => `<span data-i="${i}">${escape(token.replace(/\n/g, "⏎\n"))}</span>`).join("");
    }
    const q = state.quantity, values = q === "closed" ? null : current[q] || current.product;
    const most = q === "closed" ? largestClosed() : Math.max(1e-300, ...Array.from(values, Math.abs));
    [...box.children].forEach((span, i) => {
      const seen = q === "closed" || i <= state.t, rgb = seen ? colour(q === "closed" ? -(CLOSED(i) || 0) : values[i], most) : null;
      span.style.background = rgb ? `rgb(${rgb})` : "";
      span.style.color = rgb ? ink(rgb) : "";
      span.className = (i === state.t ? "query" : i > state.t ? "later" : "") + (i === state.near ? " near" : "");
    });
    const query = box.children[state.t], top = query.offsetTop - box.offsetTop;
    if (top < box.scrollTop || top + query.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = top - box.clientHeight / 2;
  }
  function largestClosed() {
    let most = 1e-300;
    for (let i = 0; i < x.T; i++) most = Math.max(most, CLOSED(i) || 0);
    return most;
  }
  function drawMaps() {
    const names = x.separable ? ["gates", "similarity", "product"] : ["product"];
    $("maps-note").textContent = "Row: the query, from the first token down. Column: the token that it weighs. Gates alone say what a head can still "
      + "remember; similarity, what it looks for; their product is what it reads." + (x.channels > 1 && x.separable
        ? ` Each of ${x.channels} key channels has gates of its own: Γ is their mean, and the product is taken channel by channel.` : "")
      + (x.norm ? " The product is divided by the layer's normaliser." : "");
    $("maps").innerHTML = names.map(n => `<figure><figcaption>${LONG[n]}</figcaption><div class="frame"><canvas id="map-${n}" tabindex="0" role="application"
      aria-label="Heat map of ${escape(NAMES[n])}; arrow keys move the query and the token"></canvas><div class="cross row"></div><div class="cross column"></div></div>
      <div class="legend"></div></figure>`).join("") + (x.separable ? "" : `<p class="only">The delta rule's weights depend on the keys between a token and
      the query: gates and similarity do not separate. Only the exact product is shown.</p>`);
    size = {};
    for (const n of names) {
      size[n] = n === "gates" ? Math.max(largest(whole.gates), 1e-300) : largest(whole[n]);
      if (n === "gates" && size[n] <= 1) size[n] = 1;
      paint($("map-" + n), whole[n], size[n]);
      legend($("map-" + n).closest("figure").querySelector(".legend"), n);
      listen($("map-" + n), n);
    }
    cross();
  }
  function paint(canvas, values, most) {
    const T = x.T, pool = Math.ceil(T / 480), side = Math.ceil(T / pool);
    const image = new ImageData(side, side);
    for (let r = 0; r < side; r++) for (let c = 0; c <= r; c++) {
      let best = 0, seen = false;
      for (let t = r * pool; t < Math.min(T, (r + 1) * pool); t++) for (let i = c * pool; i < Math.min(t + 1, (c + 1) * pool); i++) {
        const v = values[t * T + i];
        if (!seen || Math.abs(v) > Math.abs(best)) { best = v; seen = true; }
      }
      if (seen) image.data.set([...colour(best, most), 255], 4 * (r * side + c));
    }
    canvas.width = canvas.height = side;
    canvas.style.imageRendering = side < 400 ? "pixelated" : "auto";
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
  function legend(box, n) {
    const stop = (ramp, to) => ramp.map((c, i) => [c, i / (ramp.length - 1)]).map(([c, f]) => `${c} ${50 + to * 50 * f}%`);
    const { up, down } = tables.stops, both = [...stop(down, -1).reverse(), ...stop(up, 1)];
    box.innerHTML = n === "gates" ? `<span>0</span><i style="background:linear-gradient(90deg,${up})"></i><span>${number(size[n])}</span>`
      : `<span>−${number(size[n])}</span><i style="background:linear-gradient(90deg,${both})"></i><span>${number(size[n])}</span>`;
  }
  function listen(canvas) {
    const at = event => {
      const r = canvas.getBoundingClientRect(), n = v => Math.max(0, Math.min(x.T - 1, Math.floor(v * x.T)));
      return [n((event.clientY - r.top) / r.height), n((event.clientX - r.left) / r.width)];
    };
    canvas.onmousemove = event => {
      const [t, i] = at(event), T = x.T;
      const values = Object.fromEntries(Object.entries(whole).map(([n, m]) => [n, m.subarray(t * T, (t + 1) * T)]));
      tip(describe(t, i, values), event);
    };
    canvas.onmouseleave = untip;
    canvas.onclick = event => { const [t, i] = at(event); move(t, Math.min(i, t)); };
    canvas.onkeydown = event => {
      const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!steps) return;
      event.preventDefault();
      move(state.t + steps[0], (state.near ?? state.t) + steps[1]);
    };
  }
  function cross() {
    for (const frame of document.querySelectorAll(".frame")) {
      const near = state.near ?? state.t, [r, c] = frame.querySelectorAll(".cross"), pc = v => 100 * v / x.T + "%";
      Object.assign(r.style, { top: pc(state.t + 0.5), width: pc(state.t + 1) });
      Object.assign(c.style, { left: pc(near + 0.5), top: pc(near), height: pc(state.t + 1 - near) });
    }
  }
  function drawStep() {
    const t = state.t, W = 720, H = 210, L = 46, R = 8, n = t + 1, at = i => L + (W - L - R) * (i + 0.5) / n;
    const part = Array.from(current.product, (v, i) => Math.sign(v) * share(i)), top = Math.max(1e-300, ...part.map(Math.abs));
    $("step-note").innerHTML = x.separable
      ? `One step of weighted, preconditioned gradient descent from zero: features k<sub>i</sub>, targets v<sub>i</sub>, weights <b>ω<sub>i</sub> = Γ</b> (line${x.channels > 1 ? "; mean over key channels" : ""}). Bars: each token's share of the output, |attention|·‖v‖, <b>blue</b> added, <b>orange</b> subtracted.`
      : `The delta rule is not one gradient step but one a token, so it has no single weights ω. Bars: each token's share of the output, |attention|·‖v‖, blue added, orange subtracted.`;
    const half = H / 2, bars = sign => part.map((v, i) => v * sign > 0 ? `M${at(i).toFixed(1)} ${half + 62}v${(-v / top * 40).toFixed(1)}` : "").join("");
    const thick = Math.max(1, Math.min(14, (W - L - R) / n - 1)).toFixed(1), most = current.gates ? Math.max(1e-300, ...current.gates) : 1;
    const line = current.gates ? Array.from(current.gates, (v, i) => `${i ? "L" : "M"}${at(i).toFixed(1)} ${(half - 10 - v / most * (half - 22)).toFixed(1)}`).join("") : "";
    $("step").innerHTML = `<svg viewBox="0 0 ${W} ${H + 18}" role="img" aria-label="Weights and contributions of the tokens before position ${t}">
      ${current.gates ? `<line class="axis" x1="${L}" x2="${W - R}" y1="${half - 10}" y2="${half - 10}"/><path class="line" d="${line}"/>${n === 1 ? `<circle cx="${at(0)}" cy="12" r="3" fill="var(--accent)"/>` : ""}
      <text x="${L - 6}" y="16" text-anchor="end">${number(most)}</text><text x="${L - 6}" y="${half - 7}" text-anchor="end">0</text><text x="0" y="${half / 2 + 4}">ω</text>` : ""}
      <line class="axis" x1="${L}" x2="${W - R}" y1="${half + 62}" y2="${half + 62}"/>
      <path class="more" stroke-width="${thick}" d="${bars(1)}"/><path class="less" stroke-width="${thick}" d="${bars(-1)}"/>
      <text x="${L - 6}" y="${half + 26}" text-anchor="end">${(100 * top).toFixed(0)}%</text><text x="0" y="${half + 66}">share</text>
      <text x="${L}" y="${H + 16}">0</text><text x="${W - R}" y="${H + 16}" text-anchor="end">${t}</text><text x="${W / 2}" y="${H + 16}" text-anchor="middle">token</text></svg>`;
    $("step").firstChild.onmousemove = event => {
      const r = event.currentTarget.getBoundingClientRect(), i = Math.floor(((event.clientX - r.left) / r.width * W - L) / (W - L - R) * n);
      if (i >= 0 && i <= t) tip(describe(t, i, current) + `\nshare of the output: ${(100 * share(i)).toFixed(1)}%`, event);
    };
    $("step").firstChild.onmouseleave = untip;
    const order = part.map((v, i) => i).sort((a, b) => Math.abs(part[b]) - Math.abs(part[a])).slice(0, 6);
    $("largest").innerHTML = `<table><thead><tr><th class="text">largest contributions</th><th>position</th><th>age</th>${x.separable ? "<th>ω</th><th>similarity</th>" : ""}<th>attention</th><th>share</th></tr></thead><tbody>` +
      order.map(i => `<tr><td class="text">${escape(shown(i))}</td><td>${i}</td><td>${t - i}</td>${x.separable ? `<td>${number(current.gates[i])}</td><td>${number(current.similarity[i])}</td>` : ""}<td>${number(current.product[i])}</td><td>${(100 * Math.abs(part[i])).toFixed(1)}%</td></tr>`).join("") + "</tbody></table>";
  }
  function drawMemory() {
    const W = 460, H = 250, L = 40, B = 34, layers = model().layers, most = Math.max(2, ...layers.flatMap(l => l.summary.map(s => s.memory_length)));
    const y = v => H - B - (H - B - 14) * Math.log1p(v) / Math.log1p(most), at = i => L + (W - L - 12) * (i + 0.5) / layers.length;
    const ticks = [0, 1, 3, 10, 30, 100, 300, 1000].filter(v => v <= most);
    const dots = layers.flatMap((l, i) => l.summary.map((s, h) => {
      const spread = l.summary.length > 1 ? (h / (l.summary.length - 1) - 0.5) * Math.min(26, 0.6 * (W - L) / layers.length) : 0;
      const chosen = i === state.layer && h === state.head;
      return [chosen, `<circle class="head${chosen ? " chosen" : ""}" data-l="${i}" data-h="${h}" cx="${(at(i) + spread).toFixed(1)}" cy="${y(s.memory_length).toFixed(1)}" r="${chosen ? 6 : 4}"/>`];
    })).sort((a, b) => a[0] - b[0]).map(d => d[1]).join("");
    const median = layers.map(l => l.summary.map(s => s.memory_length).sort((a, b) => a - b)).map(s => (s[(s.length - 1) >> 1] + s[s.length >> 1]) / 2);
    const every = Math.ceil(layers.length / 12);
    $("memory").innerHTML = `<svg viewBox="0 0 ${W} ${H}" role="img" aria-label="Memory length of every head over layers; the table of heads has the numbers">
      ${ticks.map(v => `<line class="axis" x1="${L}" x2="${W - 8}" y1="${y(v)}" y2="${y(v)}"/><text x="${L - 6}" y="${y(v) + 4}" text-anchor="end">${v}</text>`).join("")}
      ${layers.map((l, i) => i % every ? "" : `<text x="${at(i)}" y="${H - B + 16}" text-anchor="middle">${l.layer}</text>`).join("")}
      <text x="${(W + L) / 2}" y="${H - 2}" text-anchor="middle">layer (line: median)</text>
      <path class="line" style="opacity:.45" d="${median.map((v, i) => `${i ? "L" : "M"}${at(i).toFixed(1)} ${y(v).toFixed(1)}`).join("")}"/>${dots}</svg>`;
    for (const dot of $("memory").querySelectorAll(".head")) {
      const l = layers[dot.dataset.l], s = l.summary[dot.dataset.h];
      dot.onmousemove = event => tip(`layer ${l.layer}, head ${l.heads[dot.dataset.h]}\nmemory length: ${number(s.memory_length)} tokens\nhalf-life: ${number(s.half_life)}`, event);
      dot.onmouseleave = untip;
      dot.onclick = () => choose({ layer: +dot.dataset.l, head: +dot.dataset.h });
    }
  }
  function drawTables() {
    const l = layer(), tokens = model().tokens;
    $("heads-note").textContent = `Means over all queries, of the gates alone, in float64. ` + (l.heads.length < l.of ? `${l.heads.length} of ${l.of} heads, from the fastest to forget to the slowest.` : "")
      + (l.separable ? "" : " Gates alone are not this layer's weights: the delta rule erases by key as well.");
    $("heads").innerHTML = `<thead><tr><th>head</th><th>memory length</th><th>half-life</th><th>last ${l.last}</th><th>entropy</th><th>mass</th><th class="text">closes most at</th></tr></thead><tbody>` +
      l.summary.map((s, h) => `<tr class="${h === state.head ? "chosen" : ""}"><td><button type="button" data-h="${h}" aria-label="Choose head ${l.heads[h]}">${l.heads[h]}</button></td><td>${number(s.memory_length)}</td><td>${number(s.half_life)}</td>
      <td>${(100 * s.last).toFixed(1)}%</td><td>${number(s.entropy)}</td><td>${number(s.mass)}</td><td class="text">${s.closing.map(i => escape(shown(i))).join(" · ") || "–"}</td></tr>`).join("") + "</tbody>";
    for (const button of $("heads").querySelectorAll("button")) button.onclick = () => choose({ head: +button.dataset.h });
    $("proof").innerHTML = `<thead><tr><th>layer</th><th class="text">kind</th><th>error</th><th>tolerance</th><th></th></tr></thead><tbody>` + model().layers.map((m, i) =>
      `<tr class="${i === state.layer ? "chosen" : ""}"><td><button type="button" data-l="${i}" aria-label="Choose layer ${m.layer}">${m.layer}</button></td><td class="text" title="${escape(m.module)}">${escape(m.architecture)}</td><td>${number(m.reconstruction.error)}</td><td>${number(m.reconstruction.tolerance)}</td>
      <td class="${m.reconstruction.passed ? "pass" : "fail"}">${m.reconstruction.passed ? "✓ pass" : "✗ fail"}</td></tr>`).join("") + "</tbody>";
    for (const button of $("proof").querySelectorAll("button")) button.onclick = () => choose({ layer: +button.dataset.l });
  }

  // Choosing
  function fill(select, entries, value) {
    select.innerHTML = entries.map(([v, text]) => `<option value="${v}">${escape(text)}</option>`).join("");
    select.value = value;
  }
  const longest = l => l.summary.reduce((best, s, h) => s.memory_length > l.summary[best].memory_length ? h : best, 0);
  function choose(change) {
    if ("model" in change) change = { layer: lens.models[change.model].layers.length - 1, t: lens.models[change.model].position, ...change };
    Object.assign(state, change);
    if ("layer" in change && !("head" in change)) state.head = longest(layer());
    state.near = null;
    x = lens.operands(layer(), state.head);
    whole = lens.matrix(x);
    fill($("model"), lens.models.map((m, i) => [i, m.name]), state.model);
    fill($("layer"), model().layers.map((l, i) => [i, `${l.layer}: ${l.architecture}`]), state.layer);
    fill($("head"), layer().heads.map((h, i) => [i, `${h}: memory ${number(layer().summary[i].memory_length)}`]), state.head);
    const quantities = [["product", NAMES.product], ...(x.separable ? [["gates", NAMES.gates], ["similarity", NAMES.similarity]] : []), ...(x.channels ? [["closed", "how far gates close"]] : [])];
    if (!quantities.some(q => q[0] === state.quantity)) state.quantity = "product";
    fill($("quantity"), quantities, state.quantity);
    $("position").max = x.T - 1;
    drawHeader(); drawMaps(); drawMemory(); drawTables();
    move(state.t, null);
  }
  function move(t, near) {
    state.t = Math.max(0, Math.min(x.T - 1, t));
    state.near = near === null ? null : Math.max(0, Math.min(state.t, near));
    current = lens.row(x, state.t);
    $("position").value = state.t;
    $("where").textContent = `${state.t}, “${shown(state.t)}”`;
    drawStrip(); drawStep(); cross();
    $("said").textContent = state.near === null ? `Query ${shown(state.t)} at ${state.t}` : describe(state.t, state.near, current);
  }
  $("controls").onsubmit = event => event.preventDefault();
  for (const name of ["model", "layer", "head"]) $(name).onchange = event => choose({ [name]: +event.target.value });
  $("position").oninput = event => move(+event.target.value, null);
  $("quantity").onchange = event => { state.quantity = event.target.value; drawStrip(); };
  $("scale").onchange = () => { drawMaps(); drawStrip(); };
  $("strip").onkeydown = event => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) { event.preventDefault(); move(state.t + step, null); }
  };
  $("strip").onclick = event => { if (event.target.dataset.i) move(+event.target.dataset.i, null); };
  $("strip").onmousemove = event => {
    const i = event.target.dataset.i;
    if (i === undefined) return untip();
    const closed = CLOSED(+i);
    tip(describe(state.t, +i, current) + (closed === null ? "" : `\nits gates close by: ${number(closed)}`), event);
  };
  $("strip").onmouseleave = untip;
  dark.onchange = () => { prepare(); drawMaps(); drawStrip(); };
  prepare();
  choose({ model: 0 });
})();
