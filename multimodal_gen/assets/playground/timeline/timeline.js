"use strict";
// The timeline: lanes on a canvas, drawn while something moves, and as text.

const timelinePanel = h("div", { id: "timeline-panel" });
const timelineBoard = h("canvas", { id: "timeline", tabIndex: 0, role: "img" });
const timelineScene = h("p", { id: "timeline-scene" });
const timelineSpot = h("p", { id: "timeline-spot", className: "hint numbers", role: "status" });
const timelineText = h("details", { id: "timeline-text" }, h("summary", {}, t("As a table")), h("div", { className: "scrolls", tabIndex: 0, role: "region", "aria-label": t("Timeline as a table") }));
const timelinePause = h("button", { id: "timeline-pause", className: "small", type: "button", "aria-pressed": false, onclick: () => pauseTimeline(stoppedAt === null) }, t("Pause"));
const timelineWindow = h("select", { id: "timeline-window", "aria-label": t("Time shown") }, ...[[10, "10 s"], [30, "30 s"], [120, "2 min"], [600, "10 min"]].map(([value, label]) => h("option", { value }, label)));
const timelineDemo = h("button", { id: "timeline-demo", className: "small", type: "button", onclick: demonstrate }, icon("play"), t("Show me: three long requests, then an urgent one"));
const timelineClear = h("button", { id: "timeline-clear", className: "small", type: "button", onclick: () => { for (const [id, lane] of lanes) if (lane.end !== null) lanes.delete(id); spot = null; wakeTimeline(); } }, t("Clear"));
timelineWindow.value = recall("timeline", 30);
timelineWindow.addEventListener("change", () => { remember("timeline", Number(timelineWindow.value)); wakeTimeline(); });

const LEGEND = [["waiting", t("Waiting")], ["encode", t("Encoding the prompt")], ["denoise-1", t("Steps alone")], ["denoise-4", t("shared by 4")], ["denoise-16", t("by 16")], ["interrupted", t("Interrupted")], ["decode", t("Decoding")]];
timelinePanel.append(
  timelineScene,
  h("div", { className: "line tools" }, timelineDemo, timelinePause, timelineWindow, timelineClear),
  timelineBoard, timelineSpot,
  h("ul", { className: "legend", "aria-label": t("Colours") }, ...LEGEND.map(([kind, words]) => h("li", {}, h("i", { className: kind }), words))),
  timelineText);
addTab("Timeline", timelinePanel);

const ROW = 26;
const STRIP = 46;   // how many requests share a step, over time
const AXIS = 20;
const MOST_ROWS = 40;
let stoppedAt = null;   // time at which it was paused
let spot = null;        // { lane, at }: what is inspected, a lane's id and a segment's index
let timelineAsleep = true;
let colours = null;

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  colours = { dark: matchMedia("(prefers-color-scheme: dark)").matches, card: of("card"), ink: of("ink"), soft: of("soft"), line: of("line"), well: of("well"), bad: of("bad"), good: of("good"), warn: of("warn"), focus: of("focus") };
  colours.font = getComputedStyle(document.body).fontFamily;
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colours = null; wakeTimeline(); });

// The more share a step, the more intense.
function denoiseColour(size) {
  const far = Math.min(1, Math.log2(Math.max(1, size)) / 4);
  return colours.dark ? `hsl(${225 + 75 * far} ${55 + 30 * far}% ${38 + 34 * far}%)` : `hsl(${215 + 75 * far} ${60 + 15 * far}% ${76 - 36 * far}%)`;
}
const colourOf = ({ kind, size }) => ({ waiting: colours.line, encode: colours.dark ? "#2aa198" : "#1f9e94", decode: colours.good, interrupted: colours.warn }[kind] || denoiseColour(size));

function shownLanes(from) {
  return Array.from(lanes.values()).filter((lane) => lane.end === null || lane.end >= from).slice(-MOST_ROWS);
}

// Time stands still when nothing runs, so that what was done stays in sight.
function presentTime() {
  if (stoppedAt !== null) return stoppedAt;
  const ends = Array.from(lanes.values(), (lane) => lane.end);
  return !ends.length || ends.includes(null) ? clock() : Math.min(clock(), Math.max(...ends) + 0.5);
}

function wakeTimeline() {
  if (!timelineAsleep || timelinePanel.hidden) return;
  timelineAsleep = false;
  requestAnimationFrame(drawTimeline);
}

