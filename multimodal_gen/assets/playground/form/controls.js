"use strict";
// Upscaling, and controls with their pictures.

function upscale() {
  const [factor, strength] = ["factor", "strength"].map((name) => Number($(`upscale_${name}`).value));
  const by = $("upscale_model").value;
  return factor ? { factor, ...(strength ? { strength } : {}), ...(by ? { model: by } : {}) } : null;
}

// The size of the result, where the form knows it.
function tellUpscale() {
  const [factor, width, height] = ["upscale_factor", "width", "height"].map((id) => Number($(id).value));
  $("upscale-told").hidden = !(factor > 1);
  if (factor > 1) $("upscale-told").textContent = width && height ? t("The result will be {width} × {height}.", { width: Math.round(width * factor), height: Math.round(height * factor) }) : t("The result will be {factor} times as wide and as high.", { factor });
}
form.addEventListener("input", tellUpscale);
hear("model", tellUpscale);

// Kinds of pictures that published controls tell apart; filled in by the server.
const CONTROL_MODES = {};

const controls = () => Array.from($("controls").children, (row) => row.given());

function addControl({ name, image = null, scale = 1, mode = "" } = {}) {
  const label = (text, field) => h("label", {}, text, field);
  const which = h("select", {}, ...model.controls.map((each) => h("option", { value: each, selected: each === name }, each)));
  const how = h("input", { type: "number", inputMode: "decimal", step: "any", min: "0", max: "100", value: scale, "aria-label": t("Control scale") });
  const kind = h("input", { type: "text", value: mode, "aria-label": t("Mode of the control, if it has several") });
  kind.setAttribute("list", "control-modes");
  const file = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp", required: !image, "aria-label": t("Picture of the control") });
  const img = h("img", { alt: "", hidden: true });
  const row = h("div", { className: "control" },
    h("div", { className: "line" }, label(t("Control"), which), label(t("Scale"), how), label(t("Mode"), kind),
      h("button", { className: "square", type: "button", "aria-label": t("Remove this control"), onclick: () => { row.remove(); $("add-control").focus(); } }, icon("x"))),
    h("div", { className: "pick" }, img, file));
  const take = async (files) => {
    row.image = files.length ? await readUrl(files[0]) : null;
    img.hidden = !row.image;
    if (row.image) img.src = row.image;
    file.required = !row.image;
    wrong(file, "");
  };
  file.addEventListener("change", () => take(file.files));
  file.parentElement.take = take;
  row.image = image;
  row.given = () => ({ name: which.value, image: row.image, scale: Number(how.value || 1), ...(kind.value.trim() && { mode: kind.value.trim() }) });
  if (image) { img.src = image; img.hidden = false; }
  $("controls").append(row);
  return row;
}

$("add-control").addEventListener("click", () => {
  if ($("controls").children.length >= model.limits.max_controls) return toast(t("The maximum is {count} controls.", { count: model.limits.max_controls }));
  addControl().querySelector("select").focus();
});
$("controls").before(h("datalist", { id: "control-modes" }, ...Object.values(CONTROL_MODES).map((value) => h("option", { value }))));
