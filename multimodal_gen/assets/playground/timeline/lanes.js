"use strict";
// What the scheduler did with each request, from the server's events: lanes of segments in time.

const MAX_LANES = 200;
const MAX_SEGMENTS = 400;  // of one lane
const lanes = new Map();   // job id -> { id, name, priority, segments: [{ kind, size, start, end }], end }
const crowd = [];          // [time, number of other people's requests]
const clock = () => performance.now() / 1000;

// What happens with a job: waiting, encode, denoise, interrupted, decode, or how it ended.
function doing(job) {
  const { progress } = job;
  if (isDone(job)) return [job.status, 0];
  if (job.status === "queued" || !progress || progress.queue_position > 0 || !progress.phase) return ["waiting", 0];
  if (progress.phase === "denoise" && !progress.batch_size) return [progress.step ? "interrupted" : "waiting", 0];
  return [progress.phase === "enhance" ? "encode" : progress.phase, progress.batch_size];
}

function noteLane(job) {
  const now = clock();
  let lane = lanes.get(job.id);
  if (!lane) {
    if (isDone(job)) return null;  // it ended before this page looked
    lane = { id: job.id, name: job.parameters.prompt, priority: job.parameters.priority || "normal", segments: [], end: null };
    lanes.set(job.id, lane);
    if (lanes.size > MAX_LANES) lanes.delete(lanes.keys().next().value);
  }
  if (lane.end !== null) return lane;
  const [kind, size] = doing(job);
  const last = lane.segments.at(-1);
  if (last) last.end = now;
  if (isDone(job)) { Object.assign(lane, { end: now, state: kind }); return lane; }
  lane.state = kind;
  if (!last || last.kind !== kind || last.size !== size) lane.segments.push({ kind, size, start: now, end: now });
  if (lane.segments.length > MAX_SEGMENTS) lane.segments.splice(1, 1);
  return lane;
}

function dropLane(id) {
  const lane = lanes.get(id);
  if (lane && lane.end === null) Object.assign(lane, { end: clock(), state: "cancelled" });
  if (lane?.segments.length) lane.segments.at(-1).end = lane.end;
}

function noteCrowd(others) {
  if (crowd.length ? crowd.at(-1)[1] === others : !others) return;
  crowd.push([clock(), others]);
  if (crowd.length > 500) crowd.shift();
}

const endOf = (lane, segment, now) => (lane.end === null && segment === lane.segments.at(-1) ? now : segment.end);
const aliveLanes = () => Array.from(lanes.values()).filter((lane) => lane.end === null);

// Seconds of a lane by kind.
function spentBy(lane, now = clock()) {
  const spent = {};
  for (const segment of lane.segments) spent[segment.kind] = (spent[segment.kind] || 0) + endOf(lane, segment, now) - segment.start;
  return spent;
}

// Mean number of requests that shared a step of this one, by time.
function meanSize(lane, now = clock()) {
  let [whole, sum] = [0, 0];
  for (const segment of lane.segments.filter(({ kind }) => kind === "denoise")) {
    const time = endOf(lane, segment, now) - segment.start;
    whole += time;
    sum += time * segment.size;
  }
  return whole ? sum / whole : 0;
}

// The present, in one sentence.
function scene() {
  const alive = aliveLanes();
  const all = (kind) => alive.filter((lane) => lane.state === kind);
  const [shared, stopped, waits] = [all("denoise"), all("interrupted"), all("waiting")];
  const size = Math.max(0, ...shared.map((lane) => lane.segments.at(-1).size));
  const said = [];
  if (size > 1) said.push(t("{count} requests share each step: one run of the model advances them all.", { count: size }));
  else if (size === 1) said.push(t("“{prompt}” has the model to itself.", { prompt: cut(shared[0].name) }));
  else if (all("encode").length) said.push(t("Prompts are encoded."));
  else if (all("decode").length) said.push(t("Pixels are decoded."));
  if (stopped.length) said.push(stopped.length === 1 ? t("“{prompt}” is interrupted and continues afterwards, where it was.", { prompt: cut(stopped[0].name) }) : t("{count} are interrupted and continue afterwards, where they were.", { count: stopped.length }));
  if (waits.length) said.push(waits.length === 1 ? t("1 waits.") : t("{count} wait.", { count: waits.length }));
  return said.join(" ") || (lanes.size ? t("Nothing runs now.") : t("Each request that you send gets a lane here: when it waits, shares steps with others, is interrupted and is done."));
}
const cut = (text) => (text.length > 40 ? `${text.slice(0, 39)}…` : text);
