"use strict";
// The sheet of a grid: its cells as they are made, what they took, and all as one picture.

let gridDrawn = false;
function changedGrid() {
  if (gridDrawn) return;
  gridDrawn = true;
  requestAnimationFrame(() => { gridDrawn = false; if (grid) { keepGrid(); showCells(); } });
}

function drawGrid() {
  gridTable.hidden = !grid;
  if (grid) {
    const { x, y } = grid;
    const corner = h("td", {}, h("small", {}, x.label, y.name ? h("br") : "", y.label));
    const head = h("tr", {}, corner, ...x.values.map((value) => h("th", { scope: "col" }, value)));
    const rows = y.values.map((value, i) => h("tr", {}, value ? h("th", { scope: "row" }, value) : h("td", {}), ...x.values.map((_, j) => h("td", { className: "cell" }, h("div", { className: "inside" })))));
    gridTable.replaceChildren(h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows)));
  }
  showCells();
}

function nameOfCell(i) {
  const { x, y } = grid;
  const [across, down] = [x.values[i % x.values.length], y.values[Math.floor(i / x.values.length)]];
  return `${x.label} ${across}${y.name ? `, ${y.label} ${down}` : ""}`;
}

function showCells() {
  if (grid) grid.cells.forEach((cell, i) => showCell(gridTable.querySelectorAll("td.cell")[i].firstElementChild, cell, i));
  tellGrid();
  countCells();
}

function showCell(place, cell, i) {
  const state = stateOfCell(cell);
  const job = gridJobs.get(cell.job);
  const source = state === "done" ? job.outputs[0].thumbnail_url || job.outputs[0].url : previews.get(cell.job)?.[0] || null;
  const sign = `${state} ${source && source.slice(-80)}`;
  const part = job?.progress?.total ? job.progress.step / job.progress.total : 0;
  place.style.setProperty("--part", `${state === "running" ? 100 * part : 0}%`);
  if (place.dataset.sign === sign) return;
  place.dataset.sign = sign;
  place.dataset.state = state;
  const name = nameOfCell(i);
  const words = { waiting: t("Waiting"), running: "…", cancelled: t("Cancelled."), failed: cell.error || job?.error?.message || t("Failed"), done: t("No longer kept.") };
  const picture = source ? h("img", { src: state === "done" ? fileUrl(source) : source, alt: state === "done" ? "" : t("Preview of: {prompt}", { prompt: name }) }) : h("span", {}, words[state]);
  const focused = place.contains(document.activeElement);
  place.replaceChildren(state === "done" && source ? h("button", { type: "button", "aria-label": t("View: {prompt}", { prompt: name }), title: name, onclick: () => lookAtCell(job) }, picture) : picture);
  if (focused) place.firstElementChild.focus();
}

function lookAtCell(job) {
  if (!jobs.some((each) => each.id === job.id)) {
    const at = jobs.findIndex((each) => each.created_at <= job.created_at);
    jobs.splice(at < 0 ? jobs.length : at, 0, job);
  }
  look(job.id, 0);
}

function tellGrid() {
  const states = grid ? grid.cells.map(stateOfCell) : [];
  const done = states.filter((state) => state === "done").length;
  const open = states.filter((state) => state === "waiting" || state === "running").length;
  const failed = states.length - done - open;
  if (grid && !open && grid.ended === null) { grid.ended = Date.now(); keepGrid(); }
  gridActs.cancel.hidden = !open;
  gridActs.retry.hidden = open || !failed || !grid?.base || grid.leaving;
  gridActs.save.hidden = !done || open > 0;
  gridActs.clear.hidden = !grid || open > 0;
  gridBar.hidden = !open;
  if (!grid) { gridState.textContent = ""; return; }
  const parts = grid.cells.map((cell, i) => (states[i] === "done" ? 1 : ["waiting", "running"].includes(states[i]) ? (gridJobs.get(cell.job)?.progress?.step || 0) / (gridJobs.get(cell.job)?.progress?.total || 1) : 1));
  const percent = Math.round((100 * parts.reduce((sum, each) => sum + each, 0)) / parts.length);
  gridBar.firstElementChild.style.width = `${percent}%`;
  gridBar.setAttribute("aria-valuenow", percent);
  gridState.textContent = open ? stillOpen(states, done) : measured(done, failed);
}

