// Draws the trace. All texts of it are written with textContent or onto the canvas: none can become a part of the page.
"use strict";

const LABEL = 150, ROW = 24, GRAPH = 64, AXIS = 22;
const STATES = ["running", "runnable", "syscall", "blocked"];
const GROUP_COLOURS = ["#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#F0E442", "#CC79A7", "#8C8C8C"];
const byId = (id) => document.getElementById(id);
const canvas = byId("picture"), pen = canvas.getContext("2d");
const view = { from: 0, to: 1, lane: 0, chosen: null, gs: [] };
let facts = null, picture = { lanes: [], counts: [] }, asked = 0, timer = 0, sorted = { key: "total", down: true };

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

const whole = (n) => n.toLocaleString("en");
const many = (n, one) => whole(n) + " " + one + (n === 1 ? "" : "s");

function time(ns) {
  const size = Math.abs(ns);
  if (size >= 1e12) return whole(Math.round(ns / 1e9)) + " s";
  if (size >= 1e9) return (ns / 1e9).toPrecision(4) + " s";
  if (size >= 1e6) return (ns / 1e6).toPrecision(4) + " ms";
  if (size >= 1e3) return (ns / 1e3).toPrecision(4) + " µs";
  return Math.round(ns) + " ns";
}

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(path + ": " + answer.status);
  return answer.json();
}

// ---- the picture

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const colourOf = (name) => GROUP_COLOURS[name % GROUP_COLOURS.length];

function hatch(context, colour) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const on = tile.getContext("2d");
  on.fillStyle = colour;
  on.fillRect(0, 0, 6, 6);
  on.strokeStyle = "rgba(255,255,255,.75)";
  on.lineWidth = 1.5;
  on.beginPath();
  on.moveTo(-1, 7); on.lineTo(7, -1);
  on.stroke();
  return context.createPattern(tile, "repeat");
}

const width = () => canvas.clientWidth - LABEL;
const place = (ns) => LABEL + (ns - view.from) / (view.to - view.from) * width();
const isGoroutine = (lane) => lane.name.startsWith("G ");

function drawAxis() {
  const span = view.to - view.from, most = Math.max(Math.floor(width() / 110), 1);
  let step = Math.pow(10, Math.floor(Math.log10(span / most)));
  for (const more of [1, 2, 5, 10]) if (span / (step * more) <= most) { step *= more; break; }
  pen.fillStyle = style("soft");
  pen.strokeStyle = style("line");
  pen.beginPath();
  for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
    const x = Math.round(place(at)) + 0.5;
    pen.moveTo(x, GRAPH); pen.lineTo(x, canvas.clientHeight);
    const digits = Math.max(0, Math.ceil(6 - Math.log10(step)));
    pen.fillText((at / 1e6).toFixed(Math.min(digits, 6)) + " ms", x + 4, GRAPH + 15);
  }
  pen.stroke();
}

function drawCounts() {
  const counts = picture.counts;
  pen.fillStyle = style("ink");
  pen.fillText("Goroutines", 8, 18);
  if (!counts.length) return;
  const shown = counts.filter((_, i) => i + 1 === counts.length || counts[i + 1][0] >= view.from);
  const most = Math.max(1, ...shown.map((one) => one[1] + one[2]));
  pen.fillStyle = style("soft");
  pen.fillText("runnable, running;", 8, 34);
  pen.fillText("most: " + whole(most), 8, 50);
  const height = (n) => n / most * (GRAPH - 10);
  shown.forEach((one, i) => {
    const begin = Math.max(place(one[0]), LABEL);
    const end = Math.max(i + 1 < shown.length ? place(shown[i + 1][0]) : canvas.clientWidth, begin + 0.5);
    pen.fillStyle = style("running");
    pen.fillRect(begin, GRAPH - height(one[1]), end - begin, height(one[1]));
    pen.fillStyle = style("runnable");
    pen.fillRect(begin, GRAPH - height(one[1] + one[2]), end - begin, height(one[2]));
  });
}

