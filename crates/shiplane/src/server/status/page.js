
"use strict";

const INTERVAL_MS = 1000;
const TIMEOUT_MS = 5000;

const CLASSES = {
  usage: "wrong use",
  unreachable: "peer gone or silent",
  identity: "not authorised",
  integrity: "damaged data",
  refused: "refused",
  local_io: "disk or system failed",
  left_out: "some paths left out",
  interrupted: "interrupted",
  other: "other failure",
};

const BUDGETS = {
  chunks: "chunks in flight",
  compressed_chunks: "compressed chunks",
  entries: "listed entries",
  block_signatures: "block signatures",
  lists_of_datasets: "lists of own datasets",
  lists_of_peers: "lists from peers",
  journals: "journals of earlier runs",
  receive_windows: "received, not read yet",
  send_windows: "sent, not acknowledged",
  calls: "bodies of calls",
};

const $ = (id) => document.getElementById(id);

/* Text is only ever set as text: nothing that a peer says becomes markup. */
function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${unit === 0 || count >= 100 ? Math.round(count) : count.toFixed(count >= 10 ? 1 : 2)} ${units[unit]}`;
}

function time(seconds) {
  const whole = Math.round(seconds);
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([length]) => whole >= length);
  if (first < 0) return "0 s";
  const [length, unit] = parts[first];
  const rest = Math.floor((whole % length) / (parts[first + 1]?.[0] ?? 1));
  const more = first < parts.length - 1 && rest > 0 ? ` ${rest} ${parts[first + 1][1]}` : "";
  return `${Math.floor(whole / length)} ${unit}${more}`;
}

const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
const who = (peer) => peer.name ?? peer.id ?? peer.peer;

function bar(value, max, words) {
  const progress = make("progress");
  progress.setAttribute("aria-label", words);
  if (max !== null) {
    progress.max = Math.max(max, 1);
    progress.value = Math.min(value, max);
  }
  return progress;
}

function job(peer, { job, path, moved_bytes, total_bytes, bytes_per_second, limited_by, seconds }) {
  const what = [make("span", "word", job), who(peer)];
  if (path !== null) what.push(make("span", "quiet", ` ${path || "everything"}`));
  const row = make("li", "", make("span", "", ...what), make("span", "end", `${bytes(bytes_per_second)}/s`));
  const percent = total_bytes > 0 ? Math.floor((100 * Math.min(moved_bytes, total_bytes)) / total_bytes) : 0;
  row.append(bar(moved_bytes, total_bytes, `${job} by ${who(peer)}`));
  const moved = total_bytes === null ? `${bytes(moved_bytes)} moved` : `${bytes(moved_bytes)} of ${bytes(total_bytes)}, ${percent} %`;
  const left = total_bytes !== null && bytes_per_second > 0 && total_bytes > moved_bytes
    ? `${time((total_bytes - moved_bytes) / bytes_per_second)} left`
    : `for ${time(seconds)}`;
  const limit = limited_by === null ? "" : ` · limited by ${limited_by}`;
  row.append(make("span", "quiet", moved + limit), make("span", "quiet end", left));
  return row;
}

function peer(peer) {
  const { id, name, address, route, rtt_seconds, sent_packets, lost_packets, datagram_bytes, jobs } = peer;
  const shown = make("span", "", make("b", "", who(peer)));
  if (name !== null) shown.append(make("span", "quiet", ` ${id}`));
  const loss = sent_packets > 0 ? (100 * lost_packets) / sent_packets : 0;
  const path = `${(1000 * rtt_seconds).toFixed(rtt_seconds < 0.01 ? 1 : 0)} ms, ${loss.toFixed(loss < 1 ? 2 : 1)} % lost, packets of ${datagram_bytes} B`;
  return make("li", "",
    shown, make("span", "end quiet", jobs.length === 0 ? "idle" : count(jobs.length, "job")),
    make("span", "quiet wide", `${address} (${route}) · ${path}`));
}

function failure(failure) {
  const { seconds_ago, job, class: kind, side, path, message } = failure;
  const row = make("li", "",
    make("span", "", make("span", "word failed", job), `${CLASSES[kind] ?? kind} · ${who(failure)}`),
    make("span", "end quiet", `${time(seconds_ago)} ago`));
  const more = path === null ? `cause: ${side}` : `${path ? `${path}: ` : ""}${message}`;
  row.append(make("span", "quiet wide", more));
  return row;
}

function budget({ name, used_bytes, limit_bytes }) {
  const words = BUDGETS[name] ?? name;
  const full = bar(used_bytes, limit_bytes, words);
  if (used_bytes >= 0.9 * limit_bytes) full.className = "full";
  return make("li", "",
    make("span", "", words), full,
    make("span", "end quiet", `${bytes(used_bytes)} of ${bytes(limit_bytes)}`));
}

function fill(id, rows, empty, more = 0) {
  const all = rows.length > 0 ? rows : [make("li", "quiet", empty)];
  if (more > 0) all.push(make("li", "quiet", `and ${more} more`));
  $(id).replaceChildren(...all);
}

let before = null;

function show(status, now) {
  const { peers, peers_total, failures, memory, moved, completed, is_draining } = status;
  const jobs = peers.flatMap((peer) => peer.jobs.map((one) => job(peer, one)));
  $("state").textContent = is_draining ? "draining" : "serving";
  $("state").className = `state ${is_draining ? "draining" : "serving"}`;
  $("about").textContent = `version ${status.version} · up ${time(status.uptime_seconds)} · ${status.address} · ${status.peer_id}`;
  $("peers-total").textContent = peers_total;
  $("peers-word").textContent = peers_total === 1 ? "peer" : "peers";
  $("jobs-total").textContent = jobs.length;
  if (before !== null && now > before.now) {
    const rate = (direction) => `${bytes(Math.max(0, moved[direction] - before.moved[direction]) / (now - before.now))}/s`;
    $("sent-rate").textContent = rate("sent");
    $("received-rate").textContent = rate("received");
  }
  before = { now, moved };
  for (const direction of ["sent", "received"]) {
    $(direction).textContent = bytes(moved[direction]);
    $(`${direction}-count`).textContent = `${direction} · ${completed[direction]} done`;
  }
  document.title = jobs.length > 0 ? `(${jobs.length}) shiplane` : "shiplane";
  fill("jobs", jobs, "Nothing moves.");
  fill("peers", peers.map(peer), "No peer is connected.", peers_total - peers.length);
  fill("failures", failures.map(failure), "None since the server started.");
  fill("memory", memory.map(budget), "Nothing is counted.");
}

async function refresh() {
  if (document.hidden) return;
  const lost = $("lost");
  try {
    const response = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    show(await response.json(), Date.now() / 1000);
    lost.hidden = true;
  } catch (error) {
    lost.textContent = `The server does not answer (${error.message}). What is shown may be old.`;
    lost.hidden = false;
    $("state").textContent = "no answer";
    $("state").className = "state";
  }
}

async function run() {
  await refresh();
  setTimeout(run, INTERVAL_MS);
}

document.addEventListener("visibilitychange", refresh);
run();