function stillOpen(states, done) {
  const unsent = grid.cells.filter((cell, i) => !cell.job && states[i] === "waiting").length;
  const whole = t("{done} of {count} images", { done, count: states.length });
  return unsent && grid.full ? `${whole} · ${t("the queue is full: {count} are sent as soon as there is room", { count: unsent })}` : whole;
}

const seconds = (value) => t("{s} s", { s: value < 1 ? value.toFixed(2) : value < 60 ? value.toFixed(1) : Math.round(value) });

// What it took, from what was measured.
function measured(done, failed) {
  const took = (grid.ended - grid.began) / 1000;
  const missing = failed ? ` · ${t("{count} are missing", { count: failed })}` : "";
  if (!done || grid.resumed) return t("{done} of {count} images", { done, count: grid.cells.length }) + missing;
  const all = t("{count} images in {time}, {each} each", { count: done, time: seconds(took), each: seconds(took / done) });
  const kinds = new Set(grid.cells.map((cell) => kindOfWork(grid, { ...grid.base, ...cell.body })));
  const alone = kinds.size === 1 && grid.base ? lonely[[...kinds][0]] : undefined;
  return all + (alone ? `; ${t("one alone takes {time}", { time: seconds(alone) })}` : "") + missing;
}

// -- as one picture

async function saveGrid() {
  const { x, y } = grid;
  const pictures = await Promise.all(grid.cells.map(async (cell) => {
    const url = stateOfCell(cell) === "done" ? gridJobs.get(cell.job).outputs[0].url : null;
    if (!url) return null;
    const img = new Image();
    img.src = fileUrl(url);
    try { await img.decode(); return img; } catch { return null; }
  }));
  const sizes = pictures.filter(Boolean).map((img) => [img.naturalWidth, img.naturalHeight]);
  if (!sizes.length) return toast(t("The images of this grid are no longer kept."));
  const shrunk = Math.min(1, 16000 / (x.values.length * Math.max(...sizes.map(([w]) => w))), 16000 / (y.values.length * Math.max(...sizes.map(([, v]) => v))));
  const [wide, tall] = [0, 1].map((i) => Math.max(96, Math.ceil(shrunk * Math.max(...sizes.map((size) => size[i])))));
  const text = Math.max(13, Math.min(40, Math.round(wide / 12)));
  const [left, top, gap] = [y.name ? 9 * text : 0, 4.2 * text, Math.max(4, Math.round(wide / 48))];
  const canvas = h("canvas", { width: left + x.values.length * (wide + gap) + gap, height: top + y.values.length * (tall + gap) + gap });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = "#1b1c22";
  const write = (words, atX, atY, room, align) => {
    pen.textAlign = align;
    let shown = words;
    while (pen.measureText(shown).width > room && shown.length > 1) shown = `${shown.slice(0, -2)}…`;
    pen.fillText(shown, atX, atY);
  };
  pen.font = `600 ${text}px system-ui, sans-serif`;
  write([grid.base?.prompt, x.label + (y.name ? ` × ${y.label}` : "")].filter(Boolean).join(" · "), gap, 1.4 * text, canvas.width - 2 * gap, "left");
  pen.font = `${text}px system-ui, sans-serif`;
  x.values.forEach((value, i) => write(value, left + gap + i * (wide + gap) + wide / 2, top - text / 2, wide, "center"));
  if (y.name) y.values.forEach((value, i) => write(value, left - text / 2, top + gap + i * (tall + gap) + tall / 2, left - text, "right"));
  pictures.forEach((img, i) => {
    if (!img) return;
    const [w, v] = [img.naturalWidth * shrunk, img.naturalHeight * shrunk];
    pen.drawImage(img, left + gap + (i % x.values.length) * (wide + gap) + (wide - w) / 2, top + gap + Math.floor(i / x.values.length) * (tall + gap) + (tall - v) / 2, w, v);
  });
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  const link = h("a", { href: URL.createObjectURL(blob), download: `grid-${x.name}${y.name ? `-${y.name}` : ""}.png` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  toast(t("The grid is saved as one picture."));
}
