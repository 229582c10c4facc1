"use strict";
// The stage and the queue.

function show(job) {
  tell("job", job);
  if (job.id === staged) showStage();
  showQueue();
  if (isDone(job)) showGallery();
}
function showAll() { showStage(); showQueue(); showGallery(); tell("jobs", jobs); }

function told(job) {
  const { progress } = job;
  if (job.status === "queued" || !progress) {
    if (progress && progress.loading) return t("Loading {model}", { model: job.model });
    const ahead = progress ? progress.queue_position : 0;
    return ahead > 0 ? t("Waiting, {count} ahead", { count: ahead }) : t("Waiting");
  }
  if (progress.phase === "enhance") return t("Enhancing the prompt…");
  const eta = progress.eta_s === null ? "" : ` · ${t("{time} left", { time: span(progress.eta_s) })}`;
  return progress.step >= progress.total ? t("Finishing…") : t("Step {step} of {total}", progress) + eta;
}
const percent = (job) => (job.progress && job.progress.total ? Math.round((100 * job.progress.step) / job.progress.total) : 0);

let stageShown = "";
function showStage() {
  const job = jobs.find((each) => each.id === staged);
  const running = job && !isDone(job);
  $("cancel").hidden = $("bar").hidden = !running;
  if (!job) {
    if (stageShown !== "") { stageShown = ""; $("well").replaceChildren(nothingYet()); $("well").classList.remove("many"); }
    $("caption").textContent = "";
    return;
  }
  const seen = previews.get(job.id) || {};
  const sources = job.outputs.map((output, i) => (output.url ? fileUrl(output.url) : seen[i] || null));
  const sign = JSON.stringify([job.id, job.status, sources.map((source) => source && source.slice(-60) + source.length)]);
  if (sign !== stageShown) {
    stageShown = sign;
    showPictures(job, sources);
  }
  if (running) {
    $("bar").firstElementChild.style.width = `${percent(job)}%`;
    $("bar").setAttribute("aria-valuenow", percent(job));
    $("bar").setAttribute("aria-valuetext", told(job));
  }
  $("caption").textContent = running ? told(job) : job.error ? "" : factsLine(job);
}

function showPictures(job, sources) {
  const well = $("well");
  const hadFocus = well.contains(document.activeElement);
  well.classList.toggle("many", sources.length > 1);
  const prompt = job.parameters.prompt;
  const parts = sources.map((source, i) => {
    if (!source) return null;
    if (job.outputs[i].url && job.kind === "video") return framed(job, h("div", {}, player(job, i)));
    const old = well.children.length === sources.length && well.children[i].querySelector("img");
    if (!job.outputs[i].url && old && old.dataset.job === job.id) { old.src = source; return well.children[i]; }
    const img = h("img", { src: source, alt: job.outputs[i].url ? prompt : t("Preview of: {prompt}", { prompt }) });
    img.dataset.job = job.id;
    return framed(job, job.outputs[i].url ? h("button", { type: "button", "aria-label": t("View: {prompt}", { prompt }), onclick: () => look(job.id, i) }, img) : h("div", {}, img));
  }).filter((part) => part !== null);
  if (!parts.length) parts.push(h("p", {}, job.error ? wordsOf(job) : isDone(job) ? t("No longer kept.") : "…"));
  well.replaceChildren(...parts);
  if (hadFocus && well.querySelector("button")) well.querySelector("button").focus();
}

const wordsOf = (job) => (job.status === "cancelled" ? t("Cancelled.") : job.error ? job.error.message : "");

// Scaled to the available space, whatever its own size.
function framed(job, element) {
  element.classList.add("frame");
  element.style.setProperty("--ratio", (job.parameters.width / job.parameters.height) || 1);
  return element;
}

function player(job, i) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const { url, thumbnail_url: poster } = job.outputs[i];
  return h("video", { src: fileUrl(url), poster: poster ? fileUrl(poster) : "", controls: true, loop: true, muted: !job.audio, playsInline: true, autoplay: !still && !job.audio, "aria-label": job.parameters.prompt });
}

function factsLine(job) {
  const p = job.parameters;
  const seeds = job.outputs.map((output) => output.seed);
  const seed = seeds.length > 1 ? t("seeds {first} to {last}", { first: seeds[0], last: seeds.at(-1) }) : t("seed {seed}", { seed: seeds[0] });
  const took = job.started_at && job.completed_at && job.completed_at > job.started_at ? ` · ${span(job.completed_at - job.started_at)}` : "";
  return `${p.prompt} · ${p.width}×${p.height} · ${t("{count} steps", { count: p.num_inference_steps })} · ${seed}${took}`;
}

$("cancel").addEventListener("click", () => {
  const job = jobs.find((each) => each.id === staged);
  if (job) cancel(job);
});

let counts = { own: 0, others: 0 };
function setCounts(event) { counts = event; showQueue(); }

const rows = new Map();
function showQueue() {
  const mine = jobs.filter((job) => !isDone(job)).reverse();
  const listed = mine.filter((job) => job.id !== staged);
  $("queue").hidden = !listed.length && !counts.others;
  $("counts").textContent = t("{own} of yours, {others} of others", { own: Math.max(counts.own, mine.length), others: counts.others });
  for (const id of rows.keys()) if (!listed.some((job) => job.id === id)) { rows.get(id).remove(); rows.delete(id); }
  for (const job of listed) {
    if (!rows.has(job.id)) {
      const name = job.parameters.prompt;
      const row = h("li", {}, h("img", { className: "thumb", alt: "", hidden: true }), h("span", { className: "cut" }, name),
        h("button", { className: "small", type: "button", "aria-label": t("Cancel: {prompt}", { prompt: name }), onclick: () => cancel(job) }, t("Cancel")),
        h("span", { className: "hint numbers" }));
      rows.set(job.id, row);
      $("waiting").append(row);
    }
    const said = rows.get(job.id).lastElementChild;
    const seen = Object.values(previews.get(job.id) || {}).at(-1);
    const thumb = rows.get(job.id).firstElementChild;
    if (seen && thumb.src !== seen) { thumb.src = seen; thumb.hidden = false; }
    if (said.textContent !== told(job)) said.textContent = told(job);
  }
}
