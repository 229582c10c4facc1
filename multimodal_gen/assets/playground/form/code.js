"use strict";
// The request as curl and as Python.

const shell = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;

function python(value, indent = "") {
  if (Array.isArray(value)) return `[${value.map((each) => python(each)).join(", ")}]`;
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  return `{\n${Object.entries(value).map(([name, each]) => `${inner}${JSON.stringify(name)}: ${each instanceof Code ? each.text : python(each, inner)},\n`).join("")}${indent}}`;
}
class Code { constructor(text) { this.text = text; } }

function plan() {
  const body = asked();
  const video = makesVideos();
  if (!video) body.response_format = "file";
  const files = {};
  if (given.image) files[video ? "input_reference" : "image"] = more.length ? ["picture.png", ...more.map((_, i) => `picture-${i + 2}.png`)] : "picture.png";
  if (given.mask) files.mask = "mask.png";
  if (given.last_image) files.last_image = "last.png";
  if (given.video) files.video = "input.mp4";
  const target = video ? "video.mp4" : body.n > 1 ? "pictures.zip" : "out.png";
  return { body, files, target, url: here(routeOf(false)) };
}

function asCurl() {
  const { body, files, target, url } = plan();
  const lines = [`curl -sS --fail-with-body ${shell(url)}`];
  if (apiKey()) lines.push('-H "Authorization: Bearer $API_KEY"');
  if (Object.keys(files).length) {
    for (const [name, value] of Object.entries(flat(body))) lines.push(`--form-string ${shell(`${name}=${value}`)}`);
    for (const [name, file] of Object.entries(files)) for (const each of [file].flat()) lines.push(`-F ${shell(`${name}${each === file ? "" : "[]"}=@${each}`)}`);
  } else {
    lines.push("-H 'Content-Type: application/json'", `--data-raw ${shell(JSON.stringify(body))}`);
  }
  lines.push(`-o ${target}`);
  return `${lines.join(" \\\n  ")}\n`;
}

function flat(body) {
  const fields = {};
  for (const [name, value] of Object.entries(body)) {
    if (Array.isArray(value)) value.forEach((each, i) => { for (const [part, of] of Object.entries(each)) fields[`${name}[${i}][${part}]`] = of; });
    else fields[name] = value;
  }
  return fields;
}

function asPython() {
  const { body, files, target, url } = plan();
  const imports = ["import json", "import urllib.request"];
  if (apiKey()) imports.splice(1, 0, "import os");
  const lines = [];
  if (Object.keys(files).length) {
    imports.unshift("import base64");
    lines.push("", "def picture(path):", "    with open(path, \"rb\") as file:",
      "        return {\"image_url\": \"data:;base64,\" + base64.b64encode(file.read()).decode()}", "");
    const opened = (file) => `picture(${JSON.stringify(file)})`;
    for (const [name, file] of Object.entries(files)) body[name] = new Code(Array.isArray(file) ? `[${file.map(opened).join(", ")}]` : opened(file));
  }
  const headers = [`"Content-Type": "application/json"`];
  if (apiKey()) headers.push(`"Authorization": "Bearer " + os.environ["API_KEY"]`);
  lines.push("", `body = ${python(body)}`, `headers = {${headers.join(", ")}}`,
    `request = urllib.request.Request(${JSON.stringify(url)}, json.dumps(body).encode(), headers)`,
    "with urllib.request.urlopen(request) as reply, open(" + JSON.stringify(target) + ", \"wb\") as file:", "    file.write(reply.read())");
  return `${[...imports, ...lines].join("\n")}\n`;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Only pages from https or from localhost can use the clipboard.
    const area = h("textarea", { value: text, className: "unseen" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(t("Copied."));
}
for (const [id, text] of [["copy-curl", asCurl], ["copy-python", asPython]]) {
  $(id).addEventListener("click", async () => { if (model && isValid()) { await copy(text()); $(id).focus(); } });
}
