"use strict";
// Stars, deletion, and what is done with several results at once.

const selection = { on: false, keys: new Map(), anchor: 0 };  // keys: item by key
const AT_ONCE = 4;  // requests

async function inTurns(items, act) {
  const left = [...items];
  const work = async () => { while (left.length) await act(left.shift()); };
  try { await Promise.all(Array.from({ length: AT_ONCE }, work)); } catch (error) { complain(inWords(error)); }
}

// -- stars

const starOf = (job, i) => h("button", { className: "star", type: "button", "aria-label": t("Star: {prompt}", { prompt: job.parameters.prompt }), title: t("Star: stays longest when space is needed"), "aria-pressed": Boolean(job.outputs[i].starred),
  onclick: (event) => { const now = jobOf(job.id) || job; setStars([{ job: now, i }], event.currentTarget.getAttribute("aria-pressed") !== "true"); } }, icon("star"));

const setStars = (items, starred) => inTurns(items, async ({ job, i }) => {
  put(await (await ask(`v1/jobs/${job.id}/outputs/${i}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ starred }) })).json());
});

viewerActs.push((job, i) => h("button", { className: "small star", type: "button", "aria-pressed": Boolean(job.outputs[i].starred),
  onclick: (event) => {
    const button = event.currentTarget;
    const starred = button.getAttribute("aria-pressed") !== "true";
    setStars([{ job, i }], starred).then(() => button.setAttribute("aria-pressed", Boolean(jobOf(job.id)?.outputs[i].starred)));
  } }, icon("star"), t("Star")));

// -- deletion

async function removeItem({ job, i }) {
  if (job.status !== "completed") return remove(job);
  try {
    await ask(`v1/jobs/${job.id}/outputs/${i}`, { method: "DELETE" });
  } catch (error) {
    if (!(error instanceof Refused && error.status === 404)) throw error;
  }
  const now = jobOf(job.id);
  if (!now) return true;
  const outputs = now.outputs.map((output, at) => (at === i ? { ...output, url: null, thumbnail_url: null, deleted: true, starred: false } : output));
  if (outputs.every((output) => output.deleted)) drop(job.id); else put({ ...now, outputs });
  return true;
}

async function removeItems(items) {
  const at = Math.min(...items.map(({ job, i }) => itemAt(keyOf(job, i))));
  if ($("viewer").open) $("viewer").close();
  await inTurns(items, removeItem);
  for (const { job, i } of items) selection.keys.delete(keyOf(job, i));
  showSelection();
  toast(items.length > 1 ? t("{count} results deleted.", { count: items.length }) : t("Deleted."));
  focusItem(Math.max(at, 0));
}

function removeAsked(job, i) {
  if (confirm(job.kind === "video" ? t("Permanently delete this video?") : t("Permanently delete this image?"))) removeItems([{ job, i }]);
}

// -- selection

const tickOf = (job, i) => h("input", { className: "tick", type: "checkbox", "aria-label": t("Select: {prompt}", { prompt: job.parameters.prompt }), onclick: (event) => {
  const at = itemAt(keyOf(job, i));
  if (event.shiftKey && selection.keys.size) pickTo(at); else pick(at, event.currentTarget.checked);
} });

function tilePressed(event, id, i) {
  const job = jobOf(id);
  const at = itemAt(`${id}:${i}`);
  if (event.shiftKey && selection.on) pickTo(at);
  else if (selection.on || event.ctrlKey || event.metaKey) pick(at, !selection.keys.has(keyOf(job, i)));
  else look(id, i);
}

function pick(at, on) {
  const item = shelf.items[at];
  if (!item || !item.job.outputs[item.i].url) return;
  if (on) selection.keys.set(keyOf(item.job, item.i), item); else selection.keys.delete(keyOf(item.job, item.i));
  selection.anchor = at;
  selection.on = true;
  showSelection();
}

// All from the last one that was picked, or from `from`.
function pickTo(at, from = selection.anchor) {
  const anchor = selection.keys.size ? selection.anchor : from;
  for (let each = Math.min(anchor, at); each <= Math.max(anchor, at); each += 1) pick(each, true);
  selection.anchor = anchor;
}

function pickKeys(event, at) {
  if (event.key === "Delete") {
    event.preventDefault();
    if (selection.keys.size) $("selection-delete").click(); else removeAsked(shelf.items[at].job, shelf.items[at].i);
  } else if (event.key === "Escape" && selection.on) { event.preventDefault(); stopSelecting(); focusItem(at); }
  else if (event.key === "a" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); pickAll(); }
}
function pickAll() { shelf.items.forEach((_, at) => pick(at, true)); }

// What is no longer shown is no longer selected.
function forgetUnseen() {
  for (const key of selection.keys.keys()) if (itemAt(key) < 0) selection.keys.delete(key);
  showSelection();
}

function stopSelecting() {
  selection.on = false;
  selection.keys.clear();
  showSelection();
}

function showSelection() {
  const count = selection.keys.size;
  $("selection").hidden = !selection.on;
  $("select").setAttribute("aria-pressed", selection.on);
  $("gallery").classList.toggle("selecting", selection.on);
  $("selection-count").textContent = count ? t("{count} selected", { count }) : t("Choose results");
  for (const name of ["star", "download", "delete"]) $(`selection-${name}`).disabled = !count;
  $("selection-compare").disabled = count !== 2;
  decorateAll();
}

const selected = () => Array.from(selection.keys.values()).map(({ job, i }) => ({ job: jobOf(job.id) || job, i })).sort((a, b) => itemAt(keyOf(a.job, a.i)) - itemAt(keyOf(b.job, b.i)));

async function downloadAll(items) {
  if (items.length === 1) return saveAs(fileUrl(items[0].job.outputs[items[0].i].url), fileName(items[0].job, items[0].i));
  const button = $("selection-download");
  button.disabled = true;
  toast(t("Packing {count} results…", { count: items.length }));
  try {
    const outputs = items.map(({ job, i }) => ({ job: job.id, index: i }));
    const reply = await ask("v1/jobs/zip", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ outputs }) });
    const url = URL.createObjectURL(await reply.blob());
    saveAs(url, `multimodal_gen-${new Date().toISOString().slice(0, 10)}.zip`);
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  } catch (error) { complain(inWords(error)); }
  button.disabled = false;
}
function saveAs(href, download) { h("a", { href, download }).click(); }

$("select").addEventListener("click", () => { if (selection.on) return stopSelecting(); selection.on = true; showSelection(); });
$("selection-done").addEventListener("click", () => { stopSelecting(); $("select").focus(); });
$("selection-all").addEventListener("click", pickAll);
$("selection-download").addEventListener("click", () => downloadAll(selected()));
$("selection-star").addEventListener("click", () => { const items = selected(); setStars(items, !items.every(({ job, i }) => job.outputs[i].starred)); });
$("selection-compare").addEventListener("click", () => compare(...selected()));
$("selection-delete").addEventListener("click", () => {
  const items = selected();
  if (items.length === 1) return removeAsked(items[0].job, items[0].i);
  if (confirm(t("Permanently delete these {count} results?", { count: items.length }))) removeItems(items);
});
hear("jobs", () => {
  for (const key of selection.keys.keys()) if (deleted.has(key.split(":")[0])) selection.keys.delete(key);
  showSelection();
});
