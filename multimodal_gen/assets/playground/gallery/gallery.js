"use strict";
// The gallery: results by day. Only tiles near the window are in the page, and a frame makes only
// as many as it has time for, so that thousands of results scroll smoothly.

const GAP = 12;        // pixels between tiles, as in gallery.css
const SMALLEST = 148;  // pixels, of a tile's side
const FEW = 60;        // results that are in the page in any case
const FRAME_MS = 6;    // for making tiles in one frame
const shelf = { items: [], days: [], columns: 1, pitch: 0, current: "", unmade: [], bare: [], next: new Set() };
const keyOf = (job, i) => `${job.id}:${i}`;
const shownJobs = () => (isSearching() ? sought.jobs : jobs);
const jobOf = (id) => jobs.find((job) => job.id === id) || sought.jobs.find((job) => job.id === id);

// Items are results, and failed jobs in their place.
function itemsOf(job) {
  if (!isDone(job) || job.status === "cancelled") return [];
  if (job.status !== "completed") return sought.starred ? [] : [{ job, i: 0 }];
  return job.outputs.flatMap((output, i) => (output.deleted || (sought.starred && !output.starred) ? [] : [{ job, i }]));
}

function dayOf(date) { return Math.floor((date.getTime() - 60000 * date.getTimezoneOffset()) / 86400000); }

function nameOfDay(day) {
  const now = new Date();
  const ago = dayOf(now) - day;
  if (ago <= 0) return t("Today");
  if (ago === 1) return t("Yesterday");
  const date = new Date(86400000 * day);
  const year = date.getUTCFullYear() === now.getFullYear() ? {} : { year: "numeric" };
  return date.toLocaleDateString(language, { weekday: "long", day: "numeric", month: "long", timeZone: "UTC", ...year });
}

function showGallery() {
  const days = new Map();
  shelf.items = shownJobs().flatMap(itemsOf);
  shelf.items.forEach((item, at) => {
    item.at = at;
    const day = dayOf(new Date(1000 * item.job.created_at));
    if (!days.has(day)) days.set(day, []);
    days.get(day).push(item);
  });
  const known = new Map(shelf.days.map((each) => [each.day, each]));
  for (const { day, title } of shelf.days) if (title.textContent !== nameOfDay(day)) title.textContent = nameOfDay(day);  // after midnight
  shelf.days = Array.from(days, ([day, items]) => Object.assign(known.get(day) || newDay(day), { items, from: -1 }));
  arrange($("gallery"), shelf.days.map(({ section }) => section));
  $("finder").hidden = !shelf.items.length && !isSearching();
  tellHint();
  layGallery();
}

function newDay(day) {
  const title = h("h3", {}, nameOfDay(day));
  const list = h("ul", { className: "gallery" });
  return { day, title, list, section: h("section", { "aria-label": title.textContent }, title, list) };
}

function arrange(parent, wanted) {
  wanted.forEach((element, i) => { if (parent.children[i] !== element) parent.insertBefore(element, parent.children[i] || null); });
  while (parent.children.length > wanted.length) parent.lastElementChild.remove();
}

// Rows have one height, so that those which are not in the page leave room for themselves.
function layGallery() {
  const width = $("gallery").clientWidth;
  if (!width) return;
  const under = parseFloat(getComputedStyle($("gallery")).getPropertyValue("--under")) * parseFloat(getComputedStyle(document.documentElement).fontSize);
  shelf.columns = Math.max(2, Math.floor((width + GAP) / (SMALLEST + GAP)));
  const row = (width - GAP * (shelf.columns - 1)) / shelf.columns + under;
  shelf.pitch = row + GAP;
  for (const day of shelf.days) {
    day.rows = Math.ceil(day.items.length / shelf.columns);
    day.list.style.height = `${day.rows * shelf.pitch - GAP}px`;
    day.list.style.gridAutoRows = `${row}px`;
    day.list.style.gridTemplateColumns = `repeat(${shelf.columns}, minmax(0, 1fr))`;
    day.from = -1;
  }
  fillGallery();
}