function drawSlice(lane, slice, top, hatches) {
  const begin = Math.max(place(slice[0]), LABEL), end = Math.min(place(slice[1]), canvas.clientWidth);
  const wide = Math.max(end - begin, 0.7);
  if (end < LABEL) return;
  if (slice.length === 4) {
    // Several: as high as they are busy.
    const busy = Math.max(2, (ROW - 6) * slice[2] / Math.max(slice[1] - slice[0], 1));
    pen.fillStyle = style("soft");
    pen.fillRect(begin, top + ROW - 3 - busy, wide, busy);
    return;
  }
  const owned = isGoroutine(lane), kind = slice[4];
  const colour = owned ? style(STATES[kind]) : colourOf(slice[3]);
  const called = owned ? kind === 2 : kind === 1;
  pen.fillStyle = called ? hatches[colour] ??= hatch(pen, colour) : colour;
  pen.fillRect(begin, top + 3, wide > 4 ? wide - 1 : wide, ROW - 6);
  const text = nameOf(slice);
  if (wide > 40) {
    pen.save();
    pen.beginPath();
    pen.rect(begin, top, wide - 3, ROW);
    pen.clip();
    const light = ["#E69F00", "#56B4E9", "#F0E442", "#CC79A7", "#8C8C8C"].includes(colour) || (owned && kind > 0);
    pen.fillStyle = light || called ? "#000" : "#fff";
    if (called) {
      const room = Math.min(pen.measureText(text).width + 6, wide);
      pen.fillStyle = "rgba(255,255,255,.85)";
      pen.fillRect(begin + 1, top + 5, room, ROW - 10);
      pen.fillStyle = "#000";
    }
    pen.fillText(text, begin + 4, top + 16);
    pen.restore();
  }
}

const nameOf = (slice) => (slice[2] ? "G" + slice[2] + " " : "") + facts.names[slice[3]];

function draw() {
  const high = GRAPH + AXIS + Math.max(picture.lanes.length, 1) * ROW + 6, scale = window.devicePixelRatio || 1;
  canvas.style.height = high + "px";
  if (canvas.width !== Math.round(canvas.clientWidth * scale) || canvas.height !== Math.round(high * scale)) {
    canvas.width = Math.round(canvas.clientWidth * scale);
    canvas.height = Math.round(high * scale);
  }
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.fillStyle = style("paper");
  pen.fillRect(0, 0, canvas.clientWidth, high);
  pen.font = "12px system-ui, sans-serif";
  drawCounts();
  drawAxis();
  const hatches = {};
  picture.lanes.forEach((lane, i) => {
    const top = GRAPH + AXIS + i * ROW;
    if (i === view.lane) {
      pen.fillStyle = style("zebra");
      pen.fillRect(0, top, canvas.clientWidth, ROW);
    }
    for (const slice of lane.slices) drawSlice(lane, slice, top, hatches);
    pen.fillStyle = style(i === view.lane ? "zebra" : "paper");
    pen.fillRect(0, top, LABEL, ROW);
    pen.fillStyle = style("ink");
    pen.fillText((i === view.lane ? "▸ " : "") + lane.name, 8, top + 16);
  });
  drawChosen();
  byId("range").textContent = time(view.from) + " to " + time(view.to) + " (" + time(view.to - view.from) + ")";
}

function drawChosen() {
  if (!view.chosen) return;
  const top = GRAPH + AXIS + view.lane * ROW;
  const begin = Math.max(place(view.chosen[0]), LABEL), end = Math.min(place(view.chosen[1]), canvas.clientWidth);
  if (end < LABEL || begin > canvas.clientWidth) return;
  pen.strokeStyle = style("ink");
  pen.lineWidth = 2;
  pen.strokeRect(begin, top + 2, Math.max(end - begin, 2), ROW - 4);
  pen.lineWidth = 1;
}

function show(from, to) {
  const span = Math.min(Math.max(to - from, 100), facts.length);
  view.from = Math.min(Math.max(from, 0), facts.length - span);
  view.to = view.from + span;
  draw();
  clearTimeout(timer);
  timer = setTimeout(load, 60);
}

async function load() {
  const mine = ++asked;
  const goroutines = view.gs.map((g) => "&g=" + g).join("");
  const path = "/picture?from=" + Math.floor(view.from) + "&to=" + Math.ceil(view.to) + "&columns=" +
    Math.max(Math.floor(width()), 1) + goroutines;
  try {
    const found = await get(path);
    if (mine !== asked) return;
    picture = found;
    view.lane = Math.min(view.lane, Math.max(picture.lanes.length - 1, 0));
    draw();
  } catch (error) {
    warn("The server does not answer any more: " + error.message);
  }
}

function zoom(by, around) {
  const span = (view.to - view.from) * by;
  const part = (around - view.from) / (view.to - view.from);
  show(around - span * part, around + span * (1 - part));
}

const middle = () => (view.from + view.to) / 2;
const move = (part) => show(view.from + (view.to - view.from) * part, view.to + (view.to - view.from) * part);
const moment = (event) => view.from + (event.offsetX - LABEL) / width() * (view.to - view.from);

