"use strict";
// Requests to the server, and the stream of its events, reopened whenever it ends.

class Refused extends Error {
  constructor(status, error, retryAfter) {
    super(error.message || `the server answered ${status}`);
    Object.assign(this, { status, param: error.param || null, code: error.code, retryAfter });
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (apiKey()) headers.authorization = `Bearer ${apiKey()}`;
  const reply = await fetch(here(path), { cache: "no-store", credentials: "omit", ...options, headers });
  if (reply.ok) return reply;
  let error = {};
  try { error = (await reply.json()).error || {}; } catch { /* no JSON: the status has to do */ }
  throw new Refused(reply.status, error, Number(reply.headers.get("retry-after")) || null);
}

const isNetwork = (error) => error instanceof TypeError && /fetch|network|load/i.test(error.message) || error.name === "AbortError";

function inWords(error) {
  if (!(error instanceof Refused)) {
    return t("The server can't be reached. This page keeps trying; accepted requests are not lost.");
  }
  const again = error.retryAfter ? ` ${t("Try again in {time}.", { time: span(error.retryAfter) })}` : "";
  const first = /^[\w.]+=/.test(error.message) ? error.message.charAt(0) : error.message.charAt(0).toUpperCase();  // a field keeps its name
  const said = first + error.message.slice(1).replace(/\.?$/, ".");
  if (error.status === 429) return `${t("The queue is full.")} ${said}${again}`;
  if (error.status === 503) return t("Not available: {reason}", { reason: error.message.replace(/\.?$/, ".") }) + again;
  if (error.status === 413) return `${t("The request is too large.")} ${said}`;
  if (error.status === 401) return t("The API key is missing or not valid for this server.");
  return said;
}

let wake = () => {};
function nap(ms) {
  return new Promise((done) => { wake = done; setTimeout(done, ms); });
}
addEventListener("online", () => wake());
document.addEventListener("visibilitychange", () => { if (!document.hidden) wake(); });

async function stayConnected() {
  let failures = 0;
  for (;;) {
    try {
      const access = await (await ask("playground/access")).json();
      if (access.needs_key) { await needKey(); continue; }
      $("key-form").hidden = true;
      $("change-key").hidden = !apiKey();
      await follow(() => { failures = 0; });
    } catch (error) {
      if (error instanceof Refused) { if (error.status < 500 && error.status !== 401) complain(inWords(error)); }
      else if (!isNetwork(error)) console.error(error);
    }
    failures += 1;
    setPhase(phase === "stopping" ? "stopping" : "gone");
    await nap(Math.min(5000, 400 * 2 ** Math.min(failures, 4)));
  }
}

async function follow(connected) {
  const abort = new AbortController();
  let timer = 0;
  const alive = () => { clearTimeout(timer); timer = setTimeout(() => abort.abort(), SILENCE_MS); };
  alive();
  try {
    const reply = await ask("v1/jobs/events", { signal: abort.signal, headers: { accept: "text/event-stream" } });
    const listing = list();
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    await listing;
    connected();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      text += value;
      const parts = text.split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        const data = part.split("\n").find((line) => line.startsWith("data: "));
        if (data) heard(JSON.parse(data.slice(6)));
      }
    }
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}

function heard(event) {
  tell("event", event);
  if (event.type === "server") {
    setPhase(event.phase, event.reason, event.loading);
    setCounts(event);
  } else if (event.type === "job") {
    put(event.job);
  } else if (event.type === "job.progress") {
    const job = jobs.find((each) => each.id === event.id);
    if (job) { job.status = event.status; job.progress = event; show(job); }
  } else if (event.type === "job.preview") {
    previews.set(event.id, { ...previews.get(event.id), [event.index]: event.image_url });
    if (event.id === staged) showStage(); else showQueue();
  } else if (event.type === "job.deleted") {
    drop(event.id);
  }
}

const PHASES = {
  connecting: [t("Connecting…"), ""],
  loading: [t("Loading"), t("The model is loading. You can already enter a prompt.")],
  restarting: [t("Restarting"), t("The engine was lost and is restarting. Your requests will resume automatically.")],
  stopping: [t("Stopping"), t("The server is stopping. Accepted requests resume when it is back.")],
  failed: [t("Failed"), t("The model can't be loaded.")],
  gone: [t("Offline"), t("The server can't be reached. This page reconnects automatically.")],
  ready: [t("Ready"), ""],
};

const soFar = ({ component, loaded_gb, total_gb }) => t("{component}: {loaded} of {total} GB.", { component: component.replaceAll("_", " "), loaded: loaded_gb.toFixed(1), total: total_gb.toFixed(1) });

function setPhase(next, reason, loading) {
  const changed = next !== phase || offline;
  const listAgain = phase === "loading" && next === "ready";
  phase = next;
  offline = next === "gone" || next === "connecting";
  const [word, notice] = PHASES[next] || [next, ""];
  $("state").className = `state ${next}`;
  if ($("state").textContent !== word) $("state").textContent = word;
  const more = reason && next === "failed" ? ` ${reason}` : loading ? ` ${soFar(loading)}` : "";
  $("server-notice").hidden = !notice;
  if ($("server-notice").firstElementChild.textContent !== notice + more) $("server-notice").firstElementChild.textContent = notice + more;
  if (changed && (next === "ready" || next === "restarting")) loadModel();
  if (listAgain) setTimeout(() => list().catch(() => {}), 2000);
  $("make").disabled = model === null;
}

async function needKey() {
  setPhase("connecting");
  $("state").textContent = t("Key needed");
  $("key-form").hidden = false;
  $("key-label").textContent = apiKey() ? t("This server does not accept that key. Try another one.") : t("This server requires an API key");
  $("key").focus();
  await new Promise((done) => { keyGiven = done; });
}
let keyGiven = () => {};
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = $("key").value.trim();
  if (/[^\x21-\x7e]/.test(key)) return complain(t("A key consists of letters, digits and punctuation, without spaces."));
  complain("");
  store(key);
  $("key").value = "";
  if ($("change-key").hidden) { keyGiven(); $("prompt").focus(); } else location.reload();
});
$("change-key").addEventListener("click", () => {
  $("key-form").hidden = !$("key-form").hidden;
  $("key-label").textContent = t("New API key; leave empty to remove the current one");
  if (!$("key-form").hidden) $("key").focus();
});
