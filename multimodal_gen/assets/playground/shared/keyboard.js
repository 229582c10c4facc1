"use strict";
// Keys that do something anywhere on the page, and the map of them.

const SHORTCUTS = [
  ["?", t("Show this list"), () => openKeys()],
  ["/", t("Write the prompt"), () => $("prompt").focus()],
  ["h", t("Earlier prompts"), () => openPrompts()],
  ["s", t("Open or close the settings"), () => { $("settings").open = !$("settings").open; if ($("settings").open) $("settings").querySelector("summary").focus(); }],
  ["g", t("Show the gallery"), () => toTab("gallery-panel")],
  ["x", t("Show the grid"), () => toTab("grid-panel")],
  ["t", t("Show the timeline"), () => toTab("timeline-panel")],
  ["v", t("View the newest result"), () => { const job = jobs.find((each) => each.status === "completed" && each.outputs[0].url); if (job) look(job.id, 0); }],
  ["r", t("Reuse the newest result's settings"), () => { const job = jobs.find((each) => each.status === "completed"); if (job) reuse(job, 0); }],
  ["c", t("Cancel the request on the stage"), () => { if (!$("cancel").hidden) $("cancel").click(); }],
];
// Of the prompt, the viewer and dialogs; they work whatever the choice below.
const OTHER_KEYS = [["Enter", t("In the prompt: generate")], ["Ctrl+Enter", t("Anywhere in the form: generate")], ["Shift+Enter", t("In the prompt: new line")], ["↑ ↓", t("In the prompt: earlier and later prompts")],
  ["← →", t("In a result: newer and older")], ["Esc", t("Close what is open")]];

function toTab(id) {
  showTab(id);
  $(`tab-${id}`).focus();
  $(`tab-${id}`).scrollIntoView({ block: "nearest" });
}

const keysOn = h("input", { type: "checkbox", checked: recall("keys", true), onchange: () => remember("keys", keysOn.checked) });
const keyRow = ([key, words]) => [h("dt", {}, ...key.split(" ").map((each) => h("kbd", {}, each))), h("dd", {}, words)];
const keysDialog = h("dialog", { id: "keys", "aria-label": t("Keyboard") }, h("div", {},
  h("div", { className: "titled" }, h("h2", {}, t("Keyboard")), h("button", { className: "square small", type: "button", "aria-label": t("Close"), onclick: () => keysDialog.close() }, icon("x"))),
  h("dl", { className: "keys" }, ...[...SHORTCUTS, ...OTHER_KEYS].flatMap(keyRow)),
  h("label", { className: "check" }, keysOn, t("Use single keys (never inside a field)"))));
document.body.append(keysDialog);
keysDialog.addEventListener("click", (event) => { if (event.target === keysDialog) keysDialog.close(); });
const openKeys = () => keysDialog.showModal();
document.querySelector("header").append(h("button", { id: "open-keys", className: "square small", type: "button", "aria-label": t("Keyboard"), title: t("Keyboard (?)"), onclick: openKeys }, "?"));

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat || event.defaultPrevented) return;
  if (document.querySelector("dialog[open]") || event.target.closest?.("input, textarea, select, [contenteditable]")) return;
  const found = SHORTCUTS.find(([key]) => key === event.key);
  if (!found || (!keysOn.checked && event.key !== "?")) return;
  event.preventDefault();
  found[2]();
});
