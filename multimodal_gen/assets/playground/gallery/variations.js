"use strict";
// More of a result: its settings with other seeds, or pictures that start from it.

const VARIATIONS = 4;
const LIKENESS = 0.75;  // strength: the composition stays, details change

function settingsOf(job) {
  const p = job.parameters;
  const body = { prompt: p.prompt };
  if (model.models.length > 1) body.model = job.model;
  const plain = ["negative_prompt", "scheduler", "noise_schedule", ...NUMBERS.filter((name) => !["seed", "strength"].includes(name))];
  for (const name of plain) {
    if (job.kind === "image" && ["num_frames", "fps"].includes(name)) continue;
    if (p[name] !== undefined && (job.model !== model.name || p[name] !== model.defaults[name])) body[name] = p[name];
  }
  for (const name of ["lora", "upscale", "enhance_prompt"]) if (p[name] && p[name].length !== 0) body[name] = p[name];
  return body;
}

async function sendMore(job, body, said) {
  $("viewer").close();
  try {
    const video = job.kind === "video";
    const route = video ? "v1/videos" : body.image ? "v1/images/edits" : "v1/images/generations";
    const asked = { ...body, previews: true, ...(video ? {} : { run_in_background: true, n: Math.min(VARIATIONS, model.limits.max_outputs) }) };
    accepted(await submit(route, JSON.stringify(asked)), asked, job.kind);
    toast(said);
    $("well").scrollIntoView({ block: "nearest" });
  } catch (error) { complain(inWords(error)); }
}

// What was made from inputs can't be made again: the server doesn't keep those.
viewerActs.push((job, i) => (model && !job.pictures?.length ? h("button", { className: "small", type: "button", title: t("The same settings with other seeds"),
  onclick: () => sendMore(job, settingsOf(job), t("Variations are on their way.")) }, icon("dice"), t("Variations")) : null));

viewerActs.push((job, i) => (model && job.kind === "image" && takes("image-to-image") ? h("button", { className: "small", type: "button", title: t("Pictures that start from this one"),
  onclick: async () => {
    const url = await readUrl(await (await fetch(fileUrl(job.outputs[i].url))).blob());
    const { width, height } = job.parameters;
    const { upscale: _, ...settings } = settingsOf(job);
    sendMore(job, { ...settings, width, height, image: { image_url: url }, strength: LIKENESS }, t("Pictures like this one are on their way."));
  } }, icon("more"), t("More like this")) : null));
