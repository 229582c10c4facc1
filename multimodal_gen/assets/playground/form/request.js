"use strict";
// From the form to a request.

function wrong(field, why) {
  const box = field.closest("[data-for], fieldset, div:not(.line, .pick, .typed)");
  const id = `wrong-${field.id || field.name}`;
  let said = $(id);
  if (!why) {
    if (said) said.remove();
    if (field.getAttribute("aria-invalid")) { field.removeAttribute("aria-invalid"); field.removeAttribute("aria-errormessage"); }
    return;
  }
  if (!said) { said = h("p", { id, className: "wrong", role: "alert" }); box.append(said); }
  said.textContent = why;
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-errormessage", id);
}
form.addEventListener("input", (event) => wrong(event.target, ""));

function pointAt(field, why) {
  if (field.closest("#settings")) $("settings").open = true;
  wrong(field, why);
  field.focus();
}

function isValid() {
  for (const field of form.elements) {
    if (field.willValidate && !field.closest("[hidden]") && !field.validity.valid) {
      pointAt(field, field.validationMessage);
      return false;
    }
  }
  const needs = takes("text-to-image", "text-to-video") || given.video ? [] : takes("image-to-image", "image-edit", "image-to-video", "reference-to-video") ? ["image"]
    : takesImages() ? ["image", "mask"] : ["video"];
  if (given.mask && !given.video) needs.unshift(takes("inpainting") ? "image" : "video");
  if (given.last_image && !model.last_image_alone) needs.unshift("image");
  for (const name of needs) {
    if (!given[name]) { pointAt($(name), { mask: t("A mask is required."), video: t("A video is required.") }[name] || t("An image is required.")); return false; }
  }
  return true;
}

// Request body with only the values that differ from the model's defaults.
function asked() {
  const body = { prompt: $("prompt").value.trim() ? $("prompt").value : $("prompt").placeholder };
  const { defaults } = model;
  if (model.models.length > 1) body.model = model.name;
  const negative = $("negative_prompt").value;
  if (negative !== (defaults.negative_prompt || "") && !model.no_effect.includes("negative_prompt")) body.negative_prompt = negative;
  for (const name of NUMBERS) {
    const field = form.elements[name];
    const bySize = name === "width" || name === "height";
    if (field.value === "" || field.closest("[hidden]")) continue;
    if (name === "strength" && !given.image && !(given.video && startsFromVideo())) continue;
    if (Number(field.value) !== defaults[name] || (bySize && given.image)) body[name] = Number(field.value);
  }
  for (const [name] of CHOICES()) if ($(name).selectedIndex > 0) body[name] = $(name).value;
  if (!makesVideos() && Number($("n").value) > 1) body.n = Number($("n").value);
  if (loras().length) body.lora = loras();
  if (upscale()) body.upscale = upscale();
  if (controls().length) body.control = controls();
  if (given.mask && !makesVideos()) body.keep_unmasked = true;
  if ($("enhance_prompt").checked) body.enhance_prompt = true;
  if ($("priority").value !== "normal") body.priority = $("priority").value;
  for (const add of bodyParts) add(body);
  return body;
}

const routeOf = (background) => (makesVideos() ? (background ? "v1/videos" : "v1/videos/sync") : given.image ? "v1/images/edits" : "v1/images/generations");

let wished = false;  // submitted before the model was loaded
async function make() {
  if (!model) {
    wished = true;
    return toast(t("It starts as soon as the model is loaded."));
  }
  complain("");
  if (!isValid()) return;
  await send(requestBody());
}

// All of a request to run in the background, with its pictures.
function requestBody() {
  const body = { ...asked(), previews: true };
  if (makesVideos()) {
    if (given.image) body.input_reference = { image_url: given.image };
    if (more.length) body.image = more.map((url) => ({ image_url: url }));
    for (const name of ["last_image", "video", "mask"]) if (given[name]) body[name] = { image_url: given[name] };
  } else {
    body.run_in_background = true;
    for (const name of ["image", "mask"]) if (given[name]) body[name] = { image_url: given[name] };
    if (more.length) body.image = [given.image, ...more].map((url) => ({ image_url: url }));
  }
  return body;
}

async function send(body) {
  try {
    const job = await submit(routeOf(true), JSON.stringify(body));
    tell("sent", body);
    accepted(job, body, makesVideos() ? "video" : "image");
  } catch (error) {
    if (error instanceof Refused && error.param) {
      const name = error.param.split(".")[0];
      const field = form.elements[ALIASES[name] || name] || { lora: $("add-lora"), control: $("add-control"), upscale: $("upscale_factor") }[name];
      if (field && !field.closest("[hidden]")) return pointAt(field, inWords(error));
    }
    complain(inWords(error));
  }
}

// Shows a job that the server has accepted for `body`, until it tells more of it.
function accepted(job, body, kind) {
  if (!jobs.some((each) => each.id === staged && !isDone(each))) staged = job.id;
  if (!jobs.some((each) => each.id === job.id)) {
    const outputs = Array.from({ length: body.n || 1 }, () => ({ seed: null, url: null, thumbnail_url: null }));
    put({ id: job.id, kind, status: "queued", model: model.name, created_at: Date.now() / 1000,
      progress: null, parameters: body, pictures: [], outputs, error: null, warnings: [] });
  } else show(jobs.find((each) => each.id === job.id));
  say(t("Accepted."));
}

// An idempotency key makes it safe to repeat a request that may have arrived.
async function submit(path, body, key = randomHex()) {
  const headers = { "content-type": "application/json", "idempotency-key": key };
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await (await ask(path, { method: "POST", headers, body })).json();
    } catch (error) {
      if (error instanceof Refused || attempt === 2) throw error;
      await sleep(1000);
    }
  }
}

form.addEventListener("submit", (event) => { event.preventDefault(); make(); });
form.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || event.defaultPrevented) return;
  const always = event.ctrlKey || event.metaKey;
  if (always || (event.target.id === "prompt" && !event.shiftKey && !event.altKey)) { event.preventDefault(); make(); }
});
