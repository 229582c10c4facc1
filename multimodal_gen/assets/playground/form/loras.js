"use strict";
// LoRAs: rows of the form, and a list with what their files say of themselves.

const loras = () => Array.from($("loras").children, (row) => ({ name: row.children[0].value, scale: Number(row.children[1].value || 1), ...row.rest }));
const aboutLora = (name) => (model.about_loras || {})[name] || {};

function addLora(name, scale, rest = {}) {
  const names = model.loras.includes(name) ? model.loras : [...model.loras, name];
  const told = h("small", { className: "hint" });
  const picture = h("img", { alt: "", hidden: true });
  const row = h("div", { className: "lora" },
    h("select", { "aria-label": t("LoRA"), onchange: () => tellLora(row, told, picture) }, ...names.map((each) => h("option", { value: each, selected: each === name }, each))),
    h("input", { type: "number", inputMode: "decimal", step: "any", min: "-100", max: "100", value: scale ?? 1, "aria-label": t("LoRA scale") }),
    h("button", { className: "square", type: "button", "aria-label": t("Remove this LoRA"), onclick: () => { row.remove(); $("add-lora").focus(); } }, icon("x")),
    told, picture);
  row.rest = rest;
  tellLora(row, told, picture);
  $("loras").append(row);
  return row;
}

function tellLora(row, told, picture) {
  const about = aboutLora(row.children[0].value);
  const made = Object.entries(about.parameters || {}).map(([key, value]) => `${key} ${value}`);
  told.replaceChildren(...[about.base, made.join(", ")].filter(Boolean).map((text) => h("span", {}, text)),
    ...(about.trigger_words || []).map((word) => h("button", { type: "button", className: "word", title: t("Add to the prompt"), onclick: () => addWord(word) }, word)));
  picture.hidden = !about.thumbnail;
  if (about.thumbnail) picture.src = about.thumbnail;
}

function addWord(word) {
  const prompt = $("prompt");
  if (prompt.value.includes(word)) return toast(t("The prompt already says it."));
  const before = prompt.value.trimEnd().replace(/,$/, "");
  prompt.value = before ? `${before}, ${word}` : word;
  prompt.dispatchEvent(new Event("input", { bubbles: true }));
  toast(t("Added to the prompt: {word}", { word }));
}

function mayAddLora() {
  if ($("loras").children.length < model.limits.max_loras) return true;
  toast(t("The maximum is {count} LoRAs.", { count: model.limits.max_loras }));
  return false;
}

$("add-lora").addEventListener("click", () => {
  if (!mayAddLora()) return;
  const taken = loras().map((each) => each.name);
  const free = model.loras.find((name) => !taken.includes(name));
  if (free === undefined) return toast(t("All LoRAs are already added."));
  addLora(free).firstElementChild.focus();
});

// -- the list

function lorasShown() {
  const wanted = $("lora-search").value.trim().toLowerCase();
  const taken = loras().map((each) => each.name);
  const found = model.loras.filter((name) => [name, aboutLora(name).base || "", ...(aboutLora(name).trigger_words || [])].join(" ").toLowerCase().includes(wanted));
  $("lora-cards").replaceChildren(...found.map((name) => h("li", {}, loraCard(name, taken.includes(name)))));
  $("lora-count").textContent = t("{count} of {total}", { count: found.length, total: model.loras.length });
}

function loraCard(name, isTaken) {
  const { base, trigger_words: words_, thumbnail } = aboutLora(name);
  const card = h("button", { type: "button", "aria-pressed": isTaken, onclick: () => toggleLora(name, card) },
    thumbnail ? h("img", { src: thumbnail, alt: "", loading: "lazy" }) : h("span", { className: "letter", ariaHidden: "true" }, name[0].toUpperCase()),
    h("span", {}, h("b", {}, name), base ? h("small", {}, base) : null, words_ ? h("small", {}, words_.join(", ")) : null));
  return card;
}

function toggleLora(name, card) {
  const rows_ = Array.from($("loras").children).filter((row) => row.children[0].value === name);
  if (!rows_.length && !mayAddLora()) return;
  rows_.forEach((row) => row.remove());
  if (!rows_.length) addLora(name);
  card.setAttribute("aria-pressed", !rows_.length);
}

$("browse-loras").addEventListener("click", () => {
  $("lora-search").value = "";
  lorasShown();
  $("lora-list").showModal();
});
$("lora-search").addEventListener("input", lorasShown);
$("lora-close").addEventListener("click", () => $("lora-list").close());
