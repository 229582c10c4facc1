"use strict";
// Tabs below the stage: the gallery, and the panels that other parts add.

function addTab(name, panel) {
  const tab = h("button", { type: "button", role: "tab", id: `tab-${panel.id}`, "aria-controls": panel.id, onclick: () => showTab(panel.id) }, t(name));
  panel.setAttribute("role", "tabpanel");
  panel.setAttribute("aria-labelledby", tab.id);
  if (!panel.isConnected) $("panels").append(panel);
  $("tabs").append(tab);
  $("tabs").hidden = $("tabs").children.length < 2;
  showTab($("tabs").firstElementChild.getAttribute("aria-controls"));
}

function showTab(id) {
  for (const tab of $("tabs").children) {
    const shown = tab.getAttribute("aria-controls") === id;
    tab.setAttribute("aria-selected", shown);
    tab.tabIndex = shown ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !shown;
  }
  tell("tab", id);
}

$("tabs").addEventListener("keydown", (event) => {
  const all = Array.from($("tabs").children);
  const to = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!to) return;
  event.preventDefault();
  const next = all[(all.indexOf(document.activeElement) + to + all.length) % all.length];
  next.click();
  next.focus();
});
addTab("Gallery", $("gallery-panel"));
