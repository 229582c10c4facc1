"use strict";
// Settings that survive a reload, for each model, and presets: settings under a name. The API key
// is in neither.

let presets = recall("presets", {});  // name -> settings
let keptFor = null;                 // the model whose settings are shown

function settingsNow() {
  const { fields, loras: chosenLoras } = chosenNow();
  return { fields, loras: chosenLoras };
}

function applySettings(settings) {
  const inputs = { inputs: { ...given }, more: [...more], controls: controls() };
  const prompt = $("prompt").value;
  reset();
  $("prompt").value = prompt;
  const lost = chooseAgain({ loras: [], ...settings, ...inputs });
  $("settings").dispatchEvent(new Event("change", { bubbles: true }));
  return lost;
}

// -- what survives a reload

let keepTimer = 0;
function keepSettings() {
  if (!model || keptFor !== model.name) return;
  remember("prompt", $("prompt").value || null);
  remember(`settings.${model.name}`, settingsNow());
}
const keepSoon = () => { clearTimeout(keepTimer); keepTimer = setTimeout(keepSettings, 300); };
for (const type of ["input", "change", "click"]) form.addEventListener(type, keepSoon);
addEventListener("pagehide", keepSettings);
document.addEventListener("visibilitychange", () => { if (document.hidden) keepSettings(); });

hear("model", () => {
  if (keptFor === model.name) return;
  const first = keptFor === null;
  keptFor = model.name;
  const kept = recall(`settings.${model.name}`);
  const written = $("prompt").value;
  if (first && !written) $("prompt").value = recall("prompt", "");
  if (first && kept && !settingsNow().fields.length) applySettings(kept);
});

// -- presets

const presetList = h("select", { id: "presets", "aria-label": t("Preset") });
const presetName = h("input", { id: "preset-name", type: "text", maxLength: 60, "aria-label": t("Name of the preset"), placeholder: t("Name of the preset"), hidden: true });
const presetSave = h("button", { id: "preset-save", className: "small", type: "button", onclick: savePreset }, t("Save preset"));
const presetDrop = h("button", { id: "preset-delete", className: "square", type: "button", "aria-label": t("Delete this preset"), title: t("Delete this preset"), hidden: true, onclick: dropPreset }, icon("trash"));
$("settings").querySelector("div").prepend(h("div", {}, h("label", { htmlFor: "presets" }, t("Preset")), h("div", { className: "line" }, presetList, presetName, presetSave, presetDrop)));

// Not fields of a request.
for (const field of [presetList, presetName, presetSave, presetDrop]) field.setAttribute("form", "");

function listPresets(chosenOne = "") {
  const names = Object.keys(presets).sort((a, b) => a.localeCompare(b));
  presetList.replaceChildren(h("option", { value: "" }, names.length ? t("Choose a preset…") : t("None saved yet")), ...names.map((name) => h("option", { value: name }, name)));
  presetList.value = chosenOne;
  presetDrop.hidden = !chosenOne;
}
listPresets();

presetList.addEventListener("change", () => {
  const name = presetList.value;
  presetDrop.hidden = !name;
  if (!name || !model) return;
  const lost = applySettings(presets[name]);
  toast(lost.length ? t("Preset “{name}” is loaded. The model does not take: {list}", { name, list: lost.join(", ") }) : t("Preset “{name}” is loaded.", { name }));
});

function savePreset() {
  if (presetName.hidden) return namePreset(true);
  const name = presetName.value.trim();
  if (!name) return namePreset(false);
  presets = { ...presets, [name]: settingsNow() };
  remember("presets", presets);
  namePreset(false);
  listPresets(name);
  presetSave.focus();
  toast(t("Preset “{name}” is saved.", { name }));
}

function namePreset(asks) {
  presetName.hidden = !asks;
  presetList.hidden = asks;
  presetDrop.hidden = asks || !presetList.value;
  if (asks) { presetName.value = presetList.value; presetName.focus(); presetName.select(); } else presetSave.focus();
}
presetName.addEventListener("keydown", (event) => {
  if (event.key === "Enter") { event.preventDefault(); event.stopPropagation(); savePreset(); }
  if (event.key === "Escape") { event.stopPropagation(); namePreset(false); }
});

function dropPreset() {
  const name = presetList.value;
  if (!name || !confirm(t("Delete the preset “{name}”?", { name }))) return;
  const { [name]: _, ...rest } = presets;
  presets = rest;
  remember("presets", presets);
  listPresets();
  presetList.focus();
}
