// Draws the report's plots from the JSON in the page, and keeps plot, table and selected layout in step.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const GIB = 2 ** 30;
const NARROW = window.innerWidth < 640;
const PRINTED_WIDTH = 680;
const state = { chosen: null, hidden: new Set(), width: undefined };

async function loadPlotly() {
  const packed = atob(document.getElementById("plotly-gzip").textContent.trim());
  const bytes = Uint8Array.from(packed, (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.appendChild(script);
}

// --- the look of every plot --------------------------------------------------------------------------------------

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A figure names the page's colours as "@fg" or "@bad", so that it follows light and dark.
function coloured(value) {
  if (typeof value === "string") return /^@[a-z]+$/.test(value) ? css("--" + value.slice(1)) : value;
  if (Array.isArray(value)) return value.map(coloured);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v)]));
  return value;
}

function style(layout) {
  const axis = { gridcolor: css("--grid"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true };
  const themed = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: css("--fg"), family: "system-ui, sans-serif", size: NARROW ? 11 : 13 },
    margin: { l: 56, r: 16, t: 16, b: 48 },
    legend: { orientation: "h", y: -0.18, x: 0 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--dim"), activecolor: css("--accent") },
    hoverlabel: { align: "left", bgcolor: css("--panel"), bordercolor: css("--line"), font: { color: css("--fg") } },
    ...coloured(layout),
  };
  for (const key of ["xaxis", "yaxis"]) themed[key] = { ...axis, ...themed[key], title: { standoff: 10, ...themed[key]?.title } };
  if (state.width) themed.width = state.width;
  return themed;
}

const CONFIG = {
  responsive: true, displaylogo: false, displayModeBar: NARROW ? false : "hover",
  modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
};

// On a phone and on paper the names above a plot stand one below the other: they get the height that they need.
function roomForNames(figure) {
  const { legend, margin, height } = figure.layout;
  const names = figure.data.filter((trace) => trace.name && trace.showlegend !== false).length;
  if (!(NARROW || state.width) || !legend || legend.yanchor !== "bottom" || names < 4) return figure.layout;
  const top = 24 + 17 * names;
  return { ...figure.layout, margin: { ...margin, t: top }, height: height - margin.t + top };
}

function drawFigures() {
  for (const [id, figure] of Object.entries(data.figures)) {
    const node = document.getElementById(id);
    if (node) Plotly.react(node, coloured(figure.data), style(roomForNames(figure)), { ...CONFIG, displayModeBar: false });
  }
}

// --- the explorer: every kept layout as a point ------------------------------------------------------------------

const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f7f"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up"];
const MEASURES = {
  memory: { title: "GiB per device at the peak", read: (l) => l.memory / GIB },
  usd: { title: "dollars per billion tokens", read: (l) => l.usd },
  sent: { title: "GiB that one device sends a step", read: (l) => l.sent / GIB },
  mfu: { title: "MFU, %", read: (l) => 100 * l.mfu },
};
const shown = (layout) => !state.hidden.has(layout.id);
const seconds = (s) => (s >= 1 ? s.toPrecision(3) + " s" : (s * 1e3).toPrecision(3) + " ms");
const gib = (b) => (b / GIB).toFixed(1) + " GiB";

function hover(layout) {
  const money = layout.usd ? `<br>$${layout.usd.toFixed(0)} per billion tokens` : "";
  const text = layout.text.replace(/(.{30,60}?), /g, "$1,<br>");
  return `<b>${layout.rank ? "#" + layout.rank + " " : ""}${text}</b><br>${seconds(layout.time)} a step, ` +
    `MFU ${(layout.mfu * 100).toFixed(1)}%<br>${gib(layout.memory)}${money}`;
}

function points(layouts, name, marker, extra) {
  const read = MEASURES[document.getElementById("measure").value].read;
  return {
    type: "scatter", mode: "markers", name, x: layouts.map((l) => l.time), y: layouts.map(read),
    customdata: layouts.map((l) => l.id), hovertemplate: layouts.map((l) => hover(l) + "<extra></extra>"), marker, ...extra,
  };
}

