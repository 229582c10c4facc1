"use strict";
// Settings from files and from earlier results.

function apply(params) {
  reset();
  $("prompt").value = params.prompt || "";
  $("negative_prompt").value = params.negative_prompt || "";
  $("enhance_prompt").checked = Boolean(params.enhance_prompt) && model.parameters.includes("enhance_prompt");
  for (const name of NUMBERS) {
    const field = form.elements[name];
    if (params[name] !== undefined && params[name] !== null) field.value = params[name];
  }
  sizeTouched = params.width !== undefined;
  for (const [name, choices] of CHOICES()) if (choices.includes(params[name])) $(name).value = params[name];
  if (!$("lora").hidden) for (const { name, scale, ...rest } of params.lora || []) addLora(name, scale, rest);
  if (!$("upscale").hidden && params.upscale) {
    for (const name of ["factor", "strength", "model"]) $(`upscale_${name}`).value = params.upscale[name] ?? "";
  }
}

function reuse(job, i) {
  if (!model) return;
  apply({ ...job.parameters, seed: job.outputs[i].seed });
  $("settings").open = true;
  $("prompt").focus();
  const count = job.pictures?.length || 0;
  const lacks = count > 1 ? ` ${t("Add the {count} input files again, too.", { count })}` : count ? ` ${t("Add the input image again, too.")}` : "";
  toast(t("Settings loaded.") + lacks);
}

function startFrom(blob) {
  return readUrl(blob).then((url) => {
    addImages([url]);
    $("settings").open = true;
    $("image").focus();
    toast(t("The next request uses this image as input."));
  });
}

async function opened(file) {
  if (!model) return complain(t("The model is not loaded yet. Try again in a moment."));
  let params = null;
  try { params = await recipeOf(file); } catch { /* damaged: as if it had none */ }
  if (params) {
    apply(params.given);
    $("settings").open = true;
    $("prompt").focus();
    const by = params.model && params.model !== model.name ? ` ${t("They are for {theirs}; this server runs {ours}.", { theirs: params.model, ours: model.name })}` : "";
    toast(t("Loaded the settings of {file}.", { file: file.name }) + by);
  } else if (file.type.startsWith("image/") && takesImages()) {
    await startFrom(file);
  } else {
    complain(t("{file} contains no settings.", { file: file.name }));
  }
}

// PNG files have text chunks; all other files contain our JSON verbatim somewhere.
async function recipeOf(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const text = new TextDecoder("latin1").decode(bytes);
  const ours = text.startsWith("PNG", 1) ? await pngTexts(bytes) : { multimodal_gen: jsonIn(text) };
  if (ours.multimodal_gen) {
    const recipe = JSON.parse(ours.multimodal_gen);
    return { given: recipe.params, model: recipe.model };
  }
  return ours.parameters ? fromInfotext(ours.parameters) : null;
}

async function pngTexts(bytes) {
  const view = new DataView(bytes.buffer);
  const latin = new TextDecoder("latin1");
  const found = {};
  for (let at = 8; at + 12 <= bytes.length;) {
    const size = view.getUint32(at);
    const kind = latin.decode(bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + size);
    at += 12 + size;
    const zero = data.indexOf(0);
    if (!["tEXt", "zTXt", "iTXt"].includes(kind) || zero < 0) continue;
    const key = latin.decode(data.subarray(0, zero));
    if (kind === "tEXt") found[key] = latin.decode(data.subarray(zero + 1));
    else if (kind === "zTXt") found[key] = latin.decode(await inflated(data.subarray(zero + 2)));
    else {
      const language = data.indexOf(0, zero + 3);
      const start = data.indexOf(0, language + 1) + 1;
      const body = data.subarray(start);
      found[key] = new TextDecoder().decode(data[zero + 1] ? await inflated(body) : body);
    }
  }
  return found;
}

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function jsonIn(text) {
  const start = text.indexOf('{"params"');
  if (start < 0) return null;
  let depth = 0;
  let quoted = false;
  for (let i = start; i < text.length; i += 1) {
    const c = text[i];
    if (quoted) { if (c === "\\") i += 1; else if (c === '"') quoted = false; }
    else if (c === '"') quoted = true;
    else if (c === "{") depth += 1;
    else if (c === "}" && (depth -= 1) === 0) return text.slice(start, i + 1);
  }
  return null;
}

