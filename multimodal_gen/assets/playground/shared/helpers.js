"use strict";
// State that all parts share, and small helpers.

const form = $("form");
const KEY = "multimodal_gen.key";
const FINAL = ["completed", "failed", "cancelled"];
const PAGE = 40;
const SILENCE_MS = 40000;
const NUMBERS = ["width", "height", "num_inference_steps", "guidance_scale", "guidance_scale_2", "true_cfg_scale",
  "num_frames", "fps", "flow_shift", "max_sequence_length", "strength", "seed"];
const CHOICES = () => [["scheduler", model.schedulers], ["noise_schedule", model.noise_schedules]];
const ALIASES = { size: "width", num_outputs_per_prompt: "n", input_reference: "image", images: "image", seconds: "num_frames" };

let model = null;        // ModelInfo, with `loras`
let phase = "connecting";
let jobs = [];           // newest first
let staged = null;       // id of the job on the stage
let lastSeed = null;
let sizeTouched = false;
let sizeOfExtended = false;  // it goes with the picture
let offline = true;
const previews = new Map();  // job id -> {output index: data URL}
const deleted = new Set();
const tiles = new Map();
const given = { image: null, last_image: null, mask: null, video: null };  // data URLs
const more = [];  // data URLs of images after the first

// What other parts listen to: "model" (its info came), "event" (one of the server's), "job" (it is
// new or changed), "jobs" (the list changed), "sent" (a request was accepted), "tab" (another one is shown).
const news = new EventTarget();
const tell = (name, detail) => news.dispatchEvent(new CustomEvent(name, { detail }));
const hear = (name, act) => news.addEventListener(name, (event) => act(event.detail));
// What other parts add to: fields of a request, and buttons at a result, as functions.
const bodyParts = [];    // (body) => sets its fields
const viewerActs = [];   // (job, output index) => an element or null
const tileActs = [];     // (job, output index) => an element or null

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", "#i-" + name);
  svg.append(use);
  return svg;
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const here = (path) => new URL(path, document.baseURI).href;
const fileUrl = (url) => here(url.slice(url.indexOf("/files/") + 1));
const makesVideos = () => model !== null && model.tasks.some((task) => task.endsWith("-to-video"));
const takes = (...tasks) => model !== null && model.tasks.some((task) => tasks.includes(task));
const startsFromVideo = () => model !== null && model.parameters.includes("video_path") && model.defaults.strength !== null;
const largestSide = () => model.limits.largest_side || model.limits.max_side;
const takesImages = () => takes("image-to-image", "inpainting", "image-edit", "image-to-video", "reference-to-video");
const isDone = (job) => FINAL.includes(job.status);
const nounOf = (job) => (job.kind === "video" ? "video" : "image");

function stored() { try { return localStorage.getItem(KEY) || ""; } catch { return ""; } }
function store(key) { try { key ? localStorage.setItem(KEY, key) : localStorage.removeItem(KEY); } catch { memoryKey = key; } }
let memoryKey = "";
const apiKey = () => stored() || memoryKey;

function randomHex() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function span(seconds) {
  if (seconds < 1) return t("less than 1 s");
  const whole = Math.round(seconds);
  if (whole < 60) return t("{s} s", { s: whole });
  if (whole < 3600) return t("{min} min {s} s", { min: Math.floor(whole / 60), s: whole % 60 });
  return t("{h} h {min} min", { h: Math.floor(whole / 3600), min: Math.floor((whole % 3600) / 60) });
}

let toastTimer = 0;
function toast(text) {
  $("toast").textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").textContent = ""; }, 5000);
}
const say = (text) => { $("live").textContent = text; };

function complain(text) {
  $("error").hidden = !text;
  $("error").firstElementChild.textContent = text || "";
  if (text) $("error").scrollIntoView({ block: "nearest" });
}
$("error").querySelector("button").addEventListener("click", () => { complain(""); $("prompt").focus(); });