function fillGallery() {
  if (!shelf.pitch || !$("gallery").clientWidth) return;
  const tops = shelf.days.map(({ list }) => list.getBoundingClientRect().top);
  const rowAt = (day, y, top) => Math.min(Math.max(Math.floor((y - top) / shelf.pitch), 0), day.rows);
  const few = shelf.items.length <= FEW;
  let changed = false;
  shelf.days.forEach((day, n) => {
    const first = few ? 0 : rowAt(day, -innerHeight, tops[n]);
    const [from, to] = [first * shelf.columns, few ? FEW : (rowAt(day, 2 * innerHeight, tops[n]) + 1) * shelf.columns];
    if (day.from === from && day.to === to) return;
    Object.assign(day, { from, to });
    day.list.style.paddingTop = `${first * shelf.pitch}px`;
    arrange(day.list, day.items.slice(from, to).map(tileOf));
    changed = true;
  });
  if (changed) { forgetTiles(); makeTiles(); }
  if (!$("older").hidden && $("older").getBoundingClientRect().top < 2 * innerHeight) loadMore();
}

function forgetTiles() {
  for (const [key, { element }] of tiles) if (!element.isConnected) tiles.delete(key);
  if (tiles.has(shelf.current)) return;
  shelf.current = tiles.keys().next().value || "";
  finishTile(shelf.current);
  if (shelf.current) reach(tiles.get(shelf.current).element, true);
}

let asking = null;
function loadMore() {
  asking ||= showMoreResults().catch((error) => { $("older").hidden = false; if (!isNetwork(error)) complain(inWords(error)); }).finally(() => { asking = null; });
}
const showMoreResults = () => (isSearching() ? seek(sought.jobs.at(-1)?.id) : list(jobs.at(-1)?.id));
$("older").addEventListener("click", loadMore);

let filling = 0;
const fillSoon = () => { filling ||= requestAnimationFrame(() => { filling = 0; fillGallery(); }); };
addEventListener("scroll", fillSoon, { passive: true });
let laidWidth = 0;
new ResizeObserver(([{ contentRect }]) => { if (contentRect.width !== laidWidth) { laidWidth = contentRect.width; layGallery(); } }).observe($("gallery"));

// -- tiles

function tileOf({ job, i }) {
  const key = keyOf(job, i);
  const sign = `${job.status} ${job.outputs[i].url}`;
  const known = tiles.get(key);
  const element = known ? known.element : h("li", { className: "tile" });
  if (known?.sign !== sign) {
    tiles.set(key, { sign, element, job, i, made: false, finished: false });
    shelf.unmade.push(key);
  } else if (known.job !== job) { known.job = job; decorate(key); }
  return element;
}

let making = 0;
function makeTiles() {
  const until = performance.now() + FRAME_MS;
  while (shelf.unmade.length && performance.now() < until) makeTile(shelf.unmade.shift());
  if (shelf.unmade.length) making ||= requestAnimationFrame(() => { making = 0; makeTiles(); });
}

function makeTile(key) {
  const known = tiles.get(key);
  if (!known || known.made) return;
  known.made = true;
  known.element.replaceChildren(...mainParts(known.job, known.i));
  shelf.bare.push(key);
  if (shelf.items.length <= FEW) finishTiles(); else if (shelf.bare.length === 1) requestIdleCallback(finishTiles, { timeout: 500 });
}

// Buttons of a tile come once there is time, or once they are needed.
function finishTiles(deadline) {
  for (let some = 6; shelf.bare.length && (!deadline || deadline.timeRemaining() > 2 || some > 0); some -= 1) finishTile(shelf.bare.shift());
  if (shelf.bare.length) requestIdleCallback(finishTiles, { timeout: 500 });
}

function finishTile(key) {
  const known = tiles.get(key);
  if (!known || !known.made || known.finished) return;
  known.finished = true;
  const { element, job, i } = known;
  if (job.outputs[i].url) element.firstElementChild.after(starOf(job, i), tickOf(job, i));
  element.append(actsOf(job, i));
  decorate(key);
  reach(element, key === (shelf.current ||= key));
}
$("gallery").addEventListener("pointerover", (event) => { const key = keyAt(event.target); if (key) finishTile(key); });

