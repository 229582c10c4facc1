"use strict";
// Two results against each other: one over the other with a divider, or side by side.

const versus = { dialog: null, pair: [], apart: recall("compare_apart", false) };

function compare(...pair) {
  versus.pair = pair;
  versus.dialog ||= document.body.appendChild(h("dialog", { id: "compare", "aria-label": t("Comparison"), onclick: (event) => { if (event.target === versus.dialog) versus.dialog.close(); } }));
  showPair();
  if (!versus.dialog.open) versus.dialog.showModal();
  versus.dialog.querySelector("input, button").focus();
}

function showPair() {
  const stills = versus.pair.every(({ job }) => job.kind === "image");
  const apart = versus.apart || !stills;
  const act = (name, label, onclick, more = {}) => h("button", { className: "small", type: "button", onclick, ...more }, icon(name), label);
  const both = versus.pair.map(({ job, i }, at) => h("figure", {}, framed(job, h("div", {}, job.kind === "video" ? player(job, i) : h("img", { src: fileUrl(job.outputs[i].url), alt: job.parameters.prompt }))),
    h("figcaption", { className: "hint numbers" }, `${"AB"[at]} · ${t("seed {seed}", { seed: job.outputs[i].seed })}`)));
  versus.dialog.replaceChildren(h("div", {},
    apart ? h("div", { className: "apart" }, ...both) : overlaid(both),
    h("div", { className: "acts" },
      stills ? act("swap", t("Side by side"), () => { versus.apart = !versus.apart; remember("compare_apart", versus.apart); showPair(); versus.dialog.querySelector("[aria-pressed]").focus(); }, { "aria-pressed": apart }) : null,
      act("again", t("Swap"), (event) => { versus.pair.reverse(); showPair(); versus.dialog.querySelector(`.acts button:nth-child(${stills ? 2 : 1})`).focus(); }),
      act("x", t("Close"), () => versus.dialog.close())),
    differences()));
}

function overlaid([below, above]) {
  const frame = below.querySelector(".frame");
  above.querySelector("img").classList.add("above");
  const place = h("input", { type: "range", min: 0, max: 100, step: "any", value: 50, "aria-label": t("Divider: A is left of it, B right") });
  place.addEventListener("input", () => frame.style.setProperty("--at", `${place.value}%`));
  place.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2 }[event.key];
    if (!by) return;
    event.preventDefault();
    place.value = Number(place.value) + by;
    place.dispatchEvent(new Event("input"));
  });
  frame.classList.add("over");
  frame.append(above.querySelector("img"), h("i", { className: "edge" }), h("b", { className: "at-left", "aria-hidden": "true" }, "A"), h("b", { className: "at-right", "aria-hidden": "true" }, "B"), place);
  return h("div", { className: "well" }, frame);
}

function differences() {
  const [a, b] = versus.pair.map(({ job, i }) => factsOf(job, i));
  const names = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((name) => name !== t("Made") && String(a[name]) !== String(b[name]));
  if (!names.length) return h("p", { className: "hint" }, t("Both have the same settings."));
  const cell = (value) => h("td", {}, value === undefined ? "–" : String(value));
  return h("table", { className: "differences" }, h("caption", {}, t("What differs")),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t("Setting")), h("th", { scope: "col" }, "A"), h("th", { scope: "col" }, "B"))),
    h("tbody", {}, ...names.map((name) => h("tr", {}, h("th", { scope: "row" }, name), cell(a[name]), cell(b[name])))));
}

// From one result: the other one is chosen in the gallery.
viewerActs.push((job, i) => h("button", { className: "small", type: "button", onclick: () => {
  $("viewer").close();
  showTab("gallery-panel");
  selection.keys.clear();
  const at = itemAt(keyOf(job, i));
  if (at >= 0) pick(at, true);
  selection.on = true;
  showSelection();
  focusItem(Math.max(at, 0));
  toast(t("Choose a second result, then press Compare."));
} }, icon("compare"), t("Compare…")));
