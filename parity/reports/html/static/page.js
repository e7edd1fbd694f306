"use strict";
(() => {
  const $ = (query, root = document) => root.querySelector(query);
  const $$ = (query, root = document) => [...root.querySelectorAll(query)];
  const data = JSON.parse($("#data").textContent);
  const root = document.documentElement;
  const sheet = $("#sheet");
  const table = $("#table");
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };

  // ---- light and dark
  const stored = { get: () => { try { return localStorage.getItem("parity-theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("parity-theme", value); } catch { /* a page opened as a file may have no storage */ } } };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  if (stored.get()) root.dataset.theme = stored.get();
  const turn = () => { root.dataset.theme = isDark() ? "light" : "dark"; stored.set(root.dataset.theme); redraw(); };
  system.addEventListener("change", () => redraw());

  // ---- charts
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const palette = () => isDark()
    ? ["#6bb8e8", "#ff8a57", "#4dbb95", "#e2ac3f", "#e48fca", "#b7a5f0", "#d9d36b", "#8fd3d1", "#f0a3a3", "#a9b1ba"]
    : ["#1d6fa5", "#b83a00", "#1f7a5c", "#a87600", "#97387a", "#5e4bb0", "#7d7a12", "#23797a", "#a84848", "#5f6670"];
  const looks = (role, number) => {
    const lines = { isolated: { color: colour("born"), width: 2 }, propagated: { color: colour("inherited"), width: 2 },
      floor: { color: colour("soft"), width: 1, dash: "dot" }, rest: { color: colour("line"), width: 1 } };
    return lines[role] || { color: palette()[number % 10], width: 1.6 };
  };
  const layout = (own, small) => {
    const axis = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, automargin: true, tickfont: { size: 11 }, title: { standoff: 8 } };
    const merged = (mine = {}) => ({ ...axis, ...mine, title: { ...axis.title, ...(mine.title || {}) } });
    return { ...own, xaxis: merged(own.xaxis), yaxis: merged(own.yaxis), paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, DejaVu Sans, sans-serif", size: 12, color: colour("soft") }, margin: small ? { l: 40, r: 8, t: 26, b: 34 } : { l: 52, r: 16, t: 34, b: 40 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } }, hoverlabel: { font: { family: "ui-monospace, Menlo, monospace", size: 12 } } };
  };
  const config = { displayModeBar: false, responsive: true, showTips: false };
  const plot = (place, figure) => {
    let number = 0;
    const narrow = innerWidth < 620 && place.dataset.figure === "update";
    const own = { ...figure.layout }, ticks = own.xaxis.tickvals, few = Math.ceil(ticks.length / 10);
    // Names that stand upright need the room of a line each.
    if (innerWidth < 620 && own.xaxis.ticktext && few > 1) own.xaxis = { ...own.xaxis, tickvals: ticks.filter((_, i) => i % few === 0), ticktext: own.xaxis.ticktext.filter((_, i) => i % few === 0) };
    const traces = figure.data.map((trace) => ({ ...trace, line: looks(trace.meta, trace.meta === "rest" ? 0 : number++), marker: { size: trace.x.length > 60 ? 3 : 6, color: looks(trace.meta, number - 1).color } }));
    Plotly.react(place, traces, { ...layout(own), showlegend: !narrow }, config);
    if (!place.dataset.ready) {
      place.dataset.ready = "yes";
      place.on("plotly_click", (event) => { const at = event.points[0].customdata; if (at >= 0 && place.dataset.figure !== "update") open(at); });
    }
  };
  const drawn = new IntersectionObserver((entries) => entries.filter((e) => e.isIntersecting).forEach((e) => { drawn.unobserve(e.target); plot(e.target, data.figures[e.target.dataset.figure]); }), { rootMargin: "400px" });
  $$(".chart[data-figure]").forEach((place) => drawn.observe(place));
  const redraw = () => {
    $$(".chart[data-ready]").filter((place) => place.dataset.figure).forEach((place) => plot(place, data.figures[place.dataset.figure]));
    if (sheet && !sheet.hidden) { const tab = $(".layer:not([hidden]) .tabs [aria-selected=true]", sheet); if (tab) tab.click(); }
  };
  // Paper is light, and shows what is folded up.
  let closed = [], theme;
  addEventListener("beforeprint", () => {
    closed = $$("details:not([open])"); theme = root.dataset.theme; root.dataset.theme = "light";
    closed.forEach((part) => { part.open = true; });
    $$(".chart[data-figure]").forEach((place) => plot(place, data.figures[place.dataset.figure]));
    redraw();
  });
  addEventListener("afterprint", () => {
    closed.forEach((part) => { part.open = false; });
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
    redraw();
  });

  // ---- one tensor's detail
  const ramp = (t) => {  // from paper to ink through orange: dark is far apart, in both themes against the ground
    const stops = isDark() ? [[34, 39, 44], [94, 58, 40], [190, 92, 44], [255, 170, 105], [255, 240, 215]] : [[250, 243, 230], [250, 205, 150], [236, 130, 70], [176, 56, 20], [74, 16, 12]];
    const at = t * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(at)), f = at - i;
    return stops[i].map((v, k) => Math.round(v + (stops[i + 1][k] - v) * f));
  };
  const power = (value) => (10 ** value).toExponential(0);
  const heat = (d) => {
    const [rows, columns] = d.size, bytes = Uint8Array.from(atob(d.heat), (c) => c.charCodeAt(0));
    const canvas = make("canvas", { width: columns, height: rows, role: "img", "aria-label": `Where it differs: ${d.axes.filter(Boolean).join(" by ")}` });
    canvas.style.aspectRatio = rows === 1 ? `${Math.max(columns, 8)} / 2` : `${columns} / ${rows}`;
    if (rows > 1 && columns < rows) canvas.style.maxWidth = `${Math.max(60, 320 * columns / rows)}px`;
    const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
    const none = isDark() ? [27, 31, 35] : [255, 255, 255];
    bytes.forEach((b, i) => image.data.set([...(b ? ramp(b / 255) : none), 255], 4 * i));
    context.putImageData(image, 0, 0);
    const read = make("span");
    canvas.addEventListener("mousemove", (event) => {
      const box = canvas.getBoundingClientRect(), c = Math.min(columns - 1, Math.floor((event.clientX - box.left) / box.width * columns)), r = Math.min(rows - 1, Math.floor((event.clientY - box.top) / box.height * rows));
      const b = bytes[r * columns + c], value = b ? (10 ** (d.low + (b - 1) / 254 * (d.high - d.low))).toExponential(1) : "0";
      read.textContent = `${rows > 1 ? `${d.axes[0]} ${Math.floor(r * d.extents[0] / rows)}, ` : ""}${d.axes[1]} ${Math.floor(c * d.extents[1] / columns)}: ${value}`;
    });
    const bar = make("i"); bar.style.background = `linear-gradient(90deg,${[0, .25, .5, .75, 1].map((t) => `rgb(${ramp(t)})`)})`;
    const scale = bytes.some(Boolean) ? [power(d.low), bar, power(d.high)] : ["no difference anywhere"];
    canvas.hidden = !bytes.some(Boolean);
    return make("figure", {}, make("figcaption", {}, `Largest |Δ| · ${d.axes.filter(Boolean).join(" ↓ × ")}${d.axes[0] ? " →" : ""}`), canvas, make("div", { class: "heat-scale" }, ...scale, read));
  };
  const bins = ([low, high], count) => Array.from({ length: count }, (_, i) => low + (i + 0.5) * (high - low) / count);
  const small = (title, traces, own) => {
    const place = make("div", { class: "chart", role: "img", "aria-label": title });
    const figure = make("figure", {}, make("figcaption", {}, title), place);
    requestAnimationFrame(() => Plotly.newPlot(place, traces, layout(own, true), config));
    return figure;
  };
  const show = (place, d) => {
    const figures = [heat(d)];
    const x = bins(d.edges, d.expected.length);
    const line = (y, name, tone, fill) => ({ type: "scatter", mode: "lines", x, y, name, line: { shape: "hvh", width: 1.6, color: tone }, fill: fill ? "tozeroy" : "none", hovertemplate: `%{x:.4g}: %{y}<extra>${name}</extra>` });
    figures.push(small("Values", [line(d.expected, "reference", colour("inherited"), true), line(d.actual, "Keras", colour("born"))], { xaxis: { exponentformat: "power", nticks: 5 }, yaxis: { type: "log", dtick: 1, exponentformat: "power" } }));
    if (d.errors.length) figures.push(small(`|Δ| of elements, ${(100 * d.equal).toFixed(d.equal < .1 ? 1 : 0)} % are equal`, [{ type: "bar", x: bins(d.errorEdges, d.errors.length), y: d.errors, marker: { color: colour("inherited") }, hovertemplate: "10^%{x:.1f}: %{y}<extra></extra>" }], { bargap: .05, xaxis: { tickprefix: "10<sup>", ticksuffix: "</sup>" }, showlegend: false }));
    if (d.profile.length > 1 && d.errors.length) figures.push(small("Error per channel (root mean square)", [{ type: "bar", y: d.profile.map(Number), marker: { color: colour("inherited") }, hovertemplate: "channel %{x}: %{y:.3g}<extra></extra>" }], { bargap: .1, yaxis: { exponentformat: "power" }, showlegend: false }));
    const body = make("tbody");
    d.worst.forEach((row) => body.append(make("tr", {}, ...row.map((text, i) => make("td", { class: i ? "num mono" : "mono" }, text)))));
    const worst = d.worst.length ? make("div", { class: "scroll" }, make("table", { class: "probes" }, make("thead", {}, make("tr", {}, ...["worst elements at", "reference", "Keras", "|Δ|"].map((t, i) => make("th", i ? { class: "num" } : {}, t)))), body)) : "";
    place.replaceChildren(make("p", { class: "quiet" }, `${d.shape}${d.part ? ` · ${d.part}` : ""} · max |Δ| ${d.max}${d.floor ? ` · noise floor ${d.floor}` : ""}`), make("div", { class: "plots" }, ...figures), worst);
  };
  const fill = (section) => {
    const place = $(".tensors", section), numbers = section.dataset.details.split(" ").filter(Boolean).map(Number);
    if (place.firstChild) return;
    const unseen = section.dataset.unseen;
    if (unseen || !numbers.length) place.append(make("p", { class: "quiet unseen" }, unseen ? `No pictures of ${unseen}: only numbers were kept of them.` : "No pictures of its tensors were kept."));
    if (!numbers.length) return;
    const body = make("div"), tabs = make("div", { class: "tabs", role: "tablist", "aria-label": "Tensors" });
    numbers.forEach((n) => {
      const d = data.details[n], tab = make("button", { type: "button", role: "tab", "aria-selected": "false" }, `${d.phase} ${d.tensor}${d.phase === "update" ? `, step ${d.step}` : ""}${d.how === "alone" ? ", alone" : ""}`);
      tab.addEventListener("click", () => { $$("button", tabs).forEach((b) => b.setAttribute("aria-selected", String(b === tab))); show(body, d); });
      tabs.append(tab);
    });
    place.append(tabs, body);
    // What was born here first; else the first tensor that differs at all.
    const alone = numbers.findIndex((n) => data.details[n].how === "alone"), differs = numbers.findIndex((n) => data.details[n].errors.length);
    $$("button", tabs)[alone >= 0 ? alone : Math.max(0, differs)].click();
  };

  // ---- layers
  const rows = table ? $$("tbody tr", table) : [];
  const visible = () => $$("tbody tr", table).filter((row) => !row.hidden);
  let current = null;
  const mark = (at) => { $$(".here").forEach((n) => n.classList.remove("here")); $$(`tr[data-layer="${at}"], .node[href="#layer-${at}"]`).forEach((n) => n.classList.add("here")); };
  // Long lists and graphs begin where the two sides part, not at the first layer.
  const seek = (at) => $$(`tr[data-layer="${at}"], .canvas:not([hidden]) .node[href="#layer-${at}"]`).forEach((node) => {
    const box = node.closest(".tall, .canvas");
    if (box) { const a = node.getBoundingClientRect(), b = box.getBoundingClientRect(); box.scrollTop += a.top + a.height / 2 - b.top - b.height / 2; box.scrollLeft += a.left + a.width / 2 - b.left - b.width / 2; }
  });
  const open = (at) => {
    const section = document.getElementById(`layer-${at}`);
    if (!section) return;
    current = Number(at); sheet.hidden = false;
    $$(".layer", sheet).forEach((other) => { other.hidden = other !== section; });
    fill(section); mark(at); sheet.scrollTop = 0; section.focus({ preventScroll: true });
    if (location.hash !== `#layer-${at}`) history.replaceState(null, "", `#layer-${at}`);
  };
  const close = () => {
    if (!sheet || sheet.hidden) return;
    sheet.hidden = true; history.replaceState(null, "", location.pathname + location.search);
    const row = $(`tr[data-layer="${current}"]`); if (row && !row.hidden) row.focus({ preventScroll: true });
  };
  const move = (by) => {
    const shown = visible();
    if (!shown.length) return;
    const focused = shown.indexOf(document.activeElement), at = sheet && current !== null ? shown.findIndex((row) => Number(row.dataset.layer) === current) : focused;
    const next = shown[Math.max(0, Math.min(shown.length - 1, at < 0 ? 0 : at + by))];
    next.scrollIntoView({ block: "nearest" });
    if (sheet) open(next.dataset.layer); else next.focus();
  };
  const go = (row) => { if (row.dataset.layer !== undefined) open(row.dataset.layer); else { const link = $("a", row); if (link) link.click(); } };
  rows.forEach((row) => row.addEventListener("click", (event) => { if (!event.target.closest("a")) go(row); }));
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#layer-']");
    if (link) { event.preventDefault(); open(link.getAttribute("href").slice(7)); return; }
    if (event.target.closest(".close")) close();
    if (event.target.closest(".next")) move(1);
    if (event.target.closest(".previous")) move(-1);
    const copy = event.target.closest(".copy");
    if (copy) {
      const text = $("code", copy.parentElement).textContent.trimEnd(), done = () => { copy.textContent = "Copied"; setTimeout(() => { copy.textContent = "Copy"; }, 1500); };
      const select = () => { getSelection().selectAllChildren($("code", copy.parentElement)); copy.textContent = "Selected"; };
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, select); else select();
    }
  });

  // ---- search, filter, sort
  const search = $("#search"), chosen = new Set();
  const sift = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row) => {
      const text = row.dataset.name.toLowerCase(), fits = words.every((word) => text.includes(word)) && (!chosen.size || chosen.has(row.dataset.status));
      row.hidden = !fits; count += fits;
      $$(`.node[href="#layer-${row.dataset.layer}"]:not(.folded)`).forEach((node) => node.classList.toggle("dim", !fits));
    });
    if ($("#shown")) $("#shown").textContent = count === rows.length ? "" : `${count} of ${rows.length} layers`;
    if ($("#nothing")) $("#nothing").hidden = count > 0;
  };
  search.addEventListener("input", sift);
  search.addEventListener("keydown", (event) => { if (event.key === "Enter" && visible().length) { go(visible()[0]); } });
  $$(".chip").forEach((chip) => chip.addEventListener("click", () => {
    const word = chip.dataset.status, on = !chosen.has(word);
    if (on) chosen.add(word); else chosen.delete(word);
    chip.setAttribute("aria-pressed", String(on)); sift();
  }));
  if (table) $$("th[data-sort]", table).forEach((head) => {
    const button = make("button", { type: "button", class: "sort" }, ...head.childNodes); head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending", column = head.cellIndex, number = head.dataset.sort === "number";
      $$("th", table).forEach((other) => other.removeAttribute("aria-sort")); head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => { const cell = row.cells[column], text = cell.dataset.value ?? cell.textContent.trim(); return number ? (text === "inf" ? Infinity : Number(text)) : text; };
      const sorted = [...rows].sort((a, b) => { const x = key(a), y = key(b); return (number ? (x < y ? -1 : x > y ? 1 : 0) : x.localeCompare(y)) * (down ? -1 : 1); });
      $("tbody", table).append(...sorted);
    });
  });
  const fold = $("#fold");
  if (fold) fold.addEventListener("click", () => {
    const folded = fold.getAttribute("aria-pressed") === "true"; fold.setAttribute("aria-pressed", String(!folded));
    fold.textContent = folded ? "Fold what matches" : "Unfold all layers"; $$(".canvas").forEach((c) => { c.hidden = (c.dataset.picture === "folded") === folded; });
  });

  // ---- keys
  const keys = $("#keys");
  $("#dark").addEventListener("click", turn);
  $("#help").addEventListener("click", () => keys.showModal());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !keys.open) { if (document.activeElement === search) { search.value = ""; sift(); search.blur(); } else close(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select") || keys.open) return;
    if (event.key === "Enter" && event.target.matches("tr")) go(event.target);
    const done = { "/": () => search.focus(), j: () => move(1), k: () => move(-1), d: turn, "?": () => keys.showModal() }[event.key];
    if (done) { event.preventDefault(); done(); }
  });
  const first = $(".first .place a");
  if (first) seek(first.getAttribute("href").slice(7));
  if (/^#layer-\d+$/.test(location.hash)) open(location.hash.slice(7));
})();
