"use strict";
// The form's defaults and limits, from the model.

let chosen = recall("model", "");  // name of the model, if the user chose one

async function modelInfo() {
  try {
    return await (await ask(`model_info${chosen && `?model=${encodeURIComponent(chosen)}`}`)).json();
  } catch (error) {
    if (!(error instanceof Refused) || !chosen || model !== null) throw error;
    chosen = "";  // that of the last visit is not served any more
    return modelInfo();
  }
}

async function loadModel() {
  try {
    const info = await modelInfo();
    showModels(info);
    const isNew = model === null || model.name !== info.name || model.family !== info.family;
    const before = isNew && model !== null ? chosenNow() : null;
    model = info;
    if (isNew) fillIn();
    if (before) keptOf(before);
    tell("model", info);
    $("make").disabled = false;
    if (wished) { wished = false; make(); }
  } catch (error) {
    complain(inWords(error));
  }
}

function showModels(info) {
  $("models").hidden = info.models.length < 2;
  $("models").replaceChildren(...info.models.map((name) => h("option", { value: name }, name)));
  $("models").value = info.name;
}
$("models").addEventListener("change", async () => {
  chosen = $("models").value;
  $("make").disabled = true;
  $("model").textContent = t("Loading {model}…", { model: chosen });
  await loadModel();
  if (model.name === chosen) return remember("model", chosen);
  chosen = $("models").value = model.name;  // it can't be loaded: the error is shown
  showName();
  $("make").disabled = false;
});

function keptOf(before) {
  const lost = chooseAgain(before);
  toast(lost.length ? t("{model} is used now. It does not take: {list}", { model: model.name, list: lost.join(", ") }) : t("{model} is used now, with your prompt and settings.", { model: model.name }));
}

function showName() {
  $("model").textContent = `${model.name} · ${model.family} · ${model.device}, ${model.dtype}`;
  showTitle();
}

function fillIn() {
  const { defaults, limits } = model;
  const video = makesVideos();
  showName();
  $("make").firstElementChild.textContent = video ? t("Generate video") : t("Generate image");
  const shown = {
    negative_prompt: true, num_inference_steps: true, guidance_scale: true, n: !video, scheduler: model.schedulers.length > 0,
    noise_schedule: model.noise_schedules.length > 1,
    image: takesImages(), last_image: model.parameters.includes("last_image_path"), video: model.parameters.includes("video_path"),
    mask: takes("inpainting") || model.parameters.includes("mask_path"),
    strength: takes("image-to-image", "inpainting") || startsFromVideo(),
    num_frames: video, fps: video, upscale: model.parameters.includes("upscale"), lora: model.loras.length > 0 && model.parameters.includes("lora"),
    control: model.controls.length > 0 && model.parameters.includes("control"),
  };
  for (const name of ["enhance_prompt", "guidance_scale_2", "true_cfg_scale", "flow_shift", "max_sequence_length"]) shown[name] = model.parameters.includes(name);
  for (const name of model.no_effect) shown[name] = false;
  for (const part of document.querySelectorAll("[data-for]")) part.hidden = !shown[part.dataset.for];
  for (const side of ["width", "height"]) Object.assign($(side), { min: model.size_multiple, max: largestSide(), step: model.size_multiple });
  $("num_inference_steps").max = limits.max_steps;
  $("image").multiple = limits.max_images > 1;
  $("image-label").textContent = limits.max_images > 1 ? t("Input images, up to {count}", { count: limits.max_images }) : t("Input image");
  $("n").max = Math.min(10, limits.max_outputs);
  Object.assign($("num_frames"), { max: limits.max_frames, step: model.frame_multiple });
  $("max_sequence_length").max = limits.max_sequence_length || "";
  const twice = model.upscale_ways.includes("second-pass");
  $("upscale_strength").parentElement.hidden = !twice;
  $("upscale_by").hidden = !model.upscalers.length;
  $("upscale_model").replaceChildren(...(twice ? [h("option", { value: "" }, "Lanczos")] : []), ...model.upscalers.map((each) => h("option", { value: each }, each)));
  for (const [name, choices] of CHOICES()) $(name).replaceChildren(...choices.map((each) => h("option", { value: each }, each)));
  $("shape").replaceChildren(h("option", { value: "" }, t("Shape")), ...shapes().map(([name, w, hgt]) => h("option", { value: `${w}x${hgt}` }, name)));
  reset();
}

function shapes() {
  const { width, height } = model.defaults;
  const step = model.size_multiple;
  const area = width * height;
  const fit = (x) => Math.max(step, Math.min(Math.round(x / step) * step, Math.floor(largestSide() / step) * step));
  const found = [[t("Model default"), width, height]];
  for (const [name, ratio] of [[t("Square"), 1], [t("Landscape 3:2"), 1.5], [t("Portrait 2:3"), 1 / 1.5], [t("Wide 16:9"), 16 / 9], [t("Tall 9:16"), 9 / 16]]) {
    found.push([name, fit(Math.sqrt(area * ratio)), fit(Math.sqrt(area / ratio))]);
  }
  return found;
}

function reset() {
  const { defaults } = model;
  for (const name of NUMBERS) form.elements[name].value = defaults[name] ?? "";
  $("strength").value = "";
  $("n").value = 1;
  $("priority").value = "normal";
  $("seed").value = "";
  $("enhance_prompt").checked = false;
  $("negative_prompt").value = defaults.negative_prompt || "";
  for (const [name] of CHOICES()) $(name).selectedIndex = 0;
  $("shape").selectedIndex = 0;
  $("loras").replaceChildren();
  for (const name of ["factor", "strength"]) $(`upscale_${name}`).value = "";
  $("upscale_model").selectedIndex = 0;
  $("controls").replaceChildren();
  sizeTouched = false;
  more.length = 0;
  for (const name of Object.keys(given)) usePicture(name, null);
  for (const field of form.elements) wrong(field, "");
  notePristine();
}
$("reset").addEventListener("click", () => { if (model) { reset(); toast(t("Settings reset to the model's defaults.")); } });

$("shape").addEventListener("change", () => {
  const [width, height] = $("shape").value.split("x");
  if (height) { $("width").value = width; $("height").value = height; sizeTouched = true; }
  $("shape").selectedIndex = 0;
  for (const side of ["width", "height"]) wrong($(side), "");
});
$("swap").addEventListener("click", () => {
  [$("width").value, $("height").value] = [$("height").value, $("width").value];
  sizeTouched = true;
});
for (const side of ["width", "height"]) $(side).addEventListener("input", () => { sizeTouched = true; });
$("dice").addEventListener("click", () => { $("seed").value = ""; toast(t("Each request gets a random seed.")); });
$("again").addEventListener("click", () => { $("seed").value = lastSeed; toast(t("Using seed {seed}.", { seed: lastSeed })); });