function mainParts(job, i) {
  const output = job.outputs[i];
  const { prompt } = job.parameters;
  const source = output.thumbnail_url || (job.kind === "video" ? null : output.url);
  const inside = output.url
    ? h("button", { className: "look", type: "button", tabIndex: -1, "aria-label": t("View: {prompt}", { prompt }), onclick: (event) => tilePressed(event, job.id, i) },
      source ? h("img", { src: fileUrl(source), alt: "", loading: "lazy", decoding: "async" }) : null,
      job.kind === "video" ? h("span", { className: "play" }, icon("play")) : null)
    : h("span", { className: job.error ? "why" : "why over" }, job.error ? wordsOf(job) : t("No longer kept."));
  return [inside, h("p", { className: "cut", title: prompt }, prompt)];
}

function actsOf(job, i) {
  const output = job.outputs[i];
  const { prompt } = job.parameters;
  const act = (name, label, onclick) => h("button", { type: "button", "aria-label": `${label}: ${prompt}`, title: label, onclick }, icon(name));
  return h("div", { className: "tile-acts" },
    act("tune", t("Reuse settings"), () => reuse(job, i)),
    output.url ? h("a", { className: "button", href: fileUrl(output.url), download: fileName(job, i), "aria-label": t("Download: {prompt}", { prompt }), title: t("Download") }, icon("save")) : null,
    ...tileActs.map((make) => make(job, i)),
    act("trash", t("Delete"), () => removeAsked(job, i)));
}

// What changes of a tile that stays.
function decorate(key) {
  const { element, job, i } = tiles.get(key);
  const star = element.querySelector(".star");
  if (star) star.setAttribute("aria-pressed", Boolean(job.outputs[i].starred));
  const tick = element.querySelector(".tick");
  if (tick) tick.checked = selection.keys.has(key);
  element.classList.toggle("picked", selection.keys.has(key));
  const goes = shelf.next.has(key);
  if (goes !== Boolean(element.querySelector(".goes")) && star) {
    if (goes) star.after(h("span", { className: "goes", role: "img", "aria-label": t("Goes next"), title: t("Goes next") }, icon("clock")));
    else element.querySelector(".goes").remove();
  }
}
function decorateAll() { for (const key of tiles.keys()) decorate(key); }

function fileName(job, i) { return job.outputs[i].file_name || ""; }

// -- keys: Tab reaches one tile, arrows the others

function reach(element, on) { for (const each of element.querySelectorAll("button, a, input")) each.tabIndex = on ? 0 : -1; }

$("gallery").addEventListener("focusin", (event) => {
  const key = keyAt(event.target);
  if (!key || key === shelf.current) return;
  finishTile(key);
  const before = tiles.get(shelf.current);
  if (before) reach(before.element, false);
  shelf.current = key;
  reach(tiles.get(key).element, true);
});

function keyAt(target) {
  const element = target.closest(".tile");
  return element && Array.from(tiles.keys()).find((key) => tiles.get(key).element === element);
}
const itemAt = (key) => shelf.items.findIndex(({ job, i }) => keyOf(job, i) === key);

function focusItem(at) {
  const item = shelf.items[Math.min(at, shelf.items.length - 1)];
  if (!item) return $("gallery-title").focus();
  const day = shelf.days.find(({ items }) => items.includes(item));
  const row = Math.floor(day.items.indexOf(item) / shelf.columns);
  const top = day.list.getBoundingClientRect().top + row * shelf.pitch;
  if (top < 120 || top + shelf.pitch > innerHeight) { scrollBy(0, top - innerHeight / 2 + shelf.pitch / 2); fillGallery(); }
  const key = keyOf(item.job, item.i);
  makeTile(key);
  finishTile(key);
  tiles.get(key)?.element.querySelector("button").focus({ preventScroll: true });
}

$("gallery").addEventListener("keydown", (event) => {
  const at = itemAt(keyAt(event.target));
  if (at < 0 || event.altKey) return;
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - shelf.columns, ArrowDown: at + shelf.columns, Home: 0, End: shelf.items.length - 1 }[event.key];
  if (to === undefined) return pickKeys(event, at);
  event.preventDefault();
  if (to < 0 || to >= shelf.items.length) return;
  focusItem(to);
  if (event.shiftKey) pickTo(to, at);
});

hear("job", (job) => {
  const at = sought.jobs.findIndex((each) => each.id === job.id);
  if (at >= 0) sought.jobs[at] = job;
});
hear("tab", () => layGallery());
