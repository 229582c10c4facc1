"use strict";
// The jobs that the page knows of.

async function list(after) {
  const page = await (await ask(`v1/jobs?limit=${PAGE}${after ? `&after=${after}` : ""}`)).json();
  const found = page.data.filter((job) => !deleted.has(job.id));
  jobs = after ? [...jobs, ...found.filter((job) => !jobs.some((each) => each.id === job.id))] : found;
  $("older").hidden = !page.has_more;
  if (!jobs.some((job) => job.id === staged)) staged = null;
  staged = staged || (oldestAlive() || jobs[0] || {}).id || null;
  const last = jobs.find((job) => job.status === "completed");
  if (last && lastSeed === null) setLast(last);
  showAll();
}
$("older").addEventListener("click", () => list(jobs.at(-1).id).catch((error) => complain(inWords(error))));

function put(job) {
  if (deleted.has(job.id)) return;
  const at = jobs.findIndex((each) => each.id === job.id);
  const before = at < 0 ? null : jobs[at];
  if (at >= 0) jobs[at] = job;
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

async function removeAsked(job, index) {
  const count = job.outputs.length;
  const question = count > 1 ? t("Permanently delete all {count} images of this request?", { count })
    : job.kind === "video" ? t("Permanently delete this video?") : t("Permanently delete this image?");
  if (!confirm(question)) return;
  const place = Array.from($("gallery").children).findIndex((tile) => tile === tiles.get(`${job.id}:${index}`)?.element);
  if ($("viewer").open) $("viewer").close();
  if (!(await remove(job))) return;
  toast(t("Deleted."));
  const next = $("gallery").children[Math.min(place, $("gallery").children.length - 1)];
  (next ? next.querySelector("button") : $("gallery-title")).focus();
}
