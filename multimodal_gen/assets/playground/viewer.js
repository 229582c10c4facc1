"use strict";
// One result, large.

let looked = null;
function look(id, index) {
  const job = jobs.find((each) => each.id === id);
  if (!job || !job.outputs[index].url) return;
  looked = [id, index];
  const output = job.outputs[index];
  const prompt = job.parameters.prompt;
  $("big").replaceChildren(framed(job, h("div", {}, job.kind === "video" ? player(job, index) : h("img", { src: fileUrl(output.url), alt: prompt }))));
  const button = (label, onclick, name) => h("button", { className: "small", type: "button", onclick }, name ? icon(name) : null, label);
  const canStart = job.kind === "image" && takesImages();
  $("viewer-acts").replaceChildren(...[
    h("button", { className: "square small", type: "button", "aria-label": "Newer", title: "Newer (left arrow)", onclick: () => step(-1) }, icon("left")),
    h("button", { className: "square small", type: "button", "aria-label": "Older", title: "Older (right arrow)", onclick: () => step(1) }, icon("right")),
    h("a", { className: "button small", href: fileUrl(output.url), download: fileName(job, index) }, icon("save"), "Download"),
    button("Reuse settings", () => { $("viewer").close(); reuse(job, index); }, "tune"),
    canStart ? button("Use as input", async () => { $("viewer").close(); startFrom(await (await fetch(fileUrl(output.url))).blob()); }) : null,
    ...viewerActs.map((make) => make(job, index)),
    button("Delete", () => removeAsked(job, index), "trash"),
    button("Close", () => $("viewer").close(), "x"),
  ].filter((part) => part !== null));
  $("facts").replaceChildren();
  const names = { negative_prompt: "Negative prompt", scheduler: "Scheduler", noise_schedule: "Noise schedule", num_inference_steps: "Steps", guidance_scale: "Guidance scale",
    guidance_scale_2: "Guidance scale, 2nd", true_cfg_scale: "True CFG scale", flow_shift: "Flow shift", strength: "Strength", num_frames: "Frames", fps: "Frames per second" };
  const facts = { Prompt: prompt, Seed: output.seed, Size: `${job.parameters.width}×${job.parameters.height}` };
  if (output.revised_prompt) facts["Enhanced prompt"] = output.revised_prompt;
  for (const [name, label] of Object.entries(names)) {
    const value = job.parameters[name];
    if (value !== undefined && value !== "" && !(name === "num_frames" && value === 1)) facts[label] = value;
  }
  if (job.parameters.control?.length) facts.Controls = job.parameters.control.map((each) => `${each.name} at ${each.scale}`).join(", ");
  if (job.parameters.lora?.length) facts.LoRAs = job.parameters.lora.map((each) => `${each.name} at ${each.scale}${each.target ? ` on ${each.target}` : ""}${each.stop < 1 || each.start > 0 ? ` from ${each.start} to ${each.stop} of the steps` : ""}`).join(", ");
  const larger = job.parameters.upscale;
  if (larger) facts.Upscale = `${larger.factor} times by ${larger.model || "Lanczos"}${larger.strength ? `, strength ${larger.strength}` : ""}`;
  facts.Model = job.model;
  facts.Made = new Date(1000 * job.created_at).toLocaleString();
  if (job.expires_at) facts["Kept until"] = new Date(1000 * job.expires_at).toLocaleString();
  for (const { text } of job.warnings) facts.Note = facts.Note ? `${facts.Note}; ${text}` : text;
  for (const [name, value] of Object.entries(facts)) $("facts").append(h("dt", {}, name), h("dd", {}, String(value)));
  if (!$("viewer").open) $("viewer").showModal();
}

function step(by) {
  const all = jobs.flatMap((job) => (job.status === "completed" ? job.outputs.map((output, i) => [job.id, i, output.url]) : [])).filter(([, , url]) => url);
  const at = all.findIndex(([id, i]) => id === looked[0] && i === looked[1]);
  const next = all[at + by];
  if (!next) return;
  look(next[0], next[1]);
  $("viewer-acts").children[by < 0 ? 0 : 1].focus();
}
$("viewer").addEventListener("keydown", (event) => {
  if (event.target.tagName === "VIDEO") return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
$("viewer").addEventListener("click", (event) => { if (event.target === $("viewer")) $("viewer").close(); });
$("viewer").addEventListener("close", () => $("big").replaceChildren());