function read(slice) {
  view.chosen = slice;
  const lane = picture.lanes[view.lane];
  let text = "Nothing is chosen.";
  if (slice && slice.length === 4) {
    text = lane.name + ": " + whole(slice[3]) + " parts from " + time(slice[0]) + " to " + time(slice[1]) + ", busy for " +
      time(slice[2]) + ". Zoom in to see them.";
  } else if (slice) {
    const call = !isGoroutine(lane) && slice[4] === 1 ? ", in a call" : "";
    text = lane.name + ": " + nameOf(slice) + call + ", from " + time(slice[0]) + ", for " + time(slice[1] - slice[0]);
  } else if (lane) {
    text = lane.name + ".";
  }
  byId("reading").textContent = text;
  draw();
}

function step(by) {
  const lane = picture.lanes[view.lane];
  if (!lane || !lane.slices.length) return;
  const at = view.chosen ? lane.slices.findIndex((slice) => slice[0] === view.chosen[0]) : by > 0 ? -1 : lane.slices.length;
  const next = lane.slices[at + by];
  if (next) read(next);
}

function choose(event) {
  const at = moment(event), row = Math.floor((event.offsetY - GRAPH - AXIS) / ROW);
  if (row < 0 || row >= picture.lanes.length) return;
  view.lane = row;
  const near = (view.to - view.from) / width() * 2;
  const found = picture.lanes[row].slices.find((slice) => slice[0] - near <= at && at <= slice[1] + near);
  read(found || null);
}

