"use strict";
// Shows the server's state, and asks for it again every few seconds while the page is seen.

const EVERY_MS = 3000;
const KEY = "multimodal_gen.admin_key";
const PHASES = { loading: "Loading", ready: "Ready", restarting: "Restarting", stopping: "Stopping", failed: "Failed" };
let paused = false, timer = 0, memoryKey = "";

function recalled() { try { return sessionStorage.getItem(KEY) || memoryKey; } catch { return memoryKey; } }
function keep(key) {
  memoryKey = key;
  try { sessionStorage.setItem(KEY, key); } catch { /* a private window: this page remembers it */ }
}

// Replaces what changed only: a reader's selection and place stay.
function fill(element, ...kids) {
  const made = h(element.tagName, {}, ...kids);
  if (made.innerHTML !== element.innerHTML) element.replaceChildren(...made.childNodes);
}

const count = (value) => Number(value).toLocaleString("en");
const gib = (bytes) => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
function span(seconds) {
  if (seconds === null || seconds === undefined) return "none";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

// `columns`: [title, "number" | "text" | ""]; the first cell of a row is its header.
function table(id, columns, rows, none) {
  const head = h("thead", {}, h("tr", {}, ...columns.map(([title, kind]) => h("th", { scope: "col", className: kind || "" }, title))));
  const cells = (row) => row.map((cell, at) => h(at ? "td" : "th", { ...(at ? {} : { scope: "row" }), className: columns[at][1] || "" }, cell));
  const body = h("tbody", {}, ...rows.map((row) => h("tr", {}, ...cells(row))));
  fill($(id), ...(rows.length ? [head, body] : [h("tbody", {}, h("tr", {}, h("td", { className: "soft" }, none)))]));
}

function showQueue(queue) {
  const numbers = [["Running", count(queue.running)], ["Waiting", count(queue.waiting)],
    ["Oldest waits", span(queue.oldest_s)], ["Places", count(queue.capacity)]];
  if (queue.not_taken) numbers.push(["Not taken by a server", count(queue.not_taken)]);
  fill($("queue"), ...numbers.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  const rows = ["high", "normal", "low"].filter((name) => queue.by_priority[name])
    .map((name) => [name, count(queue.by_priority[name].running), count(queue.by_priority[name].waiting)]);
  table("priorities", [["Priority"], ["Running", "number"], ["Waiting", "number"]], rows, "No requests now.");
}

function loaded(engine) {
  if (!engine.loading) return engine.reason || "";
  const { component, loaded_gb, total_gb } = engine.loading;
  return `${component}: ${loaded_gb.toFixed(1)} of ${total_gb.toFixed(1)} GB`;
}

function showEngines(state) {
  table("models", [["Model"], ["Status"], ["Running", "number"], ["Waiting", "number"], ["Backlog", "number"], ["Residency", "text"]],
    state.models.map((model) => [model.name, model.status, count(model.running), count(model.waiting), span(model.backlog_s), model.residency]),
    "No models yet.");
  table("engines", [["Engine"], ["Model"], ["Status"], ["Ranks", "number"], ["Requests", "number"], ["Restarts", "number"], ["Note", "text"]],
    state.engines.map((engine) => [engine.name, engine.model, engine.status, count(engine.ranks), count(engine.in_flight), count(engine.restarts), loaded(engine)]),
    "No engines yet.");
  const ranks = state.engines.flatMap((engine) => engine.memory.map((rank) => [
    `${engine.name}, rank ${rank.rank}`, gib(rank.host_bytes),
    rank.device_total_bytes ? `${gib(rank.device_bytes)} of ${gib(rank.device_total_bytes)}` : "none",
    rank.device_total_bytes ? h("meter", { max: rank.device_total_bytes, value: rank.device_bytes, "aria-label": `Device memory of rank ${rank.rank}` }) : ""]));
  table("memory", [["Rank"], ["Host", "number"], ["Device", "number"], ["Taken"]], ranks, "Ranks tell their memory once they are loaded.");
}

function showKeys(keys) {
  table("keys", [["Key"], ["Active", "number"], ["Completed", "number"], ["Failed", "number"], ["Cancelled", "number"], ["Refused", "number"],
    ["Images and frames", "number"], ["Megapixel-steps", "number"], ["Prompt tokens", "number"]],
  keys.map((key) => [key.name, count(key.active), ...["completed", "failed", "cancelled", "refused"].map((status) => count(key.requests[status] || 0)),
    count(key.images), count(Math.round(key.megapixel_steps * 100) / 100), count(key.prompt_tokens)]),
  "No keys are set, and nothing was asked for yet.");
}

function showFailures(failures) {
  const made = failures.map((failure) => h("li", {},
    h("strong", {}, failure.code), ` ${failure.reason} `,
    h("span", { className: "soft" }, `${new Date(failure.at * 1000).toLocaleString()} · ${failure.model} · key ${failure.key} · request ${failure.request}`)));
  fill($("failures"), ...(made.length ? made : [h("li", { className: "soft" }, "None since this server started.")]));
  $("failures").classList.toggle("none", !made.length);
}

function showLog(lines) {
  const log = $("log"), text = lines.join("\n") || "Nothing was logged yet.";
  if (log.textContent === text) return;
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.textContent = text;
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function show(state) {
  say(`${PHASES[state.phase] || state.phase} · ${state.version} · up ${span(state.uptime_s)}`, state.phase);
  complain(state.phase === "failed" ? state.reason : "");
  $("key-form").hidden = true;
  $("shown").hidden = false;
  showQueue(state.queue);
  showEngines(state);
  showKeys(state.keys);
  showFailures(state.failures);
  showLog(state.log);
}

function say(text, kind) {
  $("state").className = `state ${kind}`;
  if ($("state").textContent !== text) $("state").textContent = text;
}

function complain(text) {
  $("problem").hidden = !text;
  if ($("problem").textContent !== (text || "")) $("problem").textContent = text || "";
}

function askForKey(reason) {
  const tried = Boolean(recalled());
  $("shown").hidden = true;
  say("Key needed", "");
  complain(tried ? reason : "");
  if ($("key-form").hidden) { $("key-form").hidden = false; $("key").focus(); }
}

async function refresh() {
  clearTimeout(timer);
  const key = recalled();
  try {
    const headers = key ? { authorization: `Bearer ${key}` } : {};
    const reply = await fetch(new URL("operator/status", document.baseURI), { headers, cache: "no-store", credentials: "omit" });
    if (reply.ok) show(await reply.json());
    else {
      const error = await reply.json().then((body) => body.error, () => ({}));
      if (reply.status === 401 || reply.status === 403) { askForKey(`That is not the administrator key of this server. ${error.message || ""}`); return; }
      complain(error.message || `The server answered ${reply.status}.`);
    }
  } catch { say("The server can't be reached", "gone"); }
  timer = setTimeout(refresh, EVERY_MS);
  if (paused || document.hidden) clearTimeout(timer);
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep($("key").value.trim());
  $("key").value = "";
  refresh();
});
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  if (!paused) refresh(); else clearTimeout(timer);
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) refresh(); });
refresh();
