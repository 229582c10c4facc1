"use strict";
// Axes of a grid: what can vary, and what a list of values means.

class AxisError extends Error {}

const AXIS_NUMBERS = ["num_inference_steps", "guidance_scale", "true_cfg_scale", "guidance_scale_2", "flow_shift", "strength"];

// What can vary with this model and the form's inputs: [name, label, kind, example].
function axisKinds() {
  const labelOf = (name) => $(name).labels[0].textContent.trim();
  const kinds = [["seed", t("Seed"), "integer", "1-5"], ["prompt", t("Words of the prompt"), "words", "red, green, blue"]];
  for (const name of AXIS_NUMBERS) {
    if ($(name).closest("[hidden]") || (name === "strength" && !given.image && !given.video)) continue;
    kinds.push([name, labelOf(name), name === "num_inference_steps" ? "integer" : "number", name === "num_inference_steps" ? "4, 8, 20" : name === "strength" ? "0.3-0.9 (+0.2)" : "1, 1.5, 3"]);
  }
  for (const [name, choices] of CHOICES()) if (choices.length > 1) kinds.push([name, labelOf(name), "choice", choices.slice(0, 3).join(", ")]);
  if (!$("lora").hidden) kinds.push(["lora", "LoRA", "lora", `${t("none")}, ${model.loras[0]}, ${model.loras[0]}:0.5`]);
  const { width, height } = model.defaults;
  kinds.push(["size", t("Size"), "size", `${width}x${height}, ${Math.max(model.size_multiple, width / 2)}x${height}`]);
  return kinds;
}

// Values of an axis: [{ label, set }], where `set` are a request's fields. Raises AxisError.
function axisValues(name, text, base) {
  const [, label, kind] = axisKinds().find(([each]) => each === name);
  const parts = text.split(",").map((part) => part.trim()).filter(Boolean);
  if (!parts.length) throw new AxisError(t("{axis}: enter one or more values.", { axis: label }));
  if (kind === "words") return replacements(parts, base.prompt);
  const values = parts.flatMap((part) => {
    if (kind === "integer" || kind === "number") return numbersIn(part, kind === "integer", label).map((value) => ({ label: String(value), set: { [name]: value } }));
    if (kind === "size") return [sizeIn(part)];
    if (kind === "lora") return [loraIn(part, base)];
    return [{ label: part, set: { [name]: choiceIn(part, CHOICES().find(([each]) => each === name)[1], label) } }];
  });
  for (const { set } of values) within(name, set[name], label);
  return values;
}

// "5", "1-5", "1-9 (+2)" and "0-1 [5]".
function numbersIn(part, whole, label) {
  const number = "(-?\\d+(?:\\.\\d+)?)";
  const found = new RegExp(`^${number}(?:\\s*-\\s*${number}\\s*(?:\\(\\+\\s*${number}\\)|\\[(\\d+)\\])?)?$`).exec(part);
  const wrongly = t("{axis}: “{value}” is not a number, a range as 1-5, one with a step as 1-9 (+2), or one with a count as 0-1 [5].", { axis: label, value: part });
  if (!found) throw new AxisError(wrongly);
  const [from, to, by, count] = found.slice(1).map((each) => (each === undefined ? null : Number(each)));
  if (to === null) return [wholeNumber(from, whole, label)];
  if (by === null && count === null && !(Number.isInteger(from) && Number.isInteger(to))) throw new AxisError(t("{axis}: “{value}” needs a step, as in {example}.", { axis: label, value: part, example: `${from}-${to} (+0.1)` }));
  const span = Math.abs(to - from);
  const step = count !== null ? span / Math.max(1, count - 1) : Math.abs(by ?? 1);
  if (step === 0 && span) throw new AxisError(wrongly);
  const most = count ?? Math.floor(span / step + 1e-9) + 1;
  if (most > 1000) throw new AxisError(t("{axis}: “{value}” has too many values.", { axis: label, value: part }));
  return Array.from({ length: most }, (_, i) => Number((from + Math.sign(to - from) * i * step).toFixed(6))).map((value) => (count !== null && whole ? Math.round(value) : wholeNumber(value, whole, label)));
}

function wholeNumber(value, whole, label) {
  if (whole && !Number.isInteger(value)) throw new AxisError(t("{axis}: {value} is not a whole number.", { axis: label, value }));
  return value;
}

function within(name, value, label) {
  const field = $(name);
  if (!field || field.type !== "number" || typeof value !== "number") return;
  const [min, max] = [field.min, field.max].map((limit) => (limit === "" ? null : Number(limit)));
  if (min !== null && value < min) throw new AxisError(t("{axis}: {value} is less than {limit}.", { axis: label, value, limit: min }));
  if (max !== null && value > max) throw new AxisError(t("{axis}: {value} is more than {limit}.", { axis: label, value, limit: max }));
}

function choiceIn(part, choices, label) {
  const found = choices.find((each) => each.toLowerCase() === part.toLowerCase());
  if (!found) throw new AxisError(t("{axis}: “{value}” is none of {list}.", { axis: label, value: part, list: choices.join(", ") }));
  return found;
}

function sizeIn(part) {
  const found = /^(\d+)\s*[x×*]\s*(\d+)$/i.exec(part);
  if (!found) throw new AxisError(t("{axis}: “{value}” is not a size as 512x512.", { axis: t("Size"), value: part }));
  const [width, height] = [Number(found[1]), Number(found[2])];
  for (const side of [width, height]) {
    if (side % model.size_multiple) throw new AxisError(t("{axis}: {value} is not a multiple of {limit}.", { axis: t("Size"), value: side, limit: model.size_multiple }));
    within("width", side, t("Size"));
  }
  return { label: `${width}×${height}`, set: { width, height } };
}

function loraIn(part, base) {
  const others = base.lora || [];
  if ([t("none"), "none"].includes(part.toLowerCase())) return { label: t("none"), set: { lora: others } };
  const scaled = /^(.*):(-?\d+(?:\.\d+)?)$/.exec(part);
  const name = choiceIn(scaled ? scaled[1] : part, model.loras, "LoRA");
  const lora = { name, scale: scaled ? Number(scaled[2]) : 1 };
  return { label: part, set: { lora: [...others.filter((each) => each.name !== name), lora] } };
}

function replacements(parts, prompt) {
  const [first] = parts;
  if (!prompt.includes(first)) throw new AxisError(t("The prompt does not contain “{value}”. The first value is the text that the others replace.", { value: first }));
  return parts.map((part) => ({ label: part, words: [first, part], set: {} }));
}

// A request with the values of both axes.
function cellBody(base, ...values) {
  const body = { ...base };
  for (const { set, words } of values) {
    const { lora, ...rest } = set;
    Object.assign(body, rest);
    if (lora) body.lora = [...(body.lora || []).filter((each) => !lora.some(({ name }) => name === each.name)), ...lora];
    if (words) body.prompt = body.prompt.replaceAll(words[0], () => words[1]);
  }
  return body;
}
