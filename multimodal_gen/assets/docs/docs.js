"use strict";
// What the schema says of a route, as elements.

const SERVER = "http://127.0.0.1:30000";
const here = new URL(".", document.baseURI).href.replace(/\/$/, "");
let api = { components: { schemas: {} } };

// A docstring's lines are one paragraph until an empty one; `code` is marked.
const paragraphs = (text) => text.split(/\n\s*\n/).map((each) => each.replace(/\s*\n\s*/g, " "));
const marked = (text) => text.split("`").map((part, at) => (at % 2 ? h("code", {}, part) : part));

function resolved(schema) {
  const name = schema && schema.$ref && schema.$ref.split("/").pop();
  return name ? api.components.schemas[name] || {} : schema || {};
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  const several = schema.anyOf || schema.oneOf;
  if (several) return [...new Set(several.map(typeOf))].filter((type) => type !== "null").join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${typeOf(schema.items || {})}`;
  if (Array.isArray(schema.type)) return schema.type.filter((type) => type !== "null").join(" or ");
  return schema.format === "binary" ? "file" : schema.type || "any";
}

function bounds(schema) {
  const parts = [schema, ...(schema.anyOf || [])];
  const first = (name) => parts.map((each) => each[name]).find((value) => value !== undefined && value !== null);
  const low = first("minimum"), above = first("exclusiveMinimum"), high = first("maximum");
  const told = [];
  if (low !== undefined && high !== undefined) told.push(`${low} to ${high}`);
  else if (low !== undefined) told.push(`${low} or more`);
  else if (above !== undefined) told.push(high === undefined ? `more than ${above}` : `more than ${above} and at most ${high}`);
  else if (high !== undefined) told.push(`at most ${high}`);
  if (first("maxLength") !== undefined) told.push(`at most ${first("maxLength")} characters`);
  if (schema.default !== undefined && schema.default !== null) told.push(`default ${JSON.stringify(schema.default)}`);
  return told.join(", ");
}

// Fields that only take null are refused: they are not shown.
function fieldsOf(schema) {
  const found = resolved(schema), required = found.required || [];
  return Object.entries(found.properties || {}).filter(([, field]) => field.type !== "null")
    .map(([name, field]) => ({ name, schema: field, required: required.includes(name), text: field.description || "" }));
}

function table(title, fields) {
  const rows = fields.map(({ name, schema, required, text }) => h("tr", {},
    h("th", { scope: "row" }, h("code", {}, name), required ? " (required)" : ""),
    h("td", { className: "kind" }, [typeOf(schema), bounds(schema)].filter(Boolean).join("; ")),
    h("td", { className: "text" }, ...marked(text))));
  const head = h("thead", {}, h("tr", {}, ...["Name", "Value", "Meaning"].map((each) => h("th", { scope: "col" }, each))));
  return [h("h3", {}, title), h("div", { className: "scroll" }, h("table", {}, head, h("tbody", {}, ...rows)))];
}

function sample({ lang, source }) {
  const text = source.replaceAll(SERVER, here);
  const copy = h("button", { type: "button", "aria-label": `Copy this ${lang} example` }, "Copy");
  copy.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(text); copy.textContent = "Copied"; } catch { copy.textContent = "Not allowed"; }
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  });
  return h("div", { className: "sample" }, h("pre", { tabIndex: 0, role: "region", "aria-label": `${lang} example` }, h("code", {}, text)), copy);
}