// Solvers by the names that AUTOMATIC1111 and related tools write; filled in by the server.
const SAMPLERS = {};

function fromInfotext(text) {
  const lines = text.trimEnd().split("\n");
  const last = lines.at(-1);
  const settings = {};
  for (const [, name, value] of last.matchAll(/\s*(\w[\w \-/]*):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)/g)) settings[name] = value;
  if (Object.keys(settings).length < 3) return null;
  lines.pop();
  const at = lines.findIndex((line) => line.startsWith("Negative prompt:"));
  const words = lines.slice(0, at < 0 ? lines.length : at).join("\n");
  const lora = Array.from(words.matchAll(/<lora:([^:>]+)(?::([-\d.]+))?[^>]*>/g), ([, name, scale]) => ({ name, scale: Number(scale || 1) }));
  const given = { prompt: words.replace(/\s*<lora:[^>]*>/g, "").trim(), lora };
  if (at >= 0) given.negative_prompt = lines.slice(at).join("\n").replace(/^Negative prompt: ?/, "");
  const distilled = settings["Distilled CFG Scale"];
  const byTrue = distilled || model.no_effect.includes("guidance_scale");
  const numbers = { num_inference_steps: settings.Steps, seed: settings.Seed, guidance_scale: distilled || (!byTrue && settings["CFG scale"]),
    true_cfg_scale: byTrue && settings["CFG scale"], strength: settings["Denoising strength"], flow_shift: settings.Shift,
    max_sequence_length: settings["Max sequence length"] };
  const size = /^(\d+)x(\d+)$/.exec(settings.Size || "");
  if (size) [numbers.width, numbers.height] = [size[1], size[2]];
  for (const [name, value] of Object.entries(numbers)) if (value && !Number.isNaN(Number(value))) given[name] = Number(value);
  given.scheduler = [settings.Sampler, ...(SAMPLERS[settings.Sampler] || [])].find((name) => model.schedulers.includes(name));
  return { given, model: settings.Model };
}

$("open-file").addEventListener("click", () => $("recipe").click());
$("recipe").addEventListener("change", () => { if ($("recipe").files[0]) opened($("recipe").files[0]); $("recipe").value = ""; });

const holdsFiles = (event) => event.dataTransfer && Array.from(event.dataTransfer.types).includes("Files");
const pickUnder = (event) => (event.target instanceof Element ? event.target.closest(".pick") : null);
const isResult = (event) => event.dataTransfer && event.dataTransfer.types.includes("text/uri-list") && !holdsFiles(event);
addEventListener("dragover", (event) => {
  if (isResult(event) && pickUnder(event)) event.preventDefault();
  if (!holdsFiles(event)) return;
  event.preventDefault();
  $("drop").hidden = Boolean(pickUnder(event));
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").hidden = true; });
addEventListener("drop", async (event) => {
  if (isResult(event) && pickUnder(event) && model) {
    event.preventDefault();
    const [pick, url] = [pickUnder(event), event.dataTransfer.getData("text/uri-list")];
    if (url.startsWith(here("files/"))) await pick.take([await (await fetch(url)).blob()]);
    return;
  }
  if (!holdsFiles(event)) return;
  event.preventDefault();
  $("drop").hidden = true;
  const { files } = event.dataTransfer;
  if (!files.length) return;
  const pick = pickUnder(event);
  if (pick && model) await pick.take(files); else await opened(files[0]);
});
addEventListener("paste", (event) => {
  const file = event.clipboardData && event.clipboardData.files[0];
  if (file && !document.querySelector("dialog[open]")) { event.preventDefault(); opened(file); }
});