let board0 = { left: 0, rows: [], from: 0, scale: 1 };  // as it was drawn last
function drawTimeline() {
  timelineAsleep = true;
  if (timelinePanel.hidden) return;
  if (!colours) readColours();
  const now = presentTime();
  const width = timelineBoard.clientWidth || 300;
  const wide = Number(timelineWindow.value);
  const oldest = Math.min(now, ...Array.from(lanes.values(), (lane) => lane.segments[0]?.start ?? now));
  const span = Math.min(wide, Math.max(4, (now - oldest) * 1.05));
  const from = now - span;
  const rows = shownLanes(from);
  const others = crowd.some(([at, count], i) => count && (crowd[i + 1]?.[0] ?? now) > from);
  const left = Math.min(180, Math.round(width * 0.28));
  const height = STRIP + Math.max(2, rows.length + (others ? 1 : 0)) * ROW + AXIS;
  const ratio = devicePixelRatio;
  if (timelineBoard.width !== Math.round(width * ratio) || timelineBoard.height !== Math.round(height * ratio)) {
    Object.assign(timelineBoard, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    timelineBoard.style.height = `${height}px`;
  }
  const pen = timelineBoard.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const scale = (width - left - 6) / span;
  board0 = { left, rows, from, scale, now };
  drawAxis(pen, { left, width, height, from, span, scale });
  drawStrip(pen, { left, from, scale, rows, now });
  rows.forEach((lane, i) => drawLane(pen, lane, STRIP + i * ROW, { left, from, scale, now }));
  if (others) drawCrowd(pen, STRIP + rows.length * ROW, { left, from, scale, now });
  tellTimeline();
  if (aliveLanes().length && stoppedAt === null) wakeTimeline();
}

function text(pen, words, x, y, { room = 1e4, align = "left", colour = colours.ink, size = 12, weight = 400 } = {}) {
  pen.font = `${weight} ${size}px ${colours.font}`;
  pen.textAlign = align;
  pen.textBaseline = "middle";
  pen.fillStyle = colour;
  let shown = words;
  if (pen.measureText(shown).width > room) {
    let length = Math.max(1, Math.floor((shown.length * room) / pen.measureText(shown).width));
    while (length > 1 && pen.measureText(`${shown.slice(0, length)}…`).width > room) length -= 1;
    shown = `${shown.slice(0, length)}…`;
  }
  pen.fillText(shown, x, y);
}

function drawAxis(pen, { left, width, height, from, span, scale }) {
  const every = [0.5, 1, 2, 5, 10, 30, 60, 120].find((each) => span / each <= Math.max(3, (width - left) / 70)) || 300;
  pen.lineWidth = 1;
  for (let at = Math.ceil(from / every) * every; at < from + span; at += every) {
    const x = Math.round(left + (at - from) * scale) + 0.5;
    pen.strokeStyle = colours.line;
    pen.globalAlpha = 0.6;
    pen.beginPath(); pen.moveTo(x, 6); pen.lineTo(x, height - AXIS); pen.stroke();
    pen.globalAlpha = 1;
  }
  const ago = (seconds0) => (seconds0 < 60 ? t("{s} s", { s: seconds0 }) : t("{count} min", { count: seconds0 / 60 }));
  for (let back = 0; back < span; back += every) {
    const x = left + (span - back) * scale;
    if (x > left + 18) text(pen, back ? `−${ago(back)}` : t("now"), x, height - AXIS / 2, { align: back ? "center" : "right", colour: colours.soft, size: 11 });
  }
}

function drawStrip(pen, { left, from, scale, rows, now }) {
  const most = Math.max(2, ...rows.flatMap((lane) => lane.segments.map((segment) => segment.size)));
  const base = STRIP - 8;
  text(pen, t("Share a step"), 0, base - 9, { room: left - 8, colour: colours.soft, size: 11 });
  for (const lane of rows) {
    for (const segment of lane.segments) {
      if (segment.kind !== "denoise") continue;
      const [start, end] = [Math.max(from, segment.start), endOf(lane, segment, now)];
      if (end <= from) continue;
      const tall = 4 + (segment.size / most) * (base - 12);
      pen.fillStyle = denoiseColour(segment.size);
      pen.fillRect(left + (start - from) * scale, base - tall, Math.max(1, (end - start) * scale + 0.5), tall);
    }
  }
  pen.fillStyle = colours.line;
  pen.fillRect(left, base, 1e4, 1);
}

function drawLane(pen, lane, top, { left, from, scale, now }) {
  const middle = top + ROW / 2;
  const urgent = lane.priority === "high" ? "▲ " : lane.priority === "low" ? "▽ " : "";
  text(pen, urgent + lane.name, 0, middle, { room: left - 10, weight: lane.priority === "high" ? 600 : 400, colour: lane.end === null ? colours.ink : colours.soft });
  lane.segments.forEach((segment, i) => {
    const end = endOf(lane, segment, now);
    if (end <= from) return;
    const x = left + (Math.max(from, segment.start) - from) * scale;
    const wide = Math.max(1.5, (end - Math.max(from, segment.start)) * scale);
    const thin = segment.kind === "waiting" || segment.kind === "interrupted";
    const tall = thin ? 6 : ROW - 8;
    pen.fillStyle = colourOf(segment);
    pen.beginPath();
    pen.roundRect(x, middle - tall / 2, wide, tall, Math.min(4, wide / 2));
    pen.fill();
    if (segment.kind === "interrupted") stripe(pen, x, middle, wide);
    if (segment.kind === "denoise" && wide > 26) text(pen, `×${segment.size}`, x + wide / 2, middle + 0.5, { align: "center", size: 11, weight: 600, colour: colours.dark || Math.log2(segment.size) < 2 ? (colours.dark && segment.size < 3 ? "#fff" : "#121318") : "#fff" });
    if (spot && spot.lane === lane.id && spot.at === i) { pen.strokeStyle = colours.focus; pen.lineWidth = 2.5; pen.strokeRect(x - 1, middle - ROW / 2 + 2, wide + 2, ROW - 4); }
  });
  if (lane.end !== null && lane.end > from) {
    const mark = { completed: ["✓", colours.good], failed: ["✕", colours.bad], cancelled: ["–", colours.soft] }[lane.state] || ["", colours.soft];
    text(pen, mark[0], Math.max(left, left + (lane.end - from) * scale - 4) + 6, middle, { size: 13, weight: 700, colour: mark[1] });
  }
}

function stripe(pen, x, middle, wide) {
  pen.strokeStyle = colours.card;
  pen.lineWidth = 2;
  pen.beginPath();
  for (let at = x + 4; at < x + wide - 2; at += 7) { pen.moveTo(at, middle + 3); pen.lineTo(at + 4, middle - 3); }
  pen.stroke();
}

function drawCrowd(pen, top, { left, from, scale, now }) {
  const middle = top + ROW / 2;
  text(pen, t("Other people"), 0, middle, { room: left - 10, colour: colours.soft });
  crowd.forEach(([at, count], i) => {
    const end = crowd[i + 1]?.[0] ?? now;
    if (!count || end <= from) return;
    const x = left + (Math.max(from, at) - from) * scale;
    pen.fillStyle = colours.line;
    pen.fillRect(x, middle - 7, Math.max(1, (end - Math.max(from, at)) * scale), 14);
    if ((end - Math.max(from, at)) * scale > 20) text(pen, String(count), x + 6, middle, { size: 11 });
  });
}

// -- words

const KINDS = () => ({ waiting: t("waiting"), encode: t("encoding the prompt"), denoise: t("steps"), interrupted: t("interrupted"), decode: t("decoding"), completed: t("done"), failed: t("failed"), cancelled: t("cancelled") });
let toldAt = 0;
function tellTimeline() {
  if (Date.now() - toldAt < 250 && aliveLanes().length) return;
  toldAt = Date.now();
  const said = scene();
  if (timelineScene.textContent !== said) timelineScene.textContent = said;
  timelineBoard.setAttribute("aria-label", t("Timeline of {count} requests. Arrow keys inspect it; the table below has the same as text.", { count: board0.rows.length }));
  timelineClear.hidden = !Array.from(lanes.values()).some((lane) => lane.end !== null);
  if (timelineText.open) drawTable();
}

function drawTable() {
  const names = KINDS();
  const columns = ["waiting", "encode", "denoise", "interrupted", "decode"];
  const row = (lane) => {
    const spent = spentBy(lane);
    const cell = (kind) => (spent[kind] ? t("{s} s", { s: spent[kind].toFixed(1) }) : "–");
    return h("tr", {}, h("th", { scope: "row" }, lane.name), h("td", {}, t(lane.priority)), ...columns.map((kind) => h("td", {}, cell(kind))), h("td", {}, meanSize(lane) ? meanSize(lane).toFixed(1) : "–"), h("td", {}, names[lane.state] || lane.state));
  };
  const heads = [t("Request"), t("Priority"), ...columns.map((kind) => names[kind]), t("shared by (mean)"), t("now")];
  timelineText.lastElementChild.replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, ...Array.from(lanes.values()).slice(-MOST_ROWS).map(row))));
}
timelineText.addEventListener("toggle", drawTable);

