"use strict";
// Another model: the prompt stays, and so does what was set and still fits.

let pristine = {};  // values of the form's fields as the model has them
const settable = () => Array.from(form.elements).filter((field) => field.id && field.id !== "prompt" && field.matches("input:not([type=file]), select, textarea"));
const isSide = (id) => id === "width" || id === "height";
const valueOf = (field) => (field.type === "checkbox" ? field.checked : field.value);
function notePristine() { pristine = Object.fromEntries(settable().map((field) => [field.id, valueOf(field)])); }

function chosenNow() {
  const fields = settable().filter((field) => !field.closest("[hidden]") && valueOf(field) !== pristine[field.id] && (sizeTouched || !isSide(field.id))).map((field) => [field.id, valueOf(field)]);
  return { fields, inputs: { ...given }, more: [...more], loras: loras(), controls: controls() };
}

// Returns names of what the model does not take.
function chooseAgain(before) {
  const lost = new Set();
  for (const [id, value] of before.fields) if (!setField($(id), value)) lost.add(nameOf($(id)));
  sizeTouched = before.fields.some(([id]) => isSide(id) && $(id).value !== pristine[id]);
  for (const { name, scale, ...rest } of before.loras) if (!$("lora").hidden && model.loras.includes(name)) addLora(name, scale, rest); else lost.add(name);
  for (const each of before.controls) if (!$("control").hidden && model.controls.includes(each.name)) addControl(each); else lost.add(each.name);
  const images = [before.inputs.image, ...before.more].filter(Boolean);
  if (images.length && isOffered("image")) addImages(images); else if (images.length) lost.add(nameOf($("image")));
  for (const name of ["last_image", "video", "mask"]) if (before.inputs[name]) { if (isOffered(name)) usePicture(name, before.inputs[name]); else lost.add(nameOf($(name))); }
  tellUpscale();
  return [...lost];
}
const isOffered = (name) => !$(`${name}-pick`).closest("[hidden]");
const nameOf = (field) => (field.closest("fieldset")?.querySelector("legend") || field.labels[0]).textContent.trim();

function setField(field, value) {
  if (!field || field.closest("[hidden]")) return false;
  if (field.type === "checkbox") { field.checked = value; return true; }
  field.value = value;
  if (field.value === String(value) && field.validity.valid) return true;
  field.value = pristine[field.id];
  return false;
}