// Ticks of a logarithmic axis that people read: 1, 2, 5, 10, 20 ...
function logTicks(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high) + 1; power++)
    for (const digit of high / low < 4 ? [1, 1.5, 2, 3, 4, 5, 6, 8] : [1, 2, 5]) ticks.push(digit * 10 ** power);
  return { tickvals: ticks, ticktext: ticks.map((t) => String(Number(t.toPrecision(3)))) };
}

function memoryLimit(kept) {
  const y = data.limit_bytes / GIB;
  if (Math.max(...kept.map((l) => l.memory), 0) < 0.6 * data.limit_bytes) return {};
  return {
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: css("--bad"), width: 1 } }],
    annotations: [{ xref: "paper", x: 0, xanchor: "left", y, yanchor: "bottom", text: "memory of a device", showarrow: false, font: { color: css("--bad"), size: 11 } }],
  };
}

function drawPareto() {
  const node = document.getElementById("pareto-plot");
  if (!node) return;
  const field = document.getElementById("colour").value;
  const measure = document.getElementById("measure").value;
  const kept = data.layouts.filter(shown);
  const values = [...new Set(data.layouts.map((l) => l[field]))].sort((a, b) => (a > b ? 1 : -1));
  const traces = values.map((value, i) => points(kept.filter((l) => l[field] === value), `${field}=${value}`,
    { size: 8, opacity: 0.8, color: PALETTE[i % PALETTE.length], symbol: SYMBOLS[Math.floor(i / PALETTE.length) % SYMBOLS.length] }));
  if (measure === "memory") {
    const front = kept.filter((l) => l.front).sort((a, b) => a.time - b.time);
    traces.push({
      type: "scatter", mode: "lines", name: "Pareto front", x: front.map((l) => l.time), y: front.map((l) => l.memory / GIB),
      line: { color: css("--fg"), width: 1.5, dash: "dot", shape: "hv" }, hoverinfo: "skip",
    });
  }
  const top = kept.filter((l) => l.rank);
  traces.push(points(top, "the best", { size: 15, symbol: "star", color: css("--accent"), line: { color: css("--bg"), width: 1 } },
    { mode: "markers+text", text: top.map((l) => "#" + l.rank), textposition: top.map((l) => ["top left", "middle right", "bottom left"][l.rank % 3]) }));
  const chosen = data.layouts.filter((l) => l.id === state.chosen);
  traces.push(points(chosen, "selected", { size: 18, symbol: "circle-open", color: css("--bad"), line: { width: 2.5 } }, { hoverinfo: "skip" }));
  Plotly.react(node, traces, style({
    height: NARROW ? 460 : 480, hovermode: "closest",
    xaxis: { title: { text: "seconds a step (log)" }, type: "log", ...logTicks(data.layouts.map((l) => l.time)) },
    yaxis: { title: { text: MEASURES[measure].title }, rangemode: measure === "mfu" ? "normal" : "tozero" },
    ...(measure === "memory" ? memoryLimit(kept) : {}),
  }), CONFIG);
  node.removeAllListeners("plotly_click");
  node.on("plotly_click", (event) => choose(event.points[0].customdata));
}

function applyFilters() {
  const wanted = [...document.querySelectorAll("#filters select[data-field]")].filter((s) => s.value !== "");
  state.hidden = new Set(data.layouts.filter((l) => wanted.some((s) => String(l[s.dataset.field]) !== s.value)).map((l) => l.id));
  document.getElementById("shown").textContent = `${data.layouts.length - state.hidden.size} of ${data.layouts.length} layouts shown`;
  drawPareto();
  document.querySelectorAll(".tabled").forEach(filterRows);
}

function parts(values, form) {
  const total = Object.values(values).reduce((a, b) => a + b, 0);
  return Object.entries(values).filter(([, v]) => v > 0.005 * total).sort((a, b) => b[1] - a[1])
    .map(([name, v]) => `${name} ${form(v)}`).join(", ");
}