function tellSpot() {
  const lane = spot && lanes.get(spot.lane);
  const segment = lane?.segments[spot.at];
  if (!segment) { timelineSpot.textContent = ""; return; }
  const time = t("{s} s", { s: (endOf(lane, segment, board0.now) - segment.start).toFixed(2) });
  const what = segment.kind === "denoise" ? (segment.size > 1 ? t("steps shared by {count} requests", { count: segment.size }) : t("steps alone")) : KINDS()[segment.kind];
  const priority = lane.priority === "normal" ? [] : [t("priority {name}", { name: t(lane.priority) })];
  timelineSpot.textContent = [`${cut(lane.name)}: ${what}`, time, ...priority].join(" · ");
}

// -- inspecting it

function inspect(x, y) {
  const lane = board0.rows[Math.floor((y - STRIP) / ROW)];
  const at = board0.from + (x - board0.left) / board0.scale;
  const i = lane ? lane.segments.findIndex((segment) => at >= segment.start - 3 / board0.scale && at <= endOf(lane, segment, board0.now) + 3 / board0.scale) : -1;
  spot = i < 0 ? null : { lane: lane.id, at: i };
  tellSpot();
  wakeTimeline();
}
timelineBoard.addEventListener("pointermove", (event) => inspect(event.offsetX, event.offsetY));
timelineBoard.addEventListener("pointerdown", (event) => inspect(event.offsetX, event.offsetY));
timelineBoard.addEventListener("pointerleave", () => { if (document.activeElement !== timelineBoard) { spot = null; wakeTimeline(); } });
timelineBoard.addEventListener("keydown", (event) => {
  const { rows } = board0;
  if (event.key === " ") { event.preventDefault(); return pauseTimeline(stoppedAt === null); }
  if (!event.key.startsWith("Arrow") || !rows.length) return;
  event.preventDefault();
  const at = rows.findIndex((lane) => lane.id === spot?.lane);
  const row = at < 0 ? rows.length - 1 : Math.max(0, Math.min(rows.length - 1, at + ({ ArrowUp: -1, ArrowDown: 1 }[event.key] || 0)));
  const lane = rows[row];
  const segment = at < 0 || row !== at ? lane.segments.length - 1 : spot.at + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] || 0);
  spot = { lane: lane.id, at: Math.max(0, Math.min(lane.segments.length - 1, segment)) };
  tellSpot();
  wakeTimeline();
});

