"use strict";
// Sends a request to a route, and shows the reply.

let memoryKey = "";
function key() { try { return sessionStorage.getItem("multimodal_gen.docs_key") || memoryKey; } catch { return memoryKey; } }
function keepKey(value) { memoryKey = value; try { sessionStorage.setItem("multimodal_gen.docs_key", value); } catch { /* this page remembers it */ } }
const headers = () => (key() ? { authorization: "Bearer " + key() } : {});
const at = (path) => here + path;

async function showReply(reply, into) {
  const kind = reply.headers.get("content-type") || "";
  into.replaceChildren(h("p", {}, `${reply.status} ${reply.statusText} · ${kind}`));
  if (/^(image|video)\//.test(kind)) {
    const source = URL.createObjectURL(await reply.blob());
    into.append(kind.startsWith("image") ? h("img", { src: source, alt: "The image of the reply" }) : h("video", { src: source, controls: true }));
    return;
  }
  const text = await reply.text();
  let shown = text;
  try {
    const body = JSON.parse(text);
    for (const each of body.data || []) {
      if (each.b64_json) into.append(h("img", { alt: "An image of the reply", src: `data:image/${body.output_format || "png"};base64,${each.b64_json}` }));
    }
    shown = JSON.stringify(body, (_, value) => (typeof value === "string" && value.length > 500 ? `${value.slice(0, 100)}… (${value.length} characters)` : value), 2);
  } catch { /* not JSON */ }
  into.append(h("pre", { tabIndex: 0 }, shown.slice(0, 100000)));
}

function exampleBody(found) {
  const source = ((found["x-codeSamples"] || [])[0] || {}).source || "";
  const body = /-d '([^]*)'/.exec(source);
  return body && !body[1].includes("$") ? body[1] : "{}";
}

function trial(method, path, found) {
  const parameters = found.parameters || [], body = found.requestBody;
  const json = body && body.content["application/json"];
  if (body && !json) return h("p", { className: "dim" }, "Takes a form: see the example.");
  const inputs = parameters.map((each) => ({ ...each, input: h("input", {}) }));
  const text = json ? h("textarea", { value: exampleBody(found), spellcheck: false, "aria-label": "JSON body" }) : null;
  const answer = h("div", { "aria-live": "polite" });
  const send = h("button", { type: "button", className: "main" }, "Send");
  send.addEventListener("click", async () => {
    const query = new URLSearchParams();
    let target = path;
    for (const { name, in: place, input } of inputs.filter((each) => each.input.value)) {
      if (place === "path") target = target.replace(`{${name}}`, input.value.split("/").map(encodeURIComponent).join("/"));
      else query.set(name, input.value);
    }
    const options = { method: method.toUpperCase(), headers: headers(), credentials: "omit" };
    if (text) { options.body = text.value; options.headers["content-type"] = "application/json"; }
    send.disabled = true;
    answer.replaceChildren("…");
    try { await showReply(await fetch(at(target) + (query.size ? `?${query}` : ""), options), answer); }
    catch (error) { answer.replaceChildren(`The server did not answer: ${error.message}`); }
    finally { send.disabled = false; }
  });
  return h("div", { className: "trial" }, h("h3", {}, "Try it"), ...inputs.map((each) => h("label", {}, each.name, each.input)), text, h("div", { className: "row" }, send), answer);
}
