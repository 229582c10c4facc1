"use strict";
// A grid of images over one or two settings: one request per cell, all at once, so that the engine
// can compute them together.

const MAX_CELLS = 200;
const SENT_AT_ONCE = 4;   // a browser opens six connections to a server
const SLOW_S = 2;         // images that take longer show previews
let grid = null;          // { id, x, y, cells, base, route, kind, model, began, ended }
const gridJobs = new Map();  // job id -> the newest of it
const gridPanel = h("div", { id: "grid-panel" });

// -- the form

const gridFields = {};   // what the axes vary, and their values
const gridAxis = (letter) => {
  const select = h("select", { id: `grid-${letter}`, "aria-label": letter === "x" ? t("Columns vary") : t("Rows vary") });
  const input = h("input", { id: `grid-${letter}-values`, type: "text", autocomplete: "off", spellcheck: false, "aria-label": letter === "x" ? t("Values of the columns") : t("Values of the rows"), "aria-describedby": "grid-hint" });
  gridFields[letter] = { select, input };
  for (const [element, type] of [[select, "change"], [input, "input"]]) element.addEventListener(type, () => { if (element === select) exampleOf(letter); countCells(); keepAxes(); });
  input.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.isComposing) { event.preventDefault(); makeGrid(); } });
  return h("div", { className: "axis" }, h("span", { className: "label", ariaHidden: "true" }, letter === "x" ? t("Columns") : t("Rows")), select, input);
};
const gridCount = h("p", { id: "grid-count", className: "numbers", role: "status" });
const gridMake = h("button", { id: "grid-make", type: "button", className: "main", disabled: true, onclick: () => makeGrid() }, t("Generate grid"));
const gridSwap = h("button", { id: "grid-swap", type: "button", className: "square", "aria-label": t("Swap columns and rows"), title: t("Swap columns and rows"), onclick: swapAxes }, icon("swap"));
const gridState = h("p", { id: "grid-state", className: "numbers", role: "status" });
const gridBar = h("div", { className: "bar", role: "progressbar", "aria-label": t("Progress of the grid"), "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "0", hidden: true }, h("i", {}));
const gridActs = {
  cancel: h("button", { id: "grid-cancel", type: "button", className: "small", onclick: cancelGrid }, t("Cancel all")),
  retry: h("button", { id: "grid-retry", type: "button", className: "small", onclick: retryGrid }, t("Try the missing ones again")),
  save: h("button", { id: "grid-save", type: "button", className: "small", onclick: saveGrid }, icon("save"), t("Download as one picture")),
  clear: h("button", { id: "grid-clear", type: "button", className: "small", onclick: () => { grid = null; gridJobs.clear(); keepGrid(); drawGrid(); gridFields.x.input.focus(); } }, t("Clear")),
};
const gridTable = h("div", { id: "grid-table", className: "scrolls", role: "region", "aria-label": t("Grid"), tabIndex: 0, hidden: true });
gridPanel.append(
  h("p", { className: "hint", id: "grid-hint" }, t("Vary one or two settings of the form: lists (4, 8, 20), ranges (1-5), steps (1-9 (+2)) or counts (0-1 [5]). All images are sent at once and computed together.")),
  h("div", { className: "axes" }, gridAxis("x"), gridSwap, gridAxis("y")),
  h("div", { className: "line" }, gridMake, gridCount),
  h("div", { className: "under" }, gridState, ...Object.values(gridActs)), gridBar, gridTable);
addTab("Grid", gridPanel);

function exampleOf(letter) {
  const name = gridFields[letter].select.value;
  const input = gridFields[letter].input;
  input.placeholder = axisKinds().find(([each]) => each === name)?.[3] || "";
  input.disabled = !name;
}

function offerAxes() {
  const kinds = axisKinds();
  const before = recall("axes", { x: ["seed", ""], y: ["", ""] });
  for (const letter of ["x", "y"]) {
    const now = gridFields[letter].select.options.length ? gridFields[letter].select.value : before[letter][0];
    if (!gridFields[letter].select.options.length) gridFields[letter].input.value = before[letter][1];
    const none = letter === "y" ? [h("option", { value: "" }, t("nothing"))] : [];
    gridFields[letter].select.replaceChildren(...none, ...kinds.map(([name, label]) => h("option", { value: name }, label)));
    gridFields[letter].select.value = kinds.some(([name]) => name === now) || (letter === "y" && !now) ? now : letter === "x" ? "seed" : "";
    exampleOf(letter);
  }
  countCells();
}
const keepAxes = () => remember("axes", Object.fromEntries(["x", "y"].map((letter) => [letter, [gridFields[letter].select.value, gridFields[letter].input.value]])));

function swapAxes() {
  const [x, y] = ["x", "y"].map((letter) => [gridFields[letter].select.value, gridFields[letter].input.value]);
  if (!y[0]) return;
  for (const [letter, [name, values]] of [["x", y], ["y", x]]) { gridFields[letter].select.value = name; gridFields[letter].input.value = values; exampleOf(letter); }
  countCells();
  keepAxes();
}

// The axes as entered; without an entry, an example's values count.
function readAxes(base) {
  const read = (letter) => {
    const name = gridFields[letter].select.value;
    if (!name) return { name: "", label: "", values: [{ label: "", set: {} }] };
    const input = gridFields[letter].input;
    const label = axisKinds().find(([each]) => each === name)[1];
    return { name, label, values: axisValues(name, input.value.trim() || input.placeholder, base) };
  };
  const [x, y] = [read("x"), read("y")];
  if (x.name === y.name && x.name !== "prompt" && x.name !== "lora") throw new AxisError(t("Columns and rows vary the same setting: choose another one."));
  const count = x.values.length * y.values.length;
  if (count > MAX_CELLS) throw new AxisError(t("{count} images are too many: the maximum is {most}.", { count, most: MAX_CELLS }));
  return { x, y, count };
}

function countCells() {
  if (!model) return;
  let said = "";
  let wrongly = false;
  try {
    const { x, y, count } = readAxes(requestBody());
    const each = expected();
    const time = each === null ? "" : ` · ${t("about {time}, if each took as long as one alone", { time: span(each * count) })}`;
    said = count === 1 ? t("1 image") + time : y.name ? t("{columns} × {rows} = {count} images", { columns: x.values.length, rows: y.values.length, count }) + time : t("{count} images", { count }) + time;
  } catch (error) {
    if (!(error instanceof AxisError)) throw error;
    said = error.message;
    wrongly = true;
  }
  gridCount.textContent = said;
  gridCount.classList.toggle("wrong", wrongly);
  gridMake.disabled = wrongly || running();
}

// -- seconds that one image took alone, by what decides it

const lonely = recall("alone", {});
const company = new Set();  // jobs that were not alone
const kindOfWork = (job, body) => [job.model || model.name, body.width || model.defaults.width, body.height || model.defaults.height, body.num_inference_steps || model.defaults.num_inference_steps, body.n || 1].join(" ");
const expected = () => lonely[kindOfWork({}, requestBody())] ?? null;
function watchCompany() {
  const alive = jobs.filter((job) => !isDone(job));
  if (alive.length > 1 || counts.others) for (const job of alive) company.add(job.id);
}
hear("job", (job) => {
  watchCompany();
  if (job.status !== "completed" || company.has(job.id) || !job.seconds || job.outputs.length > 1) return;
  lonely[kindOfWork(job, job.parameters)] = job.seconds;
  remember("alone", Object.fromEntries(Object.entries(lonely).slice(-40)));
});

// -- making it

const running = () => grid !== null && grid.cells.some((cell) => stateOfCell(cell) === "waiting" || stateOfCell(cell) === "running");
function stateOfCell(cell) {
  if (cell.error) return "failed";
  if (cell.left) return "cancelled";
  const job = gridJobs.get(cell.job);
  if (!cell.job || !job) return "waiting";
  return isDone(job) ? (job.status === "completed" ? "done" : job.status) : job.status === "queued" ? "waiting" : "running";
}

function makeGrid() {
  if (!model || running() || !isValid()) return;
  const base = requestBody();
  delete base.n;
  let axes;
  try { axes = readAxes(base); } catch (error) { if (error instanceof AxisError) return countCells(); throw error; }
  const { x, y } = axes;
  if (base.seed === undefined) base.seed = crypto.getRandomValues(new Uint32Array(1))[0];
  const slow = expected() === null || expected() > SLOW_S;
  if (!slow) delete base.previews;  // each one costs about as much as a step, and would be seen for a moment
  const cells = y.values.flatMap((down) => x.values.map((across) => ({ body: cellBody(base, across, down) })));
  for (const cell of cells) for (const name of Object.keys(cell.body)) if (cell.body[name] === base[name]) delete cell.body[name];
  const axis = ({ name, label, values }) => ({ name, label, values: values.map((each) => each.label) });
  gridJobs.clear();
  grid = { id: randomHex(), x: axis(x), y: axis(y), cells, base, route: routeOf(true), model: model.name, began: Date.now(), ended: null };
  keepGrid();
  drawGrid();
  tell("sent", base);
  say(t("{count} images are sent.", { count: cells.length }));
  sendGrid();
}

const keepGrid = () => {
  if (!grid) return remember("grid", null);
  const base = JSON.stringify(grid.base).length < 100000 ? grid.base : null;  // without large pictures
  remember("grid", { ...grid, base });
};

function sendGrid() {
  const sent = grid;
  const next = () => sent.cells.find((cell) => !cell.job && !cell.error && !cell.left && !cell.sending);
  const send = async () => {
    for (let cell = next(); cell && grid === sent; cell = next()) {
      cell.sending = true;
      await sendCell(sent, cell);
      delete cell.sending;
      changedGrid();
    }
  };
  for (let i = 0; i < SENT_AT_ONCE; i += 1) send();
}

async function sendCell(sent, cell) {
  const key = `${sent.id}-${sent.cells.indexOf(cell)}${cell.again ? `-${cell.again}` : ""}`;  // sent again after a reload, it is the same job
  while (grid === sent && !cell.left) {
    try {
      const job = await submit(sent.route, JSON.stringify({ ...sent.base, ...cell.body }), key);
      cell.job = job.id;
      company.add(job.id);
      if (!gridJobs.has(job.id)) gridJobs.set(job.id, jobs.find((each) => each.id === job.id) || { id: job.id, status: "queued" });
      sent.full = false;
      if (cell.left) cancelCell(cell);
      return;
    } catch (error) {
      const later = !(error instanceof Refused) || error.status === 429 || error.status >= 500;
      if (!later) { cell.error = inWords(error); return; }
      sent.full = error instanceof Refused && error.status === 429;
      changedGrid();
      await sleep(1000 * Math.min(10, error.retryAfter || 1));
    }
  }
}

async function cancelCell(cell) {
  try { await ask(`v1/jobs/${cell.job}`, { method: "DELETE" }); } catch (error) { if (!(error instanceof Refused)) complain(inWords(error)); }
}

async function cancelGrid() {
  const open = grid.cells.filter((cell) => ["waiting", "running"].includes(stateOfCell(cell)));
  const left = grid;
  left.leaving = true;
  for (const cell of open) cell.left = true;
  changedGrid();
  await Promise.all(open.filter((cell) => cell.job).map(cancelCell));
  left.leaving = false;
  changedGrid();
  gridMake.focus();
}

function retryGrid() {
  for (const cell of grid.cells) {
    if (stateOfCell(cell) === "done") continue;
    Object.assign(cell, { job: null, error: null, left: false, again: (cell.again || 0) + 1 });
  }
  Object.assign(grid, { began: Date.now(), ended: null });
  changedGrid();
  sendGrid();
}

// -- what it hears

hear("event", (event) => { if (event.type === "job.preview" && gridJobs.has(event.id)) changedGrid(); });
hear("job", (job) => {
  if (!grid?.cells.some((cell) => cell.job === job.id)) return;
  gridJobs.set(job.id, job);
  changedGrid();
});
hear("model", offerAxes);
hear("tab", (id) => { if (id === "grid-panel" && model) offerAxes(); });
form.addEventListener("input", () => { if (!gridPanel.hidden) countCells(); });

// -- after a reload

let gridBack = false;
hear("jobs", async () => {
  if (gridBack) return catchUp();
  gridBack = true;
  const kept = recall("grid");
  if (!kept || grid) return;
  grid = kept;
  grid.leaving = false;
  if (grid.ended === null) grid.resumed = true;
  for (const cell of grid.cells) {
    delete cell.sending;
    if (!grid.base && !cell.job && !cell.error) cell.left = true;  // it needs pictures that were not kept
  }
  drawGrid();
  await catchUp();
  if (grid === kept) sendGrid();
});

// What happened to cells while this page did not listen.
async function catchUp() {
  const now = grid;
  for (const cell of now ? now.cells : []) {
    if (!cell.job || cell.left || isDone(gridJobs.get(cell.job) || { status: "" })) continue;
    const known = jobs.find((each) => each.id === cell.job);
    try {
      gridJobs.set(cell.job, known || await (await ask(`v1/jobs/${cell.job}`)).json());
    } catch (error) {
      if (error instanceof Refused && error.status === 404) cell.left = true;
    }
    if (grid !== now) return;
  }
  changedGrid();
}
hear("event", (event) => {
  if (event.type !== "job.deleted" || !grid) return;
  const cell = grid.cells.find((each) => each.job === event.id);
  if (cell) { cell.left = true; changedGrid(); }
});

drawGrid();
