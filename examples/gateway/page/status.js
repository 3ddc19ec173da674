// The status page: shows what /stats tells, at once when /events says that something happened.
// Whatever agents say about themselves is set as text, never as markup.
"use strict";

const POLL_MS = 2000; // between two looks at the counts
const SOON_MS = 150; // events that come together are one look
const PATIENCE_MS = 10000;
const SHOT_MS = 5000; // between two screenshots of a desktop in view, and for how long one is waited for
const SHOTS = 3; // at once: a browser has six connections to a host, and the counts and the events want theirs
const PICTURES = ["image/png", "image/jpeg", "image/webp"]; // none that is a document, with scripts, of this origin
const PAGE = 50; // rows at a time
const POINTS = 30; // of a sparkline: a minute
const MAX_EVENTS = 12;
const DESKTOP = "desktop-";

const by = (id) => document.getElementById(id);
const say = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

// --- words -----------------------------------------------------------------

const bytes = (n) => {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 999.5 && unit < units.length - 1) {
    n /= 1000;
    unit += 1;
  }
  return `${n < 10 && unit > 0 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
};

const span = (seconds) => {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
};

const trip = (seconds) => {
  if (seconds === null) return "–";
  const ms = seconds * 1000;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
};

const STATES = { connected: "Connected", grace: "In grace", draining: "Draining" };

// --- a row -----------------------------------------------------------------

class Row {
  constructor(key) {
    const node = by("row").content.cloneNode(true).firstElementChild;
    this.node = node;
    this.key = key;
    this.find = (selector) => node.querySelector(selector);
    const title = this.find("h3");
    title.textContent = key;
    title.id = `key-${key}`;
    node.dataset.key = key;
    node.setAttribute("aria-labelledby", title.id);
    this.button = this.find(".watch");
    this.find(".whom").textContent = ` ${key}`;
    this.find("canvas").setAttribute("aria-label", `Live picture of ${key}`);
    if (key.startsWith(DESKTOP)) {
      this.base = `/api/v1/external-agents/${encodeURIComponent(key.slice(DESKTOP.length))}`;
      this.shot = new Shot(this);
      this.viewer = new Viewer(this);
      this.find(".door a").href = `${this.base}/screenshot`;
      this.button.addEventListener("click", () => this.viewer.toggle());
    } else {
      this.button.hidden = true;
    }
  }

  show(agent, at) {
    this.agent = agent;
    this.at = at;
    this.state = agent.state === "connected" && agent.draining_sessions > 0 ? "draining" : agent.state;
    this.node.dataset.state = this.state;
    const badge = this.find(".badge");
    badge.dataset.state = this.state;
    say(badge, STATES[this.state] ?? this.state);
    say(this.find(".version"), agent.version);
    say(this.find(".peer dd"), agent.peer ?? "–");
    say(this.find(".protocol dd"), agent.protocol);
    say(this.find(".epoch dd"), `epoch ${agent.epoch}`);
    this.labels(agent.labels);
    say(this.find(".rtt dd"), trip(agent.rtt_seconds));
    say(this.find(".open dd"), String(agent.streams) + (agent.pending_dials ? `, ${agent.pending_dials} wait` : ""));
    say(this.find(".up"), bytes(agent.sent_bytes));
    say(this.find(".down"), bytes(agent.received_bytes));
    say(this.find(".back dd"), String(agent.reconnects));
    say(this.find(".cause dd"), agent.last_cause ?? "–");
    this.tick();
    this.viewer?.tell();
  }

  labels(labels) {
    const texts = Object.entries(labels).map(([name, value]) => `${name}: ${value}`);
    const list = this.find(".labels");
    if (texts.join("\n") === this.texts) return;
    this.texts = texts.join("\n");
    list.replaceChildren(...texts.map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      item.title = text;
      return item;
    }));
  }

  // What changes between two looks: times.
  tick() {
    const past = (performance.now() - this.at) / 1000;
    const since = this.agent.since_seconds + past;
    if (this.agent.grace_left_seconds === null) {
      say(this.find(".since"), `for ${span(since)}`);
      return;
    }
    const left = Math.max(0, this.agent.grace_left_seconds - past);
    say(this.find(".since"), `for ${span(since)}, ${Math.ceil(left)} s left`);
    this.find(".left i").style.width = `${(100 * left) / (left + since)}%`;
  }

  drop() {
    this.shot?.stop();
    this.viewer?.close();
    this.node.remove();
  }
}

// --- a desktop's screenshot, and its stream --------------------------------

const inView = new IntersectionObserver((entries) => {
  for (const entry of entries) rows.get(entry.target.dataset.key)?.shot?.seen(entry.isIntersecting);
});

// Whoever may ask for a screenshot, and those who wait for that.
const shots = { running: 0, waiting: [] };

async function inTurn(take) {
  if (shots.running === SHOTS) await new Promise((go) => shots.waiting.push(go));
  else shots.running += 1;
  try {
    await take();
  } finally {
    const go = shots.waiting.shift();
    if (go) go();
    else shots.running -= 1;
  }
}

class Shot {
  constructor(row) {
    this.row = row;
    this.image = row.find(".shot img");
    this.image.alt = `Screenshot of ${row.key}`;
    this.visible = false;
    this.stopped = new AbortController();
    inView.observe(row.node);
  }

  seen(visible) {
    this.visible = visible;
    if (visible && this.timer === undefined) this.take();
  }

  // One after the other; none of a desktop in grace, since it would wait there.
  async take() {
    this.timer = null;
    try {
      await inTurn(() => this.show());
    } catch {
      // The last one stays.
    }
    if (!this.stopped.signal.aborted) this.timer = setTimeout(() => this.take(), SHOT_MS);
  }

  async show() {
    if (!this.visible || document.hidden || this.row.state !== "connected") return;
    const signal = AbortSignal.any([this.stopped.signal, AbortSignal.timeout(SHOT_MS)]);
    const answer = await fetch(`${this.row.base}/screenshot`, { signal, cache: "no-store", priority: "low" });
    const picture = await answer.blob();
    if (!answer.ok || !PICTURES.includes(picture.type)) return;
    const next = new Image();
    next.src = URL.createObjectURL(picture);
    try {
      await next.decode();
      signal.throwIfAborted();
    } catch (why) {
      URL.revokeObjectURL(next.src);
      throw why;
    }
    this.forget();
    this.image.src = next.src;
    this.image.hidden = false;
  }

  forget() {
    if (this.image.src) URL.revokeObjectURL(this.image.src);
  }

  stop() {
    this.stopped.abort();
    clearTimeout(this.timer);
    this.visible = false;
    this.forget();
    inView.unobserve(this.row.node);
  }
}

class Viewer {
  constructor(row) {
    this.row = row;
    this.panel = row.find(".live");
    this.canvas = row.find("canvas");
    this.words = row.find(".say");
    this.panel.id = `live-${row.key}`;
    row.button.setAttribute("aria-controls", this.panel.id);
  }

  toggle() {
    if (this.open) {
      watched.delete(this.row.key);
      this.close();
    } else {
      watched.add(this.row.key);
      this.watch();
    }
  }

  watch() {
    this.open = true;
    this.frames = 0;
    this.recent = [];
    this.panel.hidden = false;
    this.row.button.setAttribute("aria-expanded", "true");
    say(this.row.find(".word"), "Close");
    this.connect();
  }

  close() {
    this.open = false;
    this.socket?.close();
    clearTimeout(this.again);
    this.panel.hidden = true;
    this.row.button.setAttribute("aria-expanded", "false");
    say(this.row.find(".word"), "Watch");
  }

  connect() {
    const url = new URL(`${this.row.base}/ws/stream?frames=png`, location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    this.socket = socket;
    socket.binaryType = "blob";
    socket.onmessage = (message) => this.take(message.data);
    socket.onclose = () => {
      if (!this.open || this.socket !== socket) return;
      this.socket = null;
      this.tell();
      this.again = setTimeout(() => this.connect(), POLL_MS);
    };
    this.tell();
  }

  // Of frames that come faster than they are painted the newest is.
  async take(frame) {
    this.newest = frame;
    if (this.painting) return;
    this.painting = true;
    while (this.newest !== undefined && this.open) {
      const next = this.newest;
      this.newest = undefined;
      try {
        await this.paint(next);
      } catch {
        // No picture; the next may be one.
      }
    }
    this.painting = false;
    if (performance.now() - (this.told ?? 0) > 500) this.tell();
  }

  async paint(frame) {
    const context = this.canvas.getContext("2d");
    if (typeof frame === "string") {
      const { width, height } = this.canvas;
      context.fillStyle = "#10131a";
      context.fillRect(0, 0, width, height);
      context.fillStyle = "#e9ecf2";
      context.font = "28px system-ui, sans-serif";
      context.textAlign = "center";
      context.fillText(frame.slice(0, 60), width / 2, height / 2);
    } else {
      const picture = await createImageBitmap(frame);
      if (this.canvas.width !== picture.width || this.canvas.height !== picture.height) {
        this.canvas.width = picture.width;
        this.canvas.height = picture.height;
      }
      context.drawImage(picture, 0, 0);
      picture.close();
    }
    this.frames += 1;
    const now = performance.now();
    const size = typeof frame === "string" ? frame.length : frame.size;
    this.recent = this.recent.filter(({ at }) => now - at < 2000).concat({ at: now, size });
    this.canvas.dataset.frames = String(this.frames);
  }

  tell() {
    if (!this.open) return;
    this.told = performance.now();
    const recent = this.recent.filter(({ at }) => performance.now() - at < 2000);
    const rate = recent.reduce((sum, { size }) => sum + size, 0) / 2;
    say(this.row.find(".size dd"), this.frames ? `${this.canvas.width} × ${this.canvas.height}` : "–");
    say(this.row.find(".pace dd"), `${(recent.length / 2).toFixed(0)} frames/s, ${bytes(rate)}/s`);
    if (this.row.state === "grace") say(this.words, "Paused: the stream goes on when the sandbox is back.");
    else if (this.socket === null) say(this.words, "The stream has ended; trying again.");
    else if (this.frames === 0) say(this.words, "Waiting for the first frame.");
    else say(this.words, "Live through the tunnel.");
  }
}

// --- the fleet -------------------------------------------------------------

const rows = new Map();
const watched = new Set(); // keys, also of rows that are away for a while
const cursors = []; // of the pages before this one
let after = "";
let next = null;
let before = null; // the counts of the last look, for rates
const history = { sent: [], received: [] };

function query() {
  const asked = new URLSearchParams({ limit: PAGE });
  if (after) asked.set("after", after);
  if (by("find").value.trim()) asked.set("q", by("find").value.trim());
  if (by("state").value) asked.set("state", by("state").value);
  return asked;
}

let looking = null;
let timer;
let due = Infinity;

// The next look is then, unless one is sooner.
function plan(ms) {
  const at = performance.now() + ms;
  if (document.hidden || at >= due) return;
  clearTimeout(timer);
  due = at;
  timer = setTimeout(look, ms);
}

async function look() {
  clearTimeout(timer);
  due = Infinity;
  if (looking) return plan(SOON_MS); // one after the other, however much happens
  const mine = (looking = new AbortController());
  try {
    const signal = AbortSignal.any([mine.signal, AbortSignal.timeout(PATIENCE_MS)]);
    const answer = await fetch(`/stats?${query()}`, { signal });
    if (answer.status === 401) location.reload(); // the form for the token
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
    document.body.classList.toggle("stale", link === "reconnecting");
  } catch {
    if (!mine.signal.aborted) document.body.classList.add("stale");
  }
  if (looking === mine) looking = null;
  plan(POLL_MS);
}

// Another question: the answer to the one before is of no use.
function ask() {
  looking?.abort();
  looking = null;
  look();
}

function show(stats) {
  const at = performance.now();
  say(by("connected"), String(stats.active_connections));
  say(by("grace"), String(stats.grace_period_entries));
  say(by("pending"), String(stats.pending_dials_total));
  const keys = stats.pending_dials_keys;
  say(by("pending-keys"), keys ? `for ${keys} ${keys === 1 ? "sandbox" : "sandboxes"}` : "");
  say(by("streams"), String(stats.streams));
  rates(stats, at);
  gateway = stats.gateway;
  say(by("about"), `${gateway.version} · up ${span(gateway.uptime_seconds)}`);
  pill();
  list(stats, at);
}

function rates(stats, at) {
  const seconds = before ? (at - before.at) / 1000 : 0;
  if (before && seconds < 0.5) return;
  for (const way of ["sent", "received"]) {
    const now = stats[`${way}_bytes`];
    // A session that has gone takes its bytes along.
    const rate = before && seconds > 0 ? Math.max(0, now - before[way]) / seconds : 0;
    history[way].push(rate);
    if (history[way].length > POINTS) history[way].shift();
    say(by(way), `${bytes(rate)}/s`);
    spark(by(`${way}-spark`), history[way]);
  }
  before = { at, sent: stats.sent_bytes, received: stats.received_bytes };
}

function spark(svg, values) {
  const most = Math.max(...values, 1000); // signs of life are no peaks
  const x = (place) => 120 - (values.length - 1 - place) * (120 / (POINTS - 1));
  const points = values.map((value, place) => `${x(place).toFixed(1)},${(27 - (value / most) * 24).toFixed(1)}`);
  svg.querySelector("polyline").setAttribute("points", points.join(" "));
  svg.querySelector("polygon").setAttribute("points", `${x(0)},28 ${points.join(" ")} 120,28`);
}

function list(stats, at) {
  const shown = new Set(stats.agents.map((agent) => agent.key));
  for (const [key, row] of rows) {
    if (!shown.has(key)) {
      row.drop();
      rows.delete(key);
    }
  }
  let place = by("rows").firstElementChild;
  for (const agent of stats.agents) {
    let row = rows.get(agent.key);
    if (!row) {
      row = new Row(agent.key);
      rows.set(agent.key, row);
    }
    row.show(agent, at);
    if (watched.has(agent.key) && !row.viewer.open) row.viewer.watch();
    if (row.node === place) place = place.nextElementSibling;
    else by("rows").insertBefore(row.node, place);
  }
  next = stats.next;
  say(by("count"), stats.matching === stats.agents.length ? String(stats.matching) : `${stats.agents.length} of ${stats.matching}`);
  by("empty").hidden = stats.agents.length > 0;
  const chosen = by("find").value.trim() || by("state").value;
  say(by("empty"), chosen ? "No sandbox is like that." : "No sandbox has dialled in yet.");
  by("pages").hidden = next === null && cursors.length === 0;
  by("more").disabled = next === null;
  by("back").disabled = cursors.length === 0;
}

// --- whether the page is live ----------------------------------------------

let gateway = null;
let source = null;
let link = "connecting";
let retry;

function pill() {
  const state = link === "live" && gateway?.draining ? "draining" : link;
  const words = { connecting: "Connecting…", live: "Live", reconnecting: "Reconnecting…", draining: "Draining" };
  by("link").dataset.state = state;
  say(by("link"), words[state]);
}

function listen() {
  clearTimeout(retry);
  source?.close();
  source = new EventSource("/events");
  source.addEventListener("listening", () => {
    link = "live";
    pill();
    look();
  });
  source.onerror = () => {
    link = "reconnecting";
    pill();
    document.body.classList.add("stale");
    // After an answer that is no stream the browser does not come back by itself.
    if (source.readyState === EventSource.CLOSED) retry = setTimeout(listen, POLL_MS);
  };
  for (const name of Object.keys(HAPPENED)) {
    source.addEventListener(name, (event) => happened(name, JSON.parse(event.data)));
  }
}

const seconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
const HAPPENED = {
  connected: ["good", "Connected", (told) => told.version],
  reconnected: ["good", "Reconnected", (told) => `after ${seconds(told.after_seconds)}, as a new session`],
  resumed: ["good", "Resumed", (told) => (told.after_seconds === null ? "on a new link" : `after ${seconds(told.after_seconds)}, streams go on`)],
  draining: ["pause", "Draining", () => "finishes what runs"],
  lost: ["pause", "Lost", (told) => [told.cause, told.grace_seconds === null ? "no grace" : `grace ${span(told.grace_seconds)}`].join(", ")],
  expired: ["bad", "Expired", (told) => told.reason],
  replaced: ["pause", "Replaced", (told) => (told.same_instance ? "by its next session" : "by another agent")],
  refused: ["bad", "Refused", (told) => told.why],
  missed: ["bad", "Missed", (told) => `${told.events} events came too fast to show`],
};

function happened(name, told) {
  const [state, title, detail] = HAPPENED[name];
  const item = document.createElement("li");
  item.dataset.state = state;
  const time = document.createElement("time");
  const now = new Date();
  time.dateTime = now.toISOString();
  time.textContent = now.toLocaleTimeString([], { hour12: false });
  const what = document.createElement("b");
  what.textContent = title;
  const who = document.createElement("span");
  who.textContent = [told.key, detail(told)].filter(Boolean).join(" – ");
  item.append(time, what, who);
  by("events").prepend(item);
  while (by("events").childElementCount > MAX_EVENTS) by("events").lastElementChild.remove();
  plan(SOON_MS);
}

// --- what the reader does --------------------------------------------------

let typing;

function choose() {
  clearTimeout(typing);
  cursors.length = 0;
  after = "";
  ask();
}

by("find").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(choose, SOON_MS);
});
by("state").addEventListener("change", choose);
by("tools").addEventListener("submit", (event) => {
  event.preventDefault();
  choose();
});
by("more").addEventListener("click", () => {
  cursors.push(after);
  after = next;
  ask();
});
by("back").addEventListener("click", () => {
  after = cursors.pop() ?? "";
  ask();
});
document.addEventListener("visibilitychange", () => plan(0));
setInterval(() => rows.forEach((row) => row.tick()), 1000);

look();
listen();