function choose(id) {
  const layout = data.layouts.find((l) => l.id === id);
  if (!layout) return;
  state.chosen = id;
  const panel = document.getElementById("selected");
  panel.replaceChildren();
  const add = (tag, text) => panel.appendChild(Object.assign(document.createElement(tag), { textContent: text }));
  add("h3", layout.text);
  const slower = layout.time / data.best_time - 1;
  add("p", `${seconds(layout.time)} a step, ${slower < 1e-6 ? "the best" : (slower * 100).toFixed(1) + "% slower than the best"}; ` +
    `MFU ${(layout.mfu * 100).toFixed(1)}%; ${gib(layout.memory)} of ${gib(data.limit_bytes)} per device.`);
  add("p", "Time: " + parts(layout.time_parts, seconds) + ".");
  add("p", "Memory: " + parts(layout.memory_parts, gib) + ".");
  for (const sentence of layout.words) add("p", sentence);
  for (const row of document.querySelectorAll("tr.chosen")) row.classList.remove("chosen");
  for (const row of document.querySelectorAll(`tr[data-layout="${id}"]`)) row.classList.add("chosen");
  drawPareto();
}

// --- tables ------------------------------------------------------------------------------------------------------

function sortTable(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  for (const cell of table.tHead.rows[0].cells) cell.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const numeric = head.classList.contains("num");
  const value = (row) => {
    const cell = row.cells[column];
    const said = cell.dataset.value ?? cell.textContent;  // a value that is its own text is not said twice
    return numeric ? Number(said.replace("inf", "Infinity")) : said;
  };
  const before = (a, b) => (a === b ? 0 : numeric ? a - b : a.localeCompare(b));
  const rows = [...table.tBodies[0].rows].sort((a, b) => before(value(a), value(b)) * (ascending ? 1 : -1));
  table.tBodies[0].append(...rows);
}

// A row stays where every word is in it and, of a layout, where the plot shows that layout too.
function filterRows(tabled) {
  const input = tabled.querySelector(".table-filter");
  const words = input ? input.value.toLowerCase().split(/\s+/).filter(Boolean) : [];
  const rows = [...tabled.querySelectorAll("tbody tr")];
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const layout = row.dataset.layout;
    row.hidden = !words.every((word) => text.includes(word)) || (layout !== undefined && state.hidden.has(Number(layout)));
  }
  if (input) tabled.querySelector("output").textContent = words.length ? `${rows.filter((r) => !r.hidden).length} of ${rows.length}` : "";
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((cell, i) => cell.firstElementChild.addEventListener("click", () => sortTable(table, i)));
}
for (const tabled of document.querySelectorAll(".tabled")) {
  tabled.querySelector(".table-filter")?.addEventListener("input", () => filterRows(tabled));
}
for (const row of document.querySelectorAll("tr[data-layout]")) {
  row.addEventListener("click", () => choose(Number(row.dataset.layout)));
  row.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(Number(row.dataset.layout)); } });
}

// --- start -------------------------------------------------------------------------------------------------------

function draw() { drawFigures(); if (document.getElementById("filters")) applyFilters(); }

document.getElementById("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = dark === "dark" ? "light" : "dark";
  draw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

// Paper is white and narrow, whatever the screen is.
let screenTheme;
addEventListener("beforeprint", () => {
  screenTheme = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
  state.width = PRINTED_WIDTH;
  draw();
});
addEventListener("afterprint", () => {
  if (screenTheme) document.documentElement.dataset.theme = screenTheme;
  else delete document.documentElement.dataset.theme;
  state.width = undefined;
  draw();
  for (const node of document.querySelectorAll(".plot")) Plotly.Plots.resize(node);
});

loadPlotly().then(() => {
  const form = document.getElementById("filters");
  if (form) {
    form.addEventListener("change", applyFilters);
    form.addEventListener("reset", () => setTimeout(applyFilters));
    form.addEventListener("submit", (event) => event.preventDefault());
  }
  draw();
  if (data.first !== undefined) choose(data.first);
  document.documentElement.dataset.ready = "true";
}).catch((error) => {
  document.documentElement.dataset.ready = "false";
  for (const node of document.querySelectorAll(".plot")) {
    node.style.minHeight = "0";
    node.textContent = "This browser cannot draw the plots (" + error + "); the tables hold the same numbers.";
  }
});
