"use strict";
// What the page draws, and what it does when it is asked; `weights.js` computes.
(() => {
  const $ = /** @type {(id: string) => any} */ (id => document.getElementById(id)); // each is what the page says it is
  const NAMES = {
    gates: "gates, Γ", turned: "decay and turn, Γ cos φ", similarity: "similarity, qᵀk", kept: "before erasing, β Γ qᵀk", product: "implicit attention", erased: "what erasing changes",
  };
  const LONG = {
    gates: "<b>Γ</b>, the gates' weight", turned: "<b>Γ cos φ</b>, decay and turn", similarity: "<b>qᵀk</b>, similarity", product: "<b>Their product</b>, the implicit attention",
  };
  const LONG_DELTA = {
    gates: "<b>Γ</b>, the gates alone", turned: "<b>Γ cos φ</b>, decay and turn", kept: "<b>β Γ qᵀk</b>, if nothing were erased", product: "<b>Implicit attention</b>, exact", erased: "<b>By erasing</b>, their difference",
  };
  const RAMPS = {
    light: { up: ["#f1f4f8", "#c9dcf2", "#86b4e4", "#3b82c9", "#14579f", "#08305f"], down: ["#f1f4f8", "#fadcc6", "#f0a675", "#d86b33", "#a5431a", "#5f2409"] },
    dark: { up: ["#1d232d", "#1f3f64", "#2a6aa6", "#559fe2", "#a3d0f8", "#eef8ff"], down: ["#1d232d", "#54321f", "#935228", "#d97c3d", "#f6b688", "#fff2e7"] },
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const state = { model: 0, layer: 0, head: 0, t: 0, near: null, quantity: "product" };
  let xs = null, x = null, whole = null, current = null, size = {}, tables = null, asked = 0;

  const model = () => lens.models[state.model];
  const layer = () => model().layers[state.layer];
  const escape = text => String(text).replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
  // What cannot be seen, or would turn the text around it, is shown by a picture or its number; joiners of letters stay.
  const picture = c => c < " " ? String.fromCharCode(0x2400 + c.charCodeAt(0)) : `⟨${c.codePointAt(0).toString(16)}⟩`;
  const visible = text => text.replace(/(?![\n\u200c\u200d])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, picture);
  const clean = token => visible(token).replace(/\n/g, "⏎").trim() || "␣";
  const shown = i => clean(model().tokens[i]);
  const named = () => `${model().name}-layer${layer().layer}-${state.head < 0 ? "mean" : "head" + layer().heads[state.head]}`.replace(/[^\w.-]+/g, "_");
  const unknown = v => v === null || v === undefined || Number.isNaN(v);
  const percent = (v, digits) => unknown(v) ? "–" : (100 * v).toFixed(digits) + "%";
  const number = v => unknown(v) ? "–" : v === 0 ? "0" : Math.abs(v) === Infinity ? (v < 0 ? "−∞" : "∞")
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
    const r = Math.abs(v) < most ? Math.abs(v) / most : 1, how = $("scale").value;
    return how === "linear" ? r : how === "sqrt" ? Math.sqrt(r) : r > 0 ? Math.max(0, 1 + Math.log10(r) / 4) : 0;
  }
  const UNKNOWN = [140, 140, 140];                                // NaN: in neither ramp
  const colour = (v, most) => unknown(v) ? UNKNOWN : tables[v < 0 ? "down" : "up"][Math.round(255 * strength(v, most))];
  const ink = rgb => 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 140 ? "#10161f" : "#ffffff";
  function largest(values) {                                      // all but the 2 in 1000 largest
    const step = Math.max(1, Math.floor(values.length / 40000)), some = [];
    for (let i = 0; i < values.length; i += step) if (values[i] !== 0 && Number.isFinite(values[i])) some.push(Math.abs(values[i]));
    some.sort((a, b) => a - b);
    return some.length ? some[Math.min(some.length - 1, Math.floor(some.length * 0.998))] : 1;
  }

  const most = values => values.reduce((best, v) => Number.isFinite(v) ? Math.max(best, Math.abs(v)) : best, 1e-300);

  // What a token says when it is pointed at
  const closed = i => lens.closedBy(xs, i);
  function describe(t, i, values) {
    const head = `“${shown(i)}” at ${i}` + (t === i ? ", the query itself" : ` seen from “${shown(t)}” at ${t}, ${t - i} later`);
    if (i > t) return `“${shown(i)}” at ${i} comes after the query: weight 0`;
    return [head, ...Object.keys(NAMES).filter(n => values[n]).map(n => `${NAMES[n]}: ${number(values[n][i])}`)].join("\n");
  }
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
  const fails = l => !l.reconstruction.passed;
  function unusual(l) {                                           // rounding far beyond that of the other layers
    const errors = model().layers.map(m => m.reconstruction.error).sort((a, b) => a - b), median = errors[errors.length >> 1];
    return l.reconstruction.error > 10 * median ? l.reconstruction.error / median : 0;
  }
  function reason(l) {
    const r = l.reconstruction;
    if (fails(l)) return r.reason;
    return unusual(l) ? `head ${r.head} rounds ${number(unusual(l))} times as much as the median layer` : "";
  }
  function drawHeader() {
    const m = model(), good = m.layers.filter(l => !fails(l)).length;
    $("title").textContent = `${m.name}, ${m.tokens.length} tokens, ${m.layers.length} ${m.layers.length === 1 ? "layer" : "layers"}`;
    $("verdict").textContent = good === m.layers.length ? `✓ ${good} of ${good} layers proved` : `✗ ${m.layers.length - good} of ${m.layers.length} layers are NOT proved`;
    $("verdict").className = "verdict " + (good === m.layers.length ? "pass" : "fail");
    $("facts").textContent = m.facts;
  }
  function drawNext() {
    const next = model().predictions?.[state.t];
    $("next").innerHTML = next ? "The model's next token here: " + next.map(([token, p]) => `<b>${escape(clean(token))}</b> ${percent(p, p < 0.1 ? 1 : 0)}`).join(" · ") : "";
  }
  function drawStrip() {
    const box = $("strip");
    if (box.children.length !== model().tokens.length || box.dataset.model !== String(state.model)) {
      box.dataset.model = state.model;
      box.innerHTML = model().tokens.map((token, i) => `<span data-i="${i}">${escape(visible(token).replace(/\n/g, "⏎\n"))}</span>`).join("");
    }
    const q = state.quantity, values = q === "closed" ? null : current[q] || current.product;
    const top = most(q === "closed" ? Array.from({ length: x.T }, (_, i) => closed(i) || 0) : values);
    [...box.children].forEach((span, i) => {
      const seen = q === "closed" || i <= state.t, rgb = seen ? colour(q === "closed" ? -closed(i) : values[i], top) : null;
      span.style.background = rgb ? `rgb(${rgb})` : "";
      span.style.color = rgb ? ink(rgb) : "";
      span.className = (i === state.t ? "query" : i > state.t ? "later" : "") + (i === state.near ? " near" : "");
    });
    const query = box.children[state.t], place = query.offsetTop - box.offsetTop;
    if (place < box.scrollTop || place + query.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = place - box.clientHeight / 2;
  }
  function drawMaps() {
    const names = lens.quantities(x), long = x.separable ? LONG : LONG_DELTA;
    $("h-maps").textContent = x.separable ? "Gates × similarity = implicit attention" : "Delta rule: before erasing + what erasing changes = implicit attention";
    $("maps-note").textContent = "Row: the query, from the first token down. Column: the token that it weighs. " + (x.separable
      ? "Gates alone say what a head can still remember; similarity, what it looks for; their product is what it reads."
        + (x.channels > 1 ? ` Each of ${x.channels} key channels has gates of its own: Γ is their mean, and the product is taken channel by channel.` : "")
      : "Every write first erases what the state holds for its key, so a token's weight depends on the keys written after it: gates and similarity do not separate.")
      + (x.phase ? " Keys and queries turn from token to token: Γ cos φ is the decay times the cosine of the turn since a token was written, orange where it is read reversed; pairs of channels count by |q| |k|." : "")
      + (x.norm ? " The product is divided by the layer's normaliser." : "")
      + ` Queries and keys of this layer are kept in ${Math.ceil(Math.log2(2 * layer().steps + 1))} bits${layer().off ? `: qᵀk is off by about ${number(layer().off)} |q| |k|` : ""}.`;
    $("maps").style.setProperty("--maps", names.length);
    $("maps").innerHTML = names.map(n => `<figure><figcaption>${long[n]} <button type="button" data-n="${n}" title="Download as NPY">.npy</button></figcaption>
      <div class="frame"><canvas id="map-${n}" tabindex="0" role="application" aria-label="Heat map of ${escape(NAMES[n])}; arrow keys move the query and the token"></canvas>
      <div class="cross row"></div><div class="cross column"></div></div><div class="legend"></div></figure>`).join("");
    for (const button of $("maps").querySelectorAll("button")) button.onclick = () => save(lens.npy(whole[button.dataset.n], x.T), `${named()}-${button.dataset.n}.npy`);
    size = {};
    for (const n of names) {
      size[n] = n === "gates" ? Math.max(largest(whole.gates), 1e-300) : largest(whole[n]);
      if (n === "gates" && size[n] <= 1) size[n] = 1;
      if (n === "turned") size[n] = size.gates;
      paint($("map-" + n), whole[n], size[n]);
      legend($("map-" + n).closest("figure").querySelector(".legend"), n);
      listen($("map-" + n));
    }
    cross();
  }
  function paint(canvas, values, top) {
    const T = x.T, pool = Math.ceil(T / 480), side = Math.ceil(T / pool);
    const image = new ImageData(side, side);
    for (let r = 0; r < side; r++) for (let c = 0; c <= r; c++) {
      let best = 0, seen = false;
      for (let t = r * pool; t < Math.min(T, (r + 1) * pool); t++) for (let i = c * pool; i < Math.min(t + 1, (c + 1) * pool); i++) {
        const v = values[t * T + i];
        if (!seen || Number.isNaN(v) || Math.abs(v) > Math.abs(best)) { best = v; seen = true; }
      }
      if (seen) image.data.set([...colour(best, top), 255], 4 * (r * side + c));
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
      if (!(r instanceof HTMLElement && c instanceof HTMLElement)) continue;
      Object.assign(r.style, { top: pc(state.t + 0.5), width: pc(state.t + 1) });
      Object.assign(c.style, { left: pc(near + 0.5), top: pc(near), height: pc(state.t + 1 - near) });
    }
  }
  const path = points => points.map(([a, b], i) => !Number.isFinite(b) ? "" : `${i && Number.isFinite(points[i - 1][1]) ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
  function drawStep() {
    const t = state.t, W = 720, H = 210, L = 46, R = 8, n = t + 1, at = i => L + (W - L - R) * (i + 0.5) / n;
    const part = Array.from(current.product, (v, i) => Math.sign(v) * current.share[i]), top = most(part);
    $("h-step").textContent = x.separable ? "This position as a gradient step" : "What this position reads";
    $("step-note").innerHTML = x.separable
      ? `One step of weighted, preconditioned gradient descent from zero: features k<sub>i</sub>, targets v<sub>i</sub>, weights <b>ω<sub>i</sub> = Γ</b> (line${x.channels > 1 ? "; mean over key channels" : ""}). Bars: each token's share of the output, |attention|·‖v‖, <b>blue</b> added, <b>orange</b> subtracted.`
      : `The delta rule is one gradient step for each token, so it has no single weights ω. Line: Γ, the gates alone. Bars: each token's share of the output, |attention|·‖v‖, blue added, orange subtracted.`;
    const half = H / 2, bars = sign => part.map((v, i) => v * sign > 0 && Number.isFinite(v) ? `M${at(i).toFixed(1)} ${half + 62}v${(-v / top * 40).toFixed(1)}` : "").join("");
    const thick = Math.max(1, Math.min(14, (W - L - R) / n - 1)).toFixed(1), highest = current.gates ? most(current.gates) : 1;
    const line = current.gates ? path(Array.from(current.gates, (v, i) => [at(i), half - 10 - v / highest * (half - 22)])) : "";
    $("step").innerHTML = `<svg viewBox="0 0 ${W} ${H + 18}" role="img" aria-label="Weights and contributions of the tokens before position ${t}">
      ${current.gates ? `<line class="axis" x1="${L}" x2="${W - R}" y1="${half - 10}" y2="${half - 10}"/><path class="line" d="${line}"/>${n === 1 ? `<circle cx="${at(0)}" cy="12" r="3" fill="var(--accent)"/>` : ""}
      <text x="${L - 6}" y="16" text-anchor="end">${number(highest)}</text><text x="${L - 6}" y="${half - 7}" text-anchor="end">0</text><text x="0" y="${half / 2 + 4}">${x.separable ? "ω" : "Γ"}</text>` : ""}
      <line class="axis" x1="${L}" x2="${W - R}" y1="${half + 62}" y2="${half + 62}"/>
      <path class="more" stroke-width="${thick}" d="${bars(1)}"/><path class="less" stroke-width="${thick}" d="${bars(-1)}"/>
      <text x="${L - 6}" y="${half + 26}" text-anchor="end">${(100 * top).toFixed(0)}%</text><text x="0" y="${half + 66}">share</text>
      <text x="${L}" y="${H + 16}">0</text><text x="${W - R}" y="${H + 16}" text-anchor="end">${t}</text><text x="${W / 2}" y="${H + 16}" text-anchor="middle">token</text></svg>`;
    $("step").firstChild.onmousemove = event => {
      const r = event.currentTarget.getBoundingClientRect(), i = Math.floor(((event.clientX - r.left) / r.width * W - L) / (W - L - R) * n);
      if (i >= 0 && i <= t) tip(describe(t, i, current) + `\nshare of the output: ${percent(current.share[i], 1)}`, event);
    };
    $("step").firstChild.onmouseleave = untip;
    const columns = lens.quantities(x), SHORT = { gates: "Γ", turned: "Γ cos φ", similarity: "similarity", kept: "before erasing", product: "attention", erased: "erased" };
    const order = part.map((v, i) => i).sort((a, b) => Math.abs(part[b]) - Math.abs(part[a])).slice(0, 6);
    $("largest").innerHTML = `<table><thead><tr><th class="text">largest contributions</th><th>position</th><th>age</th>${columns.map(c => `<th>${c === "gates" && x.separable ? "ω" : SHORT[c]}</th>`).join("")}<th>share</th></tr></thead><tbody>` +
      order.map(i => `<tr><td class="text">${escape(shown(i))}</td><td>${i}</td><td>${t - i}</td>${columns.map(c => `<td>${number(current[c][i])}</td>`).join("")}<td>${percent(Math.abs(part[i]), 1)}</td></tr>`).join("") + "</tbody></table>";
  }
  function drawMemory() {
    const W = 460, H = 250, L = 40, B = 34, layers = model().layers, tallest = Math.max(2, most(layers.flatMap(l => l.summary.map(s => s.memory_length))));
    const y = v => H - B - (H - B - 14) * Math.log1p(v) / Math.log1p(tallest), places = [...layers, ...model().not_gated].sort((a, b) => a.layer - b.layer), at = i => L + (W - L - 12) * (places.indexOf(layers[i]) + 0.5) / places.length;
    const ticks = [0, 1, 3, 10, 30, 100, 300, 1000].filter(v => v <= tallest);
    const dots = layers.flatMap((l, i) => l.summary.map((s, h) => {
      const spread = l.summary.length > 1 ? (h / (l.summary.length - 1) - 0.5) * Math.min(26, 0.6 * (W - L) / places.length) : 0;
      const chosen = i === state.layer && h === state.head;
      return unknown(s.memory_length) ? [chosen, ""] : [chosen, `<circle class="head${chosen ? " chosen" : ""}" data-l="${i}" data-h="${h}" cx="${(at(i) + spread).toFixed(1)}" cy="${y(s.memory_length).toFixed(1)}" r="${chosen ? 6 : 4}"/>`];
    })).sort((a, b) => a[0] - b[0]).map(d => d[1]).join("");
    const median = layers.map(l => l.summary.map(s => s.memory_length ?? NaN).sort((a, b) => a - b)).map(s => (s[(s.length - 1) >> 1] + s[s.length >> 1]) / 2);
    const every = Math.ceil(places.length / 12), slot = i => L + (W - L - 12) * (i + 0.5) / places.length;
    $("memory").innerHTML = `<svg viewBox="0 0 ${W} ${H}" role="img" aria-label="Memory length of every head over layers; the table of heads has the numbers">
      ${ticks.map(v => `<line class="axis" x1="${L}" x2="${W - 8}" y1="${y(v)}" y2="${y(v)}"/><text x="${L - 6}" y="${y(v) + 4}" text-anchor="end">${v}</text>`).join("")}
      ${places.map((l, i) => i % every ? "" : `<text x="${slot(i)}" y="${H - B + 16}" text-anchor="middle">${l.layer}</text>`).join("")}
      ${places.map((l, i) => l.kind ? `<rect class="ungated" x="${slot(i) - 5}" width="10" y="14" height="${H - B - 14}"><title>layer ${l.layer}: ${escape(l.kind)}, not gated</title></rect>` : "").join("")}
      <text x="${(W + L) / 2}" y="${H - 2}" text-anchor="middle">layer (line: median${model().not_gated.length ? "; grey: attention, not gated" : ""})</text>
      <path class="line" style="opacity:.45" d="${path(median.map((v, i) => [at(i), y(v)]))}"/>${dots}</svg>`;
    for (const dot of $("memory").querySelectorAll(".head")) {
      const l = layers[dot.dataset.l], s = l.summary[dot.dataset.h];
      dot.onmousemove = event => tip(`layer ${l.layer}, head ${l.heads[dot.dataset.h]}\nmemory length: ${number(s.memory_length)} tokens\nhalf-life: ${number(s.half_life)}`, event);
      dot.onmouseleave = untip;
      dot.onclick = () => choose({ layer: +dot.dataset.l, head: +dot.dataset.h });
    }
  }
  function drawTables() {
    const l = layer();
    $("heads-note").textContent = `Means over up to 64 queries, of the gates alone, in float64. ` + (l.heads.length < l.of ? `${l.heads.length} of ${l.of} heads, from the fastest to forget to the slowest.` : "")
      + (l.pairs ? " Turn: what rotations leave of the gates' weight, with its sign; reversed: the share of the weight that they make negative." : "")
      + (l.apart ? " Erasing: the mean cosine of the key that is read to erase, and of the one along which it is erased, with the key that is written." : "")
      + (l.separable ? "" : " Gates alone are not this layer's weights: the delta rule erases by key as well.");
    const more = [
      ...(l.pairs ? [{ title: "turn", of: s => percent(s.turn, 1) }, { title: "reversed", of: s => percent(s.negative, 1) }] : []),
      ...(l.apart ? [{ title: "erasing: read", of: s => number(s.erase_query) }, { title: "erased along", of: s => number(s.erase_key) }] : []),
    ];
    $("heads").innerHTML = `<thead><tr><th>head</th><th>memory length</th><th>half-life</th><th>last ${l.last}</th><th>entropy</th><th>mass</th>${more.map(column => `<th>${column.title}</th>`).join("")}<th class="text">closes most at</th></tr></thead><tbody>` +
      l.summary.map((s, h) => `<tr class="${h === state.head ? "chosen" : ""}"><td><button type="button" data-h="${h}" aria-label="Choose head ${l.heads[h]}">${l.heads[h]}</button></td><td>${number(s.memory_length)}</td><td>${number(s.half_life)}</td>
      <td>${percent(s.last, 1)}</td><td>${number(s.entropy)}</td><td>${number(s.mass)}</td>${more.map(column => `<td>${column.of(s)}</td>`).join("")}<td class="text">${s.closing.map(i => escape(shown(i))).join(" · ") || "–"}</td></tr>`).join("") + "</tbody>";
    for (const button of $("heads").querySelectorAll("button")) button.onclick = () => choose({ head: +button.dataset.h });
    const rank = m => fails(m) ? (unknown(m.reconstruction.error) || unknown(m.reconstruction.lens) ? 0 : 1) : unusual(m) ? 2 : 3, every = model().layers.map((m, i) => [m, i]).sort((a, b) => rank(a[0]) - rank(b[0]) || a[1] - b[1]);
    $("proof").innerHTML = `<thead><tr><th>layer</th><th></th><th class="text">kind</th><th>lens</th><th>own rounding</th><th>explained</th></tr></thead><tbody>` + every.map(([m, i]) =>
      `<tr class="${i === state.layer ? "chosen" : ""}"><td><button type="button" data-l="${i}" aria-label="Choose layer ${m.layer}">${m.layer}</button></td><td class="${fails(m) ? "fail" : "pass"}">${fails(m) ? "✗" : "✓"}</td>
      <td class="text" title="${escape(m.module)}">${escape(m.architecture)}${reason(m) ? `<span class="why">${escape(reason(m))}</span>` : ""}</td><td>${number(m.reconstruction.lens)}</td><td>${number(m.reconstruction.error)}</td><td>${number(m.reconstruction.tolerance)}</td></tr>`).join("")
      + model().not_gated.map(m => `<tr class="ungated"><td>${m.layer}</td><td></td><td class="text" title="${escape(m.module)}">${escape(m.kind)}</td><td class="text" colspan="3">attention: it has no gates</td></tr>`).join("") + "</tbody>";
    for (const button of $("proof").querySelectorAll("button")) button.onclick = () => choose({ layer: +button.dataset.l });
  }

  // Choosing
  function fill(select, entries, value) {
    select.innerHTML = entries.map(([v, text]) => `<option value="${v}"${v === "" ? " disabled" : ""}>${escape(text)}</option>`).join("");
    select.value = value;
  }
  const longest = l => l.summary.reduce((best, s, h) => s.memory_length > l.summary[best].memory_length ? h : best, 0);
  async function choose(change) {
    const mine = ++asked;
    if ("model" in change) change = { layer: lens.models[change.model].opens, t: lens.models[change.model].position, ...change };
    Object.assign(state, change);
    if ("layer" in change && !("head" in change)) state.head = longest(layer());
    state.near = null;
    const l = layer(), all = l.heads.map((_, h) => h), mean = state.head < 0;
    fillAll(l);
    const read = await Promise.all((mean ? all : [state.head]).map(h => lens.operands(l, h)));
    const matrices = await lens.readAll(read, done => {
      $("said").textContent = $("maps-note").textContent = `${done} of ${all.length} heads averaged …`;
      return mine === asked;
    });
    if (mine !== asked) return;
    xs = read;
    x = read[0];
    whole = matrices;
    fillQuantities();
    $("position").max = x.T - 1;
    drawHeader(); drawMaps(); drawMemory(); drawTables();
    move(state.t, null);
    document.body.dataset.ready = String(mine);
  }
  function fillAll(l) {
    fill($("model"), lens.models.map((m, i) => [i, m.name]), state.model);
    const others = model().not_gated.map(m => [m.layer, ["", `${m.layer}: ${m.kind}, not gated`]]);
    const ours = model().layers.map((m, i) => [m.layer, [i, `${fails(m) ? "✗ " : ""}${m.layer}: ${m.architecture}`]]);
    fill($("layer"), [...ours, ...others].sort((a, b) => a[0] - b[0]).map(entry => entry[1]), state.layer);
    fill($("head"), [...l.heads.map((h, i) => [i, `${h}: memory ${number(l.summary[i].memory_length)}`]), ...(l.heads.length > 1 ? [[-1, `mean of ${l.heads.length} heads`]] : [])], state.head);
  }
  function fillQuantities() {
    const listed = ["product", ...lens.quantities(x).filter(n => n !== "product")].map(n => [n, NAMES[n]]);
    const found = [...listed, ...(x.channels ? [["closed", "how far gates close"]] : [])];
    if (!found.some(q => q[0] === state.quantity)) state.quantity = "product";
    fill($("quantity"), found, state.quantity);
  }
  function save(blob, name) {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  function move(t, near) {
    state.t = Math.max(0, Math.min(x.T - 1, t));
    state.near = near === null ? null : Math.max(0, Math.min(state.t, near));
    current = lens.read(xs, state.t);
    $("position").value = state.t;
    $("where").textContent = `${state.t}, “${shown(state.t)}”`;
    drawStrip(); drawNext(); drawStep(); cross();
    $("said").textContent = state.near === null ? `Query ${shown(state.t)} at ${state.t}` : describe(state.t, state.near, current);
  }
  $("csv").onclick = () => {
    const columns = Object.fromEntries([...lens.quantities(x), "share"].map(n => [n, current[n]]));
    save(lens.csv(model().tokens, columns), `${named()}-query${state.t}.csv`);
  };
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
    const closes = closed(+i);
    tip(describe(state.t, +i, current) + (closes === null ? "" : `\nits gates close by: ${number(closes)}`), event);
  };
  $("strip").onmouseleave = untip;
  dark.onchange = () => { prepare(); drawMaps(); drawStrip(); };
  prepare();
  choose({ model: 0 });
})();
