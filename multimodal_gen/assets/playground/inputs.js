"use strict";
// Input images, LoRAs and controls.

function readUrl(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(blob);
  });
}

function usePicture(name, url) {
  if (name === "image" && url !== given.image && isOwnMask()) usePicture("mask", null);
  given[name] = url;
  const [img, input, button] = $(`${name}-pick`).children;
  button.hidden = !url;
  img.hidden = !url || name === "video";
  if (url && name !== "video") img.src = url; else if (!url) { img.removeAttribute("src"); input.value = ""; }
  wrong(input, "");
  if (name === "image") showMore(); else showUsed();
  if (!model) return;
  $("edit-image").hidden = !given.image || !takes("inpainting");
  const follows = given.image !== null && model.picture_size !== "default";
  $("size-hint").hidden = !follows;
  if (!sizeTouched) for (const side of ["width", "height"]) $(side).value = follows ? "" : model.defaults[side];
  $("strength").placeholder = (given.mask ? model.defaults.inpainting_strength : model.defaults.strength) ?? "";
}
for (const name of Object.keys(given)) {
  $(name).addEventListener("change", async () => { if ($(name).files.length) await useFiles(name, $(name).files); });
  $(`${name}-pick`).lastElementChild.addEventListener("click", () => { usePicture(name, (name === "image" && more.shift()) || null); $(name).focus(); });
}

async function useFiles(name, files) {
  const urls = await Promise.all(Array.from(files, readUrl));
  if (name === "image") addImages(urls); else usePicture(name, urls[0]);
  if (name !== "video") $(name).value = "";
}

function addImages(urls) {
  const most = model.limits.max_images;
  const all = most > 1 ? [given.image, ...more, ...urls].filter(Boolean) : urls;
  if (all.length > most) toast(most > 1 ? t("The maximum is {count} images.", { count: most }) : t("This model takes one image."));
  more.splice(0, more.length, ...all.slice(1, most));
  usePicture("image", all[0]);
}

function showMore() {
  $("more-images").replaceChildren(...more.map((url, i) => h("div", { className: "pick" }, h("img", { alt: "", src: url }), h("span", { className: "hint" }, t("Image {number}", { number: i + 2 })),
    h("button", { className: "square", type: "button", "aria-label": t("Remove image {number}", { number: i + 2 }), onclick: () => { more.splice(i, 1); showMore(); $("image").focus(); } }, icon("x")))));
  showUsed();
}

// The inputs that go along, beside the prompt.
function showUsed() {
  const labels = { image: t("Input image"), mask: t("Mask"), last_image: t("Last frame"), video: t("Input video") };
  const pictures = [...["image", "last_image", "video"].filter((name) => given[name]).map((name) => [name, given[name], labels[name]]), ...more.map((url, i) => ["image", url, t("Image {number}", { number: i + 2 })])];
  if (given.mask && !given.image) pictures.push(["mask", given.mask, labels.mask]);
  $("used").hidden = !pictures.length;
  $("used").replaceChildren(...pictures.map(([name, url, label]) => {
    const painted_ = url === given.image && given.mask;
    const frame = h("span", {}, name === "video" ? icon("play") : h("img", { src: url, alt: "" }), painted_ ? h("img", { src: given.mask, alt: "", className: "over" }) : null);
    return h("button", { type: "button", onclick: () => openUsed(name, url) }, frame, painted_ ? t("{label}, painted", { label }) : label);
  }));
}

function openUsed(name, url) {
  if (url === given.image && takes("inpainting")) return edit(given.image, given.mask);
  $("settings").open = true;
  $(name).focus();
}

function addLora(name, scale, rest = {}) {
  const names = model.loras.includes(name) ? model.loras : [...model.loras, name];
  const row = h("div", { className: "line" },
    h("select", { "aria-label": t("LoRA") }, ...names.map((each) => h("option", { value: each, selected: each === name }, each))),
    h("input", { type: "number", inputMode: "decimal", step: "any", min: "-100", max: "100", value: scale ?? 1, "aria-label": t("LoRA scale") }),
    h("button", { className: "square", type: "button", "aria-label": t("Remove this LoRA"), onclick: () => { row.remove(); $("add-lora").focus(); } }, icon("x")));
  const told = h("small", { className: "hint" });
  const tell = () => {
    const about = (model.about_loras || {})[row.children[0].value] || {};
    const made = Object.entries(about.parameters || {}).map(([key, value]) => `${key} ${value}`);
    told.textContent = [about.base, (about.trigger_words || []).join(", "), made.join(", ")].filter(Boolean).join(" · ");
    if (about.thumbnail) told.prepend(h("img", { src: about.thumbnail, alt: "", width: 48 }), " ");
  };
  row.rest = rest;
  row.children[0].addEventListener("change", tell);
  tell();
  row.append(told);
  $("loras").append(row);
  return row;
}
$("add-lora").addEventListener("click", () => {
  if ($("loras").children.length >= model.limits.max_loras) return toast(t("The maximum is {count} LoRAs.", { count: model.limits.max_loras }));
  const taken = loras().map((each) => each.name);
  const free = model.loras.find((name) => !taken.includes(name));
  if (free === undefined) return toast(t("All LoRAs are already added."));
  addLora(free).firstElementChild.focus();
});
function upscale() {
  const [factor, strength] = ["factor", "strength"].map((name) => Number($(`upscale_${name}`).value));
  const by = $("upscale_model").value;
  return factor ? { factor, ...(strength ? { strength } : {}), ...(by ? { model: by } : {}) } : null;
}
const loras = () => Array.from($("loras").children, (row) => ({ name: row.children[0].value, scale: Number(row.children[1].value || 1), ...row.rest }));

function addControl() {
  const picture = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp", required: true, "aria-label": t("Picture of the control") });
  const row = h("div", { className: "line" },
    h("select", { "aria-label": t("Control") }, ...model.controls.map((each) => h("option", { value: each }, each))),
    h("input", { type: "number", inputMode: "decimal", step: "any", min: "0", max: "100", value: 1, "aria-label": t("Control scale") }),
    h("input", { type: "text", placeholder: t("mode"), "aria-label": t("Mode of the control, if it has several") }),
    h("button", { className: "square", type: "button", "aria-label": t("Remove this control"), onclick: () => { row.remove(); $("add-control").focus(); } }, icon("x")),
    picture);
  picture.addEventListener("change", async () => { row.image = picture.files.length ? await readUrl(picture.files[0]) : null; });
  $("controls").append(row);
  return row;
}
$("add-control").addEventListener("click", () => {
  if ($("controls").children.length >= model.limits.max_controls) return toast(t("The maximum is {count} controls.", { count: model.limits.max_controls }));
  addControl().firstElementChild.focus();
});
const controls = () => Array.from($("controls").children, (row) => ({ name: row.children[0].value, image: row.image, scale: Number(row.children[1].value || 1), ...(row.children[2].value && { mode: row.children[2].value }) }));
