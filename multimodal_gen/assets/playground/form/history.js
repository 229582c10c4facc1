"use strict";
// Prompts that were used, the favourite ones first, kept in this browser.

const MAX_PROMPTS = 200;
let prompts = recall("prompts", []);   // [{ text, star }], newest first
let recalled = -1;                     // place of the prompt that arrow up brought back
let unsent = "";                       // what was written before

function notePrompt(text) {
  if (!text.trim()) return;
  const known = prompts.find((each) => each.text === text);
  prompts = [{ text, star: Boolean(known?.star) }, ...prompts.filter((each) => each !== known)];
  const over = prompts.filter((each) => !each.star).slice(MAX_PROMPTS);
  prompts = prompts.filter((each) => !over.includes(each));
  recalled = -1;
  remember("prompts", prompts);
}
hear("sent", (body) => notePrompt(body.prompt));

function usePrompt(text) {
  $("prompt").value = text;
  $("prompt").dispatchEvent(new Event("input", { bubbles: true }));
  $("prompt").setSelectionRange(text.length, text.length);
}

// At the first line arrow up brings back earlier prompts, arrow down later ones.
$("prompt").addEventListener("keydown", (event) => {
  const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  if (!by || event.shiftKey || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  const { value, selectionStart, selectionEnd } = $("prompt");
  if (selectionStart !== selectionEnd) return;
  const edge = by > 0 ? !value.slice(0, selectionStart).includes("\n") : !value.slice(selectionStart).includes("\n");
  if (!edge || (by > 0 && recalled < 0 && value && selectionStart > 0 && selectionStart < value.length)) return;
  const to = Math.min(prompts.length - 1, Math.max(-1, recalled + by));
  if (to === recalled) return;
  if (recalled < 0) unsent = value;
  event.preventDefault();
  const skips = to >= 0 && prompts[to].text === value && to + by >= 0 && to + by < prompts.length;
  const at = skips ? to + by : to;
  usePrompt(at < 0 ? unsent : prompts[at].text);
  recalled = at;
});
$("prompt").addEventListener("input", (event) => { if (event.isTrusted) recalled = -1; });

// -- the list

const promptSearch = h("input", { type: "search", "aria-label": t("Search prompts"), placeholder: t("Search prompts"), oninput: () => listPrompts() });
const promptList = h("ul", { className: "prompts" });
const promptNone = h("p", { className: "hint" });
const promptDialog = h("dialog", { id: "prompts", "aria-label": t("Earlier prompts") }, h("div", {},
  h("div", { className: "titled" }, h("h2", {}, t("Earlier prompts")), h("button", { className: "square small", type: "button", "aria-label": t("Close"), onclick: () => promptDialog.close() }, icon("x"))),
  promptSearch, promptNone, promptList));
document.body.append(promptDialog);
$("open-prompts").addEventListener("click", () => openPrompts());
promptDialog.addEventListener("click", (event) => { if (event.target === promptDialog) promptDialog.close(); });

function openPrompts() {
  promptSearch.value = "";
  listPrompts();
  promptDialog.showModal();
}

function listPrompts() {
  const wanted = promptSearch.value.trim().toLowerCase();
  const found = prompts.filter(({ text }) => text.toLowerCase().includes(wanted));
  const sorted = [...found.filter((each) => each.star), ...found.filter((each) => !each.star)];
  promptNone.textContent = prompts.length ? (sorted.length ? t("In the prompt's field, arrow up brings back the last one.") : t("No prompt contains these words.")) : t("Prompts that you use appear here. They are kept in this browser only.");
  promptList.replaceChildren(...sorted.map(promptRow));
}

function promptRow(each) {
  const { text } = each;
  const star = h("button", { className: "square small star", type: "button", "aria-pressed": each.star, "aria-label": t("Favourite: {prompt}", { prompt: text }), title: t("Favourite"), onclick: () => {
    each.star = !each.star;
    remember("prompts", prompts);
    star.setAttribute("aria-pressed", each.star);
  } }, "★");
  const use = h("button", { className: "prompt", type: "button", onclick: () => { promptDialog.close(); usePrompt(text); $("prompt").focus(); } }, text);
  const forget = h("button", { className: "square small", type: "button", "aria-label": t("Forget: {prompt}", { prompt: text }), title: t("Forget"), onclick: () => {
    const next = row.nextElementSibling || row.previousElementSibling;
    prompts = prompts.filter((one) => one !== each);
    remember("prompts", prompts);
    listPrompts();
    (promptList.children[Math.max(0, Array.from(promptList.children).indexOf(next))]?.querySelector(".prompt") || promptSearch).focus();
  } }, icon("trash"));
  const row = h("li", {}, star, use, forget);
  return row;
}
