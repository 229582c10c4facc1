"use strict";
// The page: routes by section, in the schema's order, and what the search leaves of them.

const idOf = (...words) => words.join("-").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
const shown = [];  // {element, section, text}

function body(found) {
  const content = Object.entries((found.requestBody || {}).content || {});
  if (!content.length) return [];
  const title = `Body: ${content.map(([kind]) => (kind === "application/json" ? "JSON" : kind === "multipart/form-data" ? "form" : kind)).join(" or ")}`;
  const fields = fieldsOf(content[0][1].schema);
  return fields.length ? table(title, fields) : [h("h3", {}, title)];
}

function answers(found) {
  const told = Object.entries(found.responses || {}).map(([status, reply]) => `${status} ${reply.description}`);
  return h("p", { className: "dim" }, `Answers: ${told.join(", ")}.`);
}

function route(method, path, found) {
  const [purpose, ...more] = paragraphs(found.description || found.summary || "");
  const details = h("details", { className: "route", id: idOf(method, path) }, h("summary", {},
    h("span", { className: "method" }, method.toUpperCase()), h("span", { className: "path" }, path),
    h("span", { className: "purpose" }, ...marked(purpose))));
  details.addEventListener("toggle", () => {
    if (!details.open || details.childElementCount > 1) return;
    const parameters = (found.parameters || []).map((each) => ({ ...each, text: each.description || "" }));
    details.append(h("div", { className: "inner" },
      ...more.map((text) => h("p", {}, ...marked(text))),
      ...(found["x-codeSamples"] || []).map(sample),
      ...(parameters.length ? table("Parameters", parameters) : []),
      ...body(found), answers(found), trial(method, path, found)));
  });
  return details;
}

function textOf(method, path, found) {
  const content = Object.values((found.requestBody || {}).content || {});
  const fields = content.length ? fieldsOf(content[0].schema) : [];
  const names = [...fields, ...(found.parameters || [])].map((each) => `${each.name} ${each.text || each.description || ""}`);
  return [method, path, found.description || "", ...(found.tags || []), ...names].join(" ").toLowerCase();
}

function render() {
  shown.length = 0;
  const sections = (api.tags || []).map(({ name, description }) => {
    const section = h("section", { id: idOf(name), "aria-labelledby": `${idOf(name)}-title` },
      h("h2", { id: `${idOf(name)}-title` }, name), h("p", { className: "dim" }, description));
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, found] of Object.entries(methods)) {
        if (!(found.tags || []).includes(name)) continue;
        const element = route(method, path, found);
        section.append(element);
        shown.push({ element, section, text: textOf(method, path, found) });
      }
    }
    return section;
  });
  $("routes").replaceChildren(...sections);
  $("sections").replaceChildren(...(api.tags || []).map(({ name }) => h("a", { href: `#${idOf(name)}` }, name)));
  search();
  openNamed();
}

function search() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const each of shown) each.element.hidden = !words.every((word) => each.text.includes(word));
  for (const section of new Set(shown.map((each) => each.section))) {
    section.hidden = shown.every((each) => each.section !== section || each.element.hidden);
  }
  const left = shown.filter((each) => !each.element.hidden).length;
  $("found").textContent = !words.length ? `${shown.length} routes` : left ? `${left} of ${shown.length} routes` : "No route has these words.";
}

// A link to a route opens it.
function openNamed() {
  const named = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!named) return;
  if (named.tagName === "DETAILS") named.open = true;
  named.scrollIntoView({ block: "start" });
}

async function load() {
  const reply = await fetch(at("/openapi.json"), { headers: headers(), credentials: "omit" });
  $("access").hidden = reply.status !== 401 && !key();
  if (reply.status === 401) {
    $("routes").replaceChildren(h("p", {}, key() ? "This server does not accept that key." : "This server asks for an API key."));
    $("key").focus();
    return;
  }
  api = await reply.json();
  $("version").textContent = api.info.version;
  render();
}

$("access").addEventListener("submit", (event) => { event.preventDefault(); keepKey($("key").value.trim()); load(); });
$("search").addEventListener("input", search);
addEventListener("hashchange", openNamed);
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || /^(INPUT|TEXTAREA)$/.test(event.target.tagName)) return;
  event.preventDefault();
  $("search").focus();
});
load().catch((error) => $("routes").replaceChildren(`The schema can't be read: ${error.message}`));
