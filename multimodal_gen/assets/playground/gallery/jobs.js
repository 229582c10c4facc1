"use strict";
// The jobs that the page knows of.

const MOST = 60;  // jobs that the server lists at a time
let hasOlder = false;

async function list(after) {
  const page = await (await ask(`v1/jobs?limit=${after ? MOST : PAGE}${after ? `&after=${after}` : ""}`)).json();
  const found = page.data.filter((job) => !deleted.has(job.id));
  // What was listed before stays where it goes on from this page.
  const before = after ? jobs : found;
  const known = new Set(before.map((job) => job.id));
  const at = after || !page.has_more ? -1 : jobs.findIndex((job) => job.id === page.last_id);
  const rest = after ? found : at < 0 ? [] : jobs.slice(at + 1);
  jobs = [...before, ...rest.filter((job) => !known.has(job.id))];
  if (!rest.length || after) hasOlder = page.has_more;
  if (!isSearching()) $("older").hidden = !hasOlder;
  if (!jobs.some((job) => job.id === staged)) staged = null;
  staged = staged || (oldestAlive() || jobs[0] || {}).id || null;
  const last = jobs.find((job) => job.status === "completed");
  if (last && lastSeed === null) setLast(last);
  showAll();
}
function put(job) {
  if (deleted.has(job.id)) return;
  const at = jobs.findIndex((each) => each.id === job.id);
  const before = at < 0 ? null : jobs[at];
  if (at >= 0) jobs[at] = job;
  else if (isDone(job) && hasOlder && job.created_at < jobs.at(-1)?.created_at) return show(job);  // not listed yet
  else {
    const place = jobs.findIndex((each) => each.created_at <= Math.ceil(job.created_at));
    jobs.splice(place < 0 ? jobs.length : place, 0, job);
  }
  if (isDone(job)) {
    previews.delete(job.id);
    if (!before || !isDone(before)) ended(job);
    if (job.id === staged) staged = oldestAlive()?.id || staged;
  }
  if (!staged) staged = job.id;
  if (staged !== job.id) showStage();
  show(job);
}
const oldestAlive = () => jobs.filter((job) => !isDone(job)).at(-1);

function ended(job) {
  if (job.status === "completed") {
    setLast(job);
    say(t("Done: {prompt}", { prompt: job.parameters.prompt }));
  } else if (job.error && job.status !== "cancelled") {
    const reason = job.error.message;
    complain(job.kind === "video" ? t("The video could not be generated: {reason}", { reason }) : t("The image could not be generated: {reason}", { reason }));
  }
}

function setLast(job) {
  lastSeed = job.outputs[0].seed;
  $("again").disabled = lastSeed === null;
}

function drop(id) {
  deleted.add(id);
  jobs = jobs.filter((job) => job.id !== id);
  sought.jobs = sought.jobs.filter((job) => job.id !== id);
  previews.delete(id);
  if (staged === id) staged = (oldestAlive() || jobs.find((job) => job.status === "completed") || {}).id || null;
  showAll();
}

async function remove(job) {
  try {
    await ask(`v1/jobs/${job.id}`, { method: "DELETE" });
  } catch (error) {
    if (!(error instanceof Refused && error.status === 404)) { complain(inWords(error)); return false; }
  }
  drop(job.id);
  return true;
}

async function cancel(job) {
  if (await remove(job)) { toast(t("Cancelled.")); $("prompt").focus(); }
}
