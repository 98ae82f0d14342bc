"use strict";
// How the page shows tokens, numbers, colours, heat maps and what is pointed at; nothing here knows what is chosen.
const draw = (() => {
  const $ = /** @type {(id: string) => any} */ (id => document.getElementById(id)); // each is what the page says it is
  const NAMES = {
    gates: "gates, Γ", turned: "decay and turn, Γ cos φ", similarity: "similarity, qᵀk", kept: "before erasing, β Γ qᵀk", product: "implicit attention", erased: "what erasing changes",
  };
  const RAMPS = {
    light: { up: ["#f1f4f8", "#c9dcf2", "#86b4e4", "#3b82c9", "#14579f", "#08305f"], down: ["#f1f4f8", "#fadcc6", "#f0a675", "#d86b33", "#a5431a", "#5f2409"] },
    dark: { up: ["#1d232d", "#1f3f64", "#2a6aa6", "#559fe2", "#a3d0f8", "#eef8ff"], down: ["#1d232d", "#54321f", "#935228", "#d97c3d", "#f6b688", "#fff2e7"] },
  };
  const UNKNOWN = [140, 140, 140];                                // NaN: in neither ramp
  const LABELS = 24;                                              // of an axis, at most
  let tables = null;

  // Text
  const escape = text => String(text).replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
  // What cannot be seen, or would turn the text around it, is shown by a picture or its number; joiners of letters stay.
  const picture = c => c < " " ? String.fromCharCode(0x2400 + c.charCodeAt(0)) : `⟨${c.codePointAt(0).toString(16)}⟩`;
  const visible = text => text.replace(/(?![\n\u200c\u200d])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, picture);
  const clean = token => token === "" ? "⋯" : visible(token).replace(/\n/g, "⏎").trim() || "␣"; // ⋯: the rest of a character
  const spelled = token => token === "" ? "⋯" : visible(token).replace(/\n/g, "⏎\n");
  const unknown = v => v === null || v === undefined || Number.isNaN(v);
  const percent = (v, digits) => unknown(v) ? "–" : (100 * v).toFixed(digits) + "%";
  const number = v => unknown(v) ? "–" : v === 0 ? "0" : Math.abs(v) === Infinity ? (v < 0 ? "−∞" : "∞")
    : Math.abs(v) < 1e-3 || Math.abs(v) >= 1e5 ? v.toExponential(2).replaceAll("-", "−") : Number(v.toPrecision(3)).toString().replace("-", "−");

  // Colours
  function table(stops) {
    const rgb = stops.map(s => [1, 3, 5].map(i => parseInt(s.slice(i, i + 2), 16)));
    return Array.from({ length: 256 }, (_, n) => {
      const at = n / 255 * (rgb.length - 1), a = Math.min(Math.floor(at), rgb.length - 2), f = at - a;
      return rgb[a].map((v, c) => Math.round(v + f * (rgb[a + 1][c] - v)));
    });
  }
  function prepare(dark) {
    const stops = RAMPS[dark ? "dark" : "light"];
    tables = { up: table(stops.up), down: table(stops.down), stops };
  }
  function strength(v, most) {
    const r = Math.abs(v) < most ? Math.abs(v) / most : 1, how = $("scale").value;
    return how === "linear" ? r : how === "sqrt" ? Math.sqrt(r) : r > 0 ? Math.max(0, 1 + Math.log10(r) / 4) : 0;
  }
  const shade = (sign, share) => tables[sign < 0 ? "down" : "up"][Math.round(255 * share)];
  const colour = (v, most) => unknown(v) ? UNKNOWN : shade(v, strength(v, most));
  const linear = c => c <= 10 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4;
  function ink(rgb) {                                             // black or white, the one of more contrast: 4.58 at least
    const [r, g, b] = rgb.map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
  }
  function on(element, rgb) {
    element.style.background = rgb ? `rgb(${rgb})` : "";
    element.style.color = rgb ? ink(rgb) : "";
  }
  function largest(values) {                                      // all but the 2 in 1000 largest
    const step = Math.max(1, Math.floor(values.length / 40000)), some = [];
    for (let i = 0; i < values.length; i += step) if (values[i] !== 0 && Number.isFinite(values[i])) some.push(Math.abs(values[i]));
    some.sort((a, b) => a - b);
    return some.length ? some[Math.min(some.length - 1, Math.floor(some.length * 0.998))] : 1;
  }
  const most = values => values.reduce((best, v) => Number.isFinite(v) ? Math.max(best, Math.abs(v)) : best, 1e-300);

  // What is said of what is pointed at
  function tip(text, event) {
    const box = $("tip");
    box.textContent = text;
    box.hidden = false;
    const w = box.offsetWidth, h = box.offsetHeight;
    box.style.left = Math.max(8, Math.min(event.clientX + 14, innerWidth - w - 8)) + "px";
    box.style.top = (event.clientY + 18 + h > innerHeight ? event.clientY - h - 12 : event.clientY + 18) + "px";
  }
  const untip = () => { $("tip").hidden = true; };
  function describe(tokens, t, i, values) {
    const [seen, query] = [tokens[i], tokens[t]].map(clean);
    if (i > t) return `“${seen}” at ${i} comes after the query: weight 0`;
    const head = `“${seen}” at ${i}` + (t === i ? ", the query itself" : ` seen from “${query}” at ${t}, ${t - i} later`);
    return [head, ...Object.keys(NAMES).filter(n => values[n]).map(n => `${NAMES[n]}: ${number(values[n][i])}`)].join("\n");
  }

  // A text coloured by weight
  function strip(box, tokens, t, near, rgbs) {
    if (box.shows !== tokens) {
      box.shows = tokens;
      box.innerHTML = tokens.map((token, i) => `<span data-i="${i}">${escape(spelled(token))}</span>`).join("");
    }
    [...box.children].forEach((span, i) => {
      on(span, rgbs[i]);
      span.className = (i === t ? "query" : rgbs[i] ? "" : "later") + (i === near ? " near" : "");
    });
    const query = box.children[t], place = query.offsetTop - box.offsetTop;
    if (place < box.scrollTop || place + query.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = place - box.clientHeight / 2;
  }

  // Heat maps
  function paint(canvas, values, T, top) {
    const pool = Math.ceil(T / 480), side = Math.ceil(T / pool), image = new ImageData(side, side);
    for (let r = 0; r < side; r++) for (let c = 0; c <= r; c++) {
      const best = strongest(values, T, r * pool, c * pool, pool);
      if (best !== null) image.data.set([...colour(best, top), 255], 4 * (r * side + c));
    }
    canvas.width = canvas.height = side;
    canvas.style.imageRendering = side < 400 ? "pixelated" : "auto";
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
  function strongest(values, T, row, column, pool) {              // of a block of `pool` rows and columns
    let best = null;
    for (let t = row; t < Math.min(T, row + pool); t++) for (let i = column; i < Math.min(t + 1, column + pool); i++) {
      const v = values[t * T + i];
      if (best === null || Number.isNaN(v) || Math.abs(v) > Math.abs(best)) best = v;
    }
    return best;
  }
  function map(id, caption, label, tokens) {                      // its HTML: to be painted
    const every = Math.ceil(tokens.length / LABELS), place = i => `${100 * (i + 0.5) / tokens.length}%`;
    const labels = side => tokens.map((token, i) => i % every ? "" : `<span style="${side}:${place(i)}">${every > 1 ? i + " " : ""}${escape(clean(token))}</span>`).join("");
    return `<figure><figcaption>${caption}</figcaption><div class="grid"><div class="ticks rows" aria-hidden="true">${labels("top")}</div>
      <div class="frame"><canvas id="${id}" tabindex="0" role="application" aria-label="${escape(label)}; arrow keys move the query and the token"></canvas>
      <div class="cross row"></div><div class="cross column"></div></div><div class="ticks columns" aria-hidden="true">${labels("left")}</div></div><div class="legend"></div></figure>`;
  }
  function legend(box, top, signed) {
    const stop = (ramp, to) => ramp.map((c, i) => [c, i / (ramp.length - 1)]).map(([c, f]) => `${c} ${50 + to * 50 * f}%`);
    const { up, down } = tables.stops, both = [...stop(down, -1).reverse(), ...stop(up, 1)];
    box.innerHTML = `<span>${signed ? "−" + number(top) : 0}</span><i style="background:linear-gradient(90deg,${signed ? both : up})"></i><span>${number(top)}</span>`;
  }
  function cross(canvas, T, t, near) {
    const [r, c] = canvas.parentElement.querySelectorAll(".cross"), pc = v => 100 * v / T + "%";
    Object.assign(r.style, { top: pc(t + 0.5), width: pc(t + 1) });
    Object.assign(c.style, { left: pc(near + 0.5), top: pc(near), height: pc(t + 1 - near) });
  }
  function pointed(canvas, T, event) {                            // row and column
    const r = canvas.getBoundingClientRect(), n = v => Math.max(0, Math.min(T - 1, Math.floor(v * T)));
    return [n((event.clientY - r.top) / r.height), n((event.clientX - r.left) / r.width)];
  }
  const path = points => points.map(([a, b], i) => !Number.isFinite(b) ? "" : `${i && Number.isFinite(points[i - 1][1]) ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
  const nextTokens = found => found.map(([token, p]) => `<b>${escape(clean(token))}</b> ${percent(p, p < 0.1 ? 1 : 0)}`).join(" · ");
  return { $, NAMES, escape, clean, unknown, percent, number, prepare, shade, colour, on, largest, most, tip, untip, describe, strip, paint, map, legend, cross, pointed, path, nextTokens };
})();
