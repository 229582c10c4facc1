"use strict";
// One result, large.

let looked = null;
function look(id, index) {
  const job = jobOf(id);
  if (!job || !job.outputs[index].url) return;
  looked = [id, index];
  const output = job.outputs[index];
  const prompt = job.parameters.prompt;
  $("big").replaceChildren(framed(job, h("div", {}, job.kind === "video" ? player(job, index) : h("img", { src: fileUrl(output.url), alt: prompt }))));
  const button = (label, onclick, name) => h("button", { className: "small", type: "button", onclick }, name ? icon(name) : null, label);
  const canStart = job.kind === "image" && takesImages();
  $("viewer-acts").replaceChildren(...[
    h("button", { className: "square small", type: "button", "aria-label": t("Newer"), title: t("Newer (left arrow)"), onclick: () => step(-1) }, icon("left")),
    h("button", { className: "square small", type: "button", "aria-label": t("Older"), title: t("Older (right arrow)"), onclick: () => step(1) }, icon("right")),
    h("a", { className: "button small", href: fileUrl(output.url), download: fileName(job, index) }, icon("save"), t("Download")),
    button(t("Reuse settings"), () => { $("viewer").close(); reuse(job, index); }, "tune"),
    canStart ? button(t("Use as input"), async () => { $("viewer").close(); startFrom(await (await fetch(fileUrl(output.url))).blob()); }, "up") : null,
    ...viewerActs.map((make) => make(job, index)),
    button(t("Delete"), () => removeAsked(job, index), "trash"),
    button(t("Close"), () => $("viewer").close(), "x"),
  ].filter((part) => part !== null));
  $("facts").replaceChildren();
  for (const [name, value] of Object.entries(factsOf(job, index))) $("facts").append(h("dt", {}, name), h("dd", {}, String(value)));
  if (!$("viewer").open) $("viewer").showModal();
}

// Settings and times of a result, by what they are called.
function factsOf(job, index) {
  const output = job.outputs[index];
  const names = { negative_prompt: t("Negative prompt"), scheduler: t("Scheduler"), noise_schedule: t("Noise schedule"), num_inference_steps: t("Steps"), guidance_scale: t("Guidance scale"),
    guidance_scale_2: t("Guidance scale, 2nd expert"), true_cfg_scale: t("True CFG scale"), flow_shift: t("Flow shift"), strength: t("Strength"), num_frames: t("Frames"), fps: t("Frames per second") };
  const facts = { [t("Prompt")]: job.parameters.prompt, [t("Seed")]: output.seed, [t("Size")]: `${job.parameters.width}×${job.parameters.height}` };
  if (output.revised_prompt) facts[t("Enhanced prompt")] = output.revised_prompt;
  for (const [name, label] of Object.entries(names)) {
    const value = job.parameters[name];
    if (value !== undefined && value !== "" && !(name === "num_frames" && value === 1)) facts[label] = value;
  }
  if (job.parameters.control?.length) facts[t("Controls")] = job.parameters.control.map((each) => t("{name} at {scale}", each)).join(", ");
  if (job.parameters.lora?.length) facts[t("LoRAs")] = job.parameters.lora.map(loraInWords).join(", ");
  const larger = job.parameters.upscale;
  if (larger) facts[t("Upscale")] = t("{factor} times by {model}", { factor: larger.factor, model: larger.model || "Lanczos" }) + (larger.strength ? t(", strength {strength}", larger) : "");
  facts[t("Model")] = job.model;
  facts[t("Made")] = new Date(1000 * job.created_at).toLocaleString();
  if (job.expires_at) facts[t("Kept until")] = new Date(1000 * job.expires_at).toLocaleString();
  if (job.warnings.length) facts[t("Note")] = job.warnings.map(({ text }) => text).join("; ");
  return facts;
}

function loraInWords(lora) {
  const on = lora.target ? t(" on {target}", lora) : "";
  const when = lora.stop < 1 || lora.start > 0 ? t(" from {start} to {stop} of the steps", lora) : "";
  return t("{name} at {scale}", lora) + on + when;
}

function step(by) {
  const all = shelf.items.filter(({ job, i }) => job.outputs[i].url);
  const at = all.findIndex(({ job, i }) => job.id === looked[0] && i === looked[1]);
  const next = all[at + by];
  if (at + by >= all.length - 1 && !$("older").hidden) loadMore();
  if (!next) return;
  look(next.job.id, next.i);
  $("viewer-acts").children[by < 0 ? 0 : 1].focus();
}
$("viewer").addEventListener("keydown", (event) => {
  if (event.target.tagName === "VIDEO") return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
$("viewer").addEventListener("click", (event) => { if (event.target === $("viewer")) $("viewer").close(); });
$("viewer").addEventListener("close", () => $("big").replaceChildren());