function listen() {
  const keys = {
    ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2), "+": () => zoom(0.6, middle()), "=": () => zoom(0.6, middle()),
    "-": () => zoom(1 / 0.6, middle()), 0: () => show(0, facts.length), Home: () => show(0, facts.length),
    n: () => step(1), p: () => step(-1), ArrowDown: () => pickLane(1), ArrowUp: () => pickLane(-1),
  };
  const pickLane = (by) => {
    view.lane = Math.min(Math.max(view.lane + by, 0), Math.max(picture.lanes.length - 1, 0));
    read(null);
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  let dragged = null;
  canvas.addEventListener("pointerdown", (event) => {
    dragged = { x: event.clientX, from: view.from, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!dragged) return;
    const by = dragged.x - event.clientX;
    dragged.moved ||= Math.abs(by) > 3;
    const span = view.to - view.from;
    if (dragged.moved) show(dragged.from + by / width() * span, dragged.from + by / width() * span + span);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (dragged && !dragged.moved) choose(event);
    dragged = null;
  });
  canvas.addEventListener("dblclick", (event) => zoom(0.4, moment(event)));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 0.8 : 1.25, moment(event));
  }, { passive: false });
  byId("in").onclick = () => zoom(0.5, middle());
  byId("out").onclick = () => zoom(2, middle());
  byId("left").onclick = () => move(-0.4);
  byId("right").onclick = () => move(0.4);
  byId("all").onclick = () => show(0, facts.length);
  new ResizeObserver(() => requestAnimationFrame(() => show(view.from, view.to))).observe(byId("frame"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

// ---- tables

function bar(row) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 100 10");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const all = STATES.reduce((sum, state) => sum + row[state], 0) || 1;
  let at = 0;
  for (const state of STATES) {
    const part = document.createElementNS(space, "rect"), size = row[state] / all * 100;
    for (const [name, value] of [["x", at], ["width", size], ["y", 0], ["height", 10], ["class", state]]) {
      part.setAttribute(name, value);
    }
    svg.append(part);
    at += size;
  }
  return svg;
}

function heads(table, columns, onSort) {
  const row = table.tHead.rows[0] || element("tr", undefined, table.tHead);
  row.replaceChildren();
  for (const [key, text] of columns) {
    const head = element("th", undefined, row);
    head.scope = "col";
    if (!onSort || key === null) {
      head.textContent = text;
      continue;
    }
    const isIt = sorted.key === key;
    if (isIt) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
    const button = element("button", text + (isIt ? (sorted.down ? " ▾" : " ▴") : ""), head);
    button.type = "button";
    button.dataset.key = key;
    button.onclick = () => onSort(key);
  }
}

function groupTable() {
  const table = byId("groups");
  heads(table, [["name", "start function"], ["count", "goroutines"], ["total", "in all"], ["running", "running"],
    ["runnable", "runnable"], ["syscall", "in calls"], ["blocked", "blocked"], [null, "shares"], [null, "blocked by"]],
  (key) => {
    sorted = { key, down: sorted.key === key ? !sorted.down : key !== "name" };
    groupTable();
    table.querySelector('button[data-key="' + key + '"]').focus();
  });
  const rows = facts.groups.map((group, index) => ({ ...group, index }));
  rows.sort((a, b) => (a[sorted.key] < b[sorted.key] ? -1 : a[sorted.key] > b[sorted.key] ? 1 : 0) * (sorted.down ? -1 : 1));
  table.tBodies[0].replaceChildren(...rows.map((group) => {
    const row = document.createElement("tr"), button = element("button", group.name, element("td", undefined, row));
    button.type = "button";
    button.className = "link";
    button.onclick = () => members(group);
    element("td", whole(group.count), row);
    for (const key of ["total", ...STATES]) element("td", time(group[key]), row);
    element("td", undefined, row).append(bar(group));
    const reasons = element("td", undefined, row);
    reasons.className = "text";
    const list = element("ul", undefined, reasons);
    for (const [reason, ns] of group.reasons.slice(0, 5)) element("li", reason + " " + time(ns), list);
    if (group.reasons.length > 5) element("li", "and " + (group.reasons.length - 5) + " more", list);
    return row;
  }));
}

async function members(group) {
  const table = byId("members"), found = await get("/group?index=" + group.index);
  byId("membersPart").hidden = false;
  byId("membersHead").textContent = group.name + ": " + (group.kept < group.count ?
    "the " + group.kept + " that took longest of " + whole(group.count) : many(group.count, "goroutine"));
  heads(table, ["goroutine", "line", "began", "in all", "running", "runnable", "in calls", "blocked", "shares"].map((t) => [null, t]));
  table.tBodies[0].replaceChildren(...found.map(([total, g, created, running, runnable, syscall, blocked]) => {
    const row = document.createElement("tr");
    element("td", "G" + g, row);
    const button = element("button", "Line", element("td", undefined, row));
    button.type = "button";
    button.setAttribute("aria-label", "Line of G" + g);
    const mark = () => button.setAttribute("aria-pressed", view.gs.includes(g));
    button.onclick = () => {
      view.gs = view.gs.includes(g) ? view.gs.filter((other) => other !== g) : [...view.gs, g].slice(-20);
      mark();
      load();
    };
    mark();
    for (const ns of [created, total, running, runnable, syscall, blocked]) element("td", time(ns), row);
    element("td", undefined, row).append(bar({ running, runnable, syscall, blocked }));
    return row;
  }));
  byId("membersHead").focus();
}

function part(title, heading, rows) {
  const more = byId("more");
  element("h3", title, more);
  if (!rows.length) {
    element("p", "None.", more).className = "soft";
    return;
  }
  const box = element("div", undefined, more), table = element("table", undefined, box);
  box.className = "wide many";
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", title);
  table.createTHead();
  heads(table, heading.map((text) => [null, text]));
  const body = table.createTBody();
  for (const cells of rows) {
    const row = element("tr", undefined, body);
    for (const cell of cells) element("td", cell, row);
  }
}

function legend() {
  const list = byId("legend");
  const entry = (text, fill) => {
    const item = element("li", undefined, list), sample = element("canvas", undefined, item);
    sample.width = 22; sample.height = 12;
    const on = sample.getContext("2d");
    on.fillStyle = fill(on);
    on.fillRect(0, 0, 22, 12);
    item.append(text);
  };
  for (const state of STATES) {
    entry(state === "syscall" ? "in a call (hatched)" : state,
      (on) => state === "syscall" ? hatch(on, style(state)) : style(state));
  }
  entry("several parts, as high as they are busy", () => style("soft"));
  element("li", "processors: a colour for each start function", list);
}

function warn(text) {
  byId("warning").hidden = false;
  byId("warning").textContent = text;
}

async function begin() {
  try {
    facts = await get("/summary");
  } catch (error) {
    warn("The trace could not be loaded: " + error.message);
    return;
  }
  const count = facts.groups.reduce((sum, group) => sum + group.count, 0);
  byId("facts").textContent = time(facts.length) + ", " + many(count, "goroutine") + " on " +
    many(facts.lanes.length, "processor") + "; format " + facts.version;
  if (facts.warning) warn(facts.warning);
  facts.length = Math.max(facts.length, 100);
  view.to = facts.length;
  legend();
  groupTable();
  part("Tasks", ["task", "how many", "in all", "longest"], facts.tasks.map((r) => [r[0], whole(r[1]), time(r[2]), time(r[3])]));
  part("Regions", ["region", "how many", "in all", "longest"],
    facts.regions.map((r) => [r[0], whole(r[1]), time(r[2]), time(r[3])]));
  part("Wake-ups and starts", ["why", "how many"], facts.wakes.map((r) => [r[0], whole(r[1])]));
  part("Messages, labels, samples", ["text", "kind", "goroutine", "when"],
    facts.marks.slice(0, 2000).map(([t, g, kind, text]) => [text, kind, g ? "G" + g : "", time(t)]));
  listen();
  await load();
}

begin();