function pauseTimeline(now) {
  stoppedAt = now ? clock() : null;
  timelinePause.setAttribute("aria-pressed", now);
  timelinePause.textContent = now ? t("Continue") : t("Pause");
  wakeTimeline();
}

// -- three long requests, then one that is urgent

async function demonstrate() {
  if (!model) return;
  timelineDemo.disabled = true;
  pauseTimeline(false);
  const long = Math.min(model.limits.max_steps, 12 * model.defaults.num_inference_steps);
  const examples = model.example_prompts.map(({ prompt }) => prompt);
  const [first, second, third, last] = [0, 1, 2, 3].map((i) => examples[i] || asked().prompt);
  const common = { ...(model.models.length > 1 ? { model: model.name } : {}), ...(makesVideos() ? {} : { run_in_background: true }) };
  const ask0 = (body) => submit(makesVideos() ? "v1/videos" : "v1/images/generations", JSON.stringify({ ...common, ...body }));
  try {
    await Promise.all([first, second, third].map((prompt) => ask0({ prompt, num_inference_steps: long, priority: "low" })));
    await sleep(1500);
    await ask0({ prompt: last, priority: "high" });
  } catch (error) {
    complain(inWords(error));
  } finally {
    timelineDemo.disabled = false;
  }
}

hear("job", (job) => { noteLane(job); wakeTimeline(); });
hear("jobs", (all) => { for (const job of all) if (!isDone(job)) noteLane(job); wakeTimeline(); });
hear("event", (event) => {
  if (event.type === "server") noteCrowd(event.others);
  if (event.type === "job.deleted") dropLane(event.id);
  wakeTimeline();
});
hear("tab", () => wakeTimeline());
hear("model", () => { timelineDemo.hidden = !takes("text-to-image", "text-to-video"); });
new ResizeObserver(() => wakeTimeline()).observe(timelineBoard);
