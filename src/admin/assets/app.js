"use strict";
// The dashboard of one node. It shows the event stream, which has an event a second; without a stream it requests the views.
const SECONDS = 60;
const byId = (id) => document.getElementById(id);
const samples = []; // the statuses of the last minute
const open = new Set(); // keys of the hosts whose backends are shown
const state = { page: 1, pages: 1, search: "", trouble: false, sort: "key", source: "" };

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value >= 1e6) return (value / 1e6).toFixed(1) + " M";
  if (value >= 1e4) return (value / 1e3).toFixed(1) + " k";
  return value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return Math.round(value * 1e6) + " µs";
  if (value < 1) return (value * 1e3).toPrecision(3) + " ms";
  return value.toPrecision(3) + " s";
}

function span(value) {
  const [days, hours, minutes] = [Math.floor(value / 86400), Math.floor(value / 3600) % 24, Math.floor(value / 60) % 60];
  if (days) return days + " d " + hours + " h";
  return hours ? hours + " h " + minutes + " min" : minutes ? minutes + " min" : Math.floor(value) + " s";
}

function bytes(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1 << 20) return Math.round(value / 1024) + " KiB";
  return value >= 1 << 30 ? (value / (1 << 30)).toFixed(2) + " GiB" : (value / (1 << 20)).toFixed(1) + " MiB";
}

async function ask(path, options) {
  const response = await fetch(path, { credentials: "same-origin", ...options });
  if (!response.ok) throw new Error((await response.json().catch(() => ({}))).detail || "status " + response.status);
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

// A line through values, scaled to the greatest.
function draw(svg, values, failed) {
  const width = Math.max(values.length - 1, 1), top = Math.max(1, ...values);
  svg.setAttribute("viewBox", `0 0 ${width} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  const line = (list) => list.map((value, at) => `${at ? "L" : "M"}${at} ${(97 - (94 * value) / top).toFixed(1)}`).join("");
  const paths = [[line(values) + `L${width} 100L0 100Z`, "area"], [line(values), ""]];
  if (failed && failed.some((value) => value > 0)) paths.push([line(failed), "failed"]);
  svg.replaceChildren(...paths.map(([data, name]) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", data);
    if (name) path.setAttribute("class", name);
    return path;
  }));
}

function spark(label) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  return svg;
}

// Draws requests and failures a second, unless they are drawn already.
function drawHistory(svg, history) {
  const shown = history.join(" ");
  if (svg.dataset.shown === shown) return;
  svg.dataset.shown = shown;
  draw(svg, history.map((second) => second[0]), history.map((second) => second[1]));
}

// Changes a cell only if its text differs, so that selection and focus stay.
function set(node, text, className) {
  const shown = text === undefined || text === null ? "" : String(text);
  if (node.textContent !== shown) node.textContent = shown;
  if ((node.getAttribute("class") || "") !== (className || "")) node.className = className || "";
}

// Gives a node children with these keys, in this order. Existing children are changed, not replaced.
function sync(parent, items) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const { key, make, change } of items) {
    let child = known.get(key);
    known.delete(key);
    if (!child) { child = make(); child.dataset.key = key; }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    change(child);
  }
  known.forEach((child) => child.remove());
}

// A row of plain cells: each is a text, or a text and a class.
function plainRow(key, cells) {
  return {
    key,
    make: () => { const row = element("tr"); row.append(...cells.map(() => element("td"))); return row; },
    change: (row) => cells.forEach((cell, at) => (Array.isArray(cell) ? set(row.children[at], cell[0], cell[1]) : set(row.children[at], cell))),
  };
}

function fill(list, rows) {
  sync(list, rows.flatMap(([term, value, name]) => [
    { key: "t" + term, make: () => element("dt"), change: (node) => set(node, term) },
    { key: "d" + term, make: () => element("dd"), change: (node) => set(node, value, name) },
  ]));
}

const failures = (status) => Object.values(status.failures).reduce((sum, count) => sum + count, 0);

// The duration within which this part of the requests between two statuses ended, or was through a phase.
function percentile(first, last, part, phase = "total") {
  const before = new Map(first ? first.latency[phase].buckets : []);
  const counts = last.latency[phase].buckets.map(([bound, count]) => [bound, count - (before.get(bound) || 0)]);
  const all = counts.reduce((sum, [, count]) => sum + count, 0);
  let seen = 0;
  for (const [bound, count] of counts) {
    seen += count;
    if (count > 0 && seen >= all * part) return bound;
  }
  return null;
}

function showStatus(status) {
  status.at = performance.now() / 1000;
  if (samples.length && samples[samples.length - 1].pid !== status.pid) {
    samples.length = 0;
    say(`another process serves: pid ${status.pid}, sluice ${status.version}`, true);
  }
  samples.push(status);
  // A hidden page gets no updates: values older than a minute do not belong to the last minute.
  while (samples.length > 1 && samples[0].at < status.at - SECONDS - 1) samples.shift();
  const rates = (count) => samples.slice(1).map((now, at) => {
    return Math.max(0, (count(now) - count(samples[at])) / Math.max(now.at - samples[at].at, 0.001));
  });
  const [requests, failing] = [rates((one) => one.totals.requests), rates(failures)];
  const last = (list) => (list.length ? list[list.length - 1] : null);
  byId("rate").textContent = number(last(requests));
  byId("failing").textContent = number(last(failing));
  byId("failing").className = last(failing) > 0 ? "bad" : "";
  if (requests.length > 1) [["rate-line", requests], ["failing-line", failing]].forEach(([id, list]) => draw(byId(id), list));
  const first = samples.length > 1 ? samples[0] : null;
  const phases = [["queue", "queue"], ["connect", "connect"], ["first byte", "first_byte"]].map(([name, phase]) => ["99 %, " + name, seconds(percentile(first, status, 0.99, phase)), "quiet"]);
  fill(byId("latency"), [["50 %", 0.5], ["90 %", 0.9], ["99 %", 0.99]].map(([name, part]) => [name, seconds(percentile(first, status, part))]).concat(phases));
  const sum = (field) => status.workers.reduce((total, worker) => total + worker[field], 0);
  fill(byId("now"), [["clients", number(sum("connections"))], ["in flight", number(sum("requests_in_flight"))], ["to backends", number(sum("upstream_connections"))], ["memory", bytes(status.resident_bytes)], ["lost log lines", number(status.lost_log_lines), status.lost_log_lines ? "warn" : ""]]);
  byId("version").textContent = status.version;
  byId("uptime").textContent = "up " + span(status.uptime_seconds);
  byId("ready").textContent = status.ready ? "✓ ready" : "✕ " + status.reason;
  byId("ready").className = "badge " + (status.ready ? "good" : "bad");
  showTables(status, first);
}

function showTables(status, first) {
  byId("tenants").hidden = !status.tenants;
  if (status.tenants) byId("tenants").lastElementChild.replaceChildren(bucketTable(status.tenants, "tenant"));
  const reasons = Object.entries(status.failures).map(([reason, count]) => [reason, count, count - ((first && first.failures[reason]) || 0)]);
  reasons.sort((one, other) => other[2] - one[2] || other[1] - one[1]);
  const shown = reasons.slice(0, 8).map(([reason, count, fresh]) => plainRow(reason, [reason, number(count), [first ? "+" + number(fresh) : "", fresh > 0 ? "bad" : "quiet"]]));
  sync(byId("reasons").tBodies[0], shown.length ? shown : [plainRow("none", [["none", "quiet"], "", ""])]);
  sync(byId("classes").tBodies[0], ["2xx", "3xx", "4xx", "5xx", "1xx"].map((name) => {
    const of = (one) => one.totals["responses_" + name];
    const fresh = first ? of(status) - of(first) : 0;
    return plainRow(name, [name === "1xx" ? "tunnels ended" : name, number(of(status)), [first ? "+" + number(fresh) : "", name === "5xx" && fresh > 0 ? "bad" : "quiet"]]);
  }));
  sync(byId("workers").tBodies[0], status.workers.map((worker) => {
    const name = worker.worker + (worker.draining ? " (draining)" : "");
    const plain = plainRow(name, [name, number(worker.connections), number(worker.requests_in_flight), bytes(worker.memory_bytes)]);
    const make = () => {
      const row = plain.make(), actions = element("td", null, "actions");
      if (!worker.draining) actions.append(button("Drain", `Replace worker ${worker.worker}? It finishes its requests.`, `/v1/workers/${worker.worker}/drain`));
      row.append(actions);
      return row;
    };
    return { ...plain, make };
  }));
}

// Shows the outcome of an action for a while.
let saying;
function say(text, isGood) {
  clearTimeout(saying);
  set(byId("said"), (isGood ? "✓ " : "✕ ") + text, "said " + (isGood ? "good" : "bad"));
  byId("said").hidden = false;
  saying = setTimeout(() => { byId("said").hidden = true; }, 10_000);
}

// The outcome of an action, from the response.
function outcome(response) {
  if (!response) return null;
  if (response.purged !== undefined) return `${number(response.purged)} cached objects purged`;
  return response.accepted;
}

// A button that asks first. `act` is the path of the action, or a function that returns its response.
function button(label, question, act, method = "POST") {
  const made = element("button", label);
  made.type = "button";
  made.addEventListener("click", (event) => {
    event.stopPropagation();
    byId("question").textContent = question;
    const dialog = byId("ask");
    dialog.querySelector("button.act").textContent = label;
    dialog.returnValue = "no";
    dialog.onclose = async () => {
      if (dialog.returnValue !== "yes") return;
      try {
        const done = outcome(await (typeof act === "string" ? ask(act, { method }) : act()));
        if (done) say(done, true);
      } catch (error) { say(error.message, false); }
      look();
    };
    dialog.showModal();
  });
  return made;
}

const cellOf = (host) => [...document.querySelectorAll("tr.more")].find((row) => row.dataset.key === "more " + host)?.firstChild;

async function lookAtBackends(host) {
  let view, problem;
  try { view = await ask("/v1/frontends/" + encodeURIComponent(host)); } catch (error) { problem = error.message; }
  showOpened({ asked: host, view, detail: problem });
}

function showOpened({ asked, view, detail }) {
  const cell = cellOf(asked);
  if (cell && view) showBackends(asked, cell, view);
  else if (cell) cell.textContent = detail;
}

function toggle(host) {
  if (!open.delete(host)) open.add(host);
  change();
}

// What is said of something that is up, and fails all the same.
function failingOf(history) {
  const [requests, failed] = history.reduce(([all, bad], second) => [all + second[0], bad + second[1]], [0, 0]);
  return failed > 0 ? `${number(failed)} of ${number(requests)} requests failed in the last minute` : null;
}

const CLUSTER_STATES = { up: ["● ", "good"], degraded: ["▲ ", "warn"], down: ["✕ ", "bad"], disabled: ["◌ disabled, ", "warn"] };

function hostRow(host) {
  const make = () => {
    const row = element("tr", null, "host"), name = element("td"), history = element("td");
    row.tabIndex = 0;
    name.append(element("span"), " ", element("span", null, "why"));
    history.append(spark("Requests a second of " + host.key));
    row.append(name, element("td"), element("td"), element("td"), element("td"), element("td"), history);
    row.addEventListener("click", () => toggle(host.key));
    return row;
  };
  const change = (row) => {
    const [name, health, inFlight, waiting, recent, failed, history] = row.children;
    row.setAttribute("aria-expanded", open.has(host.key));
    set(name.firstElementChild, (open.has(host.key) ? "▾ " : "▸ ") + host.key);
    set(name.lastElementChild, host.id !== host.key ? host.id : "", "why");
    // Most requests fail: nothing is well, whatever is said of the backends.
    const isFailing = host.state === "up" && host.failures_60s * 2 > host.requests_60s;
    const [sign, colour] = CLUSTER_STATES[isFailing ? "degraded" : host.state] || ["", ""];
    set(health, sign + host.up + " / " + host.backends_total, "state " + colour);
    set(inFlight, number(host.in_flight));
    set(waiting, number(host.waiting), host.waiting ? "warn" : "");
    set(recent, number(host.requests_60s));
    set(failed, number(host.failures_60s), host.failures_60s ? "bad" : "");
    drawHistory(history.firstElementChild, host.history);
  };
  return { key: host.key, make, change };
}

function moreRow(host) {
  const make = () => {
    const row = element("tr", null, "more"), cell = element("td", "…");
    cell.colSpan = 7;
    row.append(cell);
    return row;
  };
  return { key: "more " + host.key, make, change: () => {} };
}

function selection() {
  const query = new URLSearchParams({ page: state.page, per_page: 50, search: state.search, sort: state.sort });
  if (state.trouble) query.set("trouble", "1");
  return query;
}

async function lookAtHosts() {
  showHosts(await ask("/v1/frontends?" + selection()));
  await Promise.all([...open].filter(cellOf).map(lookAtBackends));
}

function showHosts(view) {
  [state.page, state.pages] = [view.page, view.pages];
  sync(byId("hosts").tBodies[0], view.frontends.flatMap((host) => (open.has(host.key) ? [hostRow(host), moreRow(host)] : [hostRow(host)])));
  byId("empty").hidden = view.total > 0;
  set(byId("count"), `${number(view.total)} ${view.total === 1 ? "host" : "hosts"}, page ${view.page} of ${Math.max(view.pages, 1)}`, "quiet");
  byId("before").disabled = view.page <= 1;
  byId("after").disabled = view.page >= view.pages;
}

async function lookAtSource() {
  const [redis, certificates] = await Promise.all([ask("/v1/redis"), ask("/v1/certificates?per_page=5")]);
  showSource({ redis, certificates });
}

function showSource({ redis: source, certificates: list }) {
  state.source = source.kind;
  const isAway = source.age_seconds > 0;
  const ofRedis = source.kind !== "redis" ? [] : [["changes by", source.freshness.replace("_", " ")], ["away for", isAway ? span(source.age_seconds) : "–", isAway ? "bad" : ""], ["losses", number(source.losses)]];
  fill(byId("source"), [["source", source.kind], ...ofRedis, ["certificates", number(list.total || 0)]]);
  attend("source", isAway ? `✕ ${source.kind} has been away for ${span(source.age_seconds)}` : "", "bad");
  const ends = (one, kind = "") => (one.days_left > 0 ? `⚠ ${kind}${one.name} ends in ${Math.floor(one.days_left)} days` : `✕ ${kind}${one.name} has expired`);
  const soon = list.certificates.filter((one) => one.days_left !== null && one.days_left < 30).slice(0, 5);
  sync(byId("certificates"), soon.map((one) => ({
    key: one.name,
    make: () => element("li"),
    change: (node) => set(node, ends(one), one.days_left > 0 ? "warn" : "bad"),
  })));
  const [first] = soon;
  attend("certificates", first ? ends(first, "certificate ") + (soon.length > 1 ? ", and others" : "") : "", first && first.days_left > 0 ? "warn" : "bad");
}

function stale(why) {
  byId("stale").hidden = !why;
  if (why) set(byId("stale"), "no view: " + why, "badge bad");
}

// Tells of something at the top of the page, or takes it back.
const notices = new Map();
function attend(key, text, className, act) {
  if (text) notices.set(key, { text, className, act });
  else notices.delete(key);
  sync(byId("attention"), [...notices].map(([name, notice]) => ({
    key: name,
    make: () => {
      const item = element("li"), shown = element(notice.act ? "button" : "span");
      if (notice.act) { shown.type = "button"; shown.addEventListener("click", notice.act); }
      item.append(shown);
      return item;
    },
    change: (item) => { set(item, item.textContent, notice.className); set(item.firstChild, notice.text); },
  })));
}

// Counts the hosts with trouble, wherever they are in the list.
async function lookForTrouble() {
  const { total } = await ask("/v1/frontends?trouble=1&per_page=1");
  attend("trouble", total ? `▲ ${number(total)} ${total === 1 ? "host" : "hosts"} with trouble` : "", "warn", () => {
    if (!byId("trouble").checked) byId("trouble").click();
    byId("hosts-part").scrollIntoView({ behavior: "smooth" });
  });
}

let turns = 0;
async function look() {
  try {
    showStatus(await ask("/v1/status"));
    await lookAtHosts();
    if (turns++ % 10 === 0) await lookAtSource();
    stale();
  } catch (error) { stale(error.message); }
}

// The event stream, the time of its last event, and the time of the next attempt after a failure, such as behind a proxy that
// buffers it, or beyond the limit of streams.
let stream = null, told = 0, retryAt = 0;

function hangUp() {
  if (stream) stream.close();
  stream = null;
}

function listen() {
  hangUp();
  if (document.hidden || !window.EventSource || Date.now() < retryAt) return;
  const query = selection();
  [...open].slice(0, 20).forEach((host) => query.append("open", host));
  stream = new EventSource("/v1/events?" + query);
  told = Date.now();
  const shows = { status: showStatus, frontends: showHosts, frontend: showOpened, source: showSource };
  for (const [name, show] of Object.entries(shows)) {
    stream.addEventListener(name, (event) => { told = Date.now(); stale(); show(JSON.parse(event.data)); });
  }
  stream.onerror = () => stale("the connection was lost");
}

// Shows other hosts: at once, and then with each event.
async function change() {
  hangUp();
  try { await lookAtHosts(); } catch (error) { stale(error.message); }
  listen();
}

async function run() {
  // The first event of a stream may take a while.
  await look();
  let rounds = 0;
  for (;;) {
    if (stream && (stream.readyState === EventSource.CLOSED || Date.now() - told > 15_000)) {
      hangUp();
      retryAt = Date.now() + 60_000;
    }
    if (!stream) listen();
    if (!stream && !document.hidden) await look();
    if (rounds++ % 5 === 0 && !document.hidden) await lookForTrouble().catch(() => {});
    await new Promise((done) => setTimeout(done, 1000));
  }
}

function theme() {
  const list = document.documentElement.classList;
  const isDark = list.contains("dark") || (!list.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
  list.remove("dark", "light");
  list.add(isDark ? "light" : "dark");
}

function turnPage(by) {
  state.page = Math.min(Math.max(1, state.page + by), Math.max(state.pages, 1));
  change();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("ask").open || byId("form").open) return;
  if (event.key === "Escape" && byId("node").open) {
    byId("node").open = false;
    byId("node").firstElementChild.focus();
  }
  const row = document.activeElement && document.activeElement.closest("tr.host");
  if (event.target === byId("search")) {
    if (event.key === "Escape") event.target.blur();
    if (event.key !== "ArrowDown") return;
  }
  const rows = [...document.querySelectorAll("tr.host")], at = row ? rows.indexOf(row) : -1;
  const keys = {
    "/": () => byId("search").focus(), d: theme, "[": () => turnPage(-1), "]": () => turnPage(1),
    ArrowDown: () => rows[Math.min(at + 1, rows.length - 1)]?.focus(), ArrowUp: () => rows[Math.max(at - 1, 0)]?.focus(),
    Enter: () => (row && !event.target.closest("button") ? toggle(row.dataset.key) : false),
  };
  const act = keys[event.key];
  if (act && act() !== false) event.preventDefault();
}

byId("node").lastElementChild.append(
  button("Reload", "Read routes, certificates and pages again?", "/v1/actions/reload"),
  button("Reopen logs", "Reopen the access log, as after a rotation?", "/v1/actions/reopen-logs"),
  button("Upgrade", "Start the program that is installed now, and have it take over all connections?", "/v1/actions/upgrade"),
);
// The menu closes at a choice, at a click elsewhere and at Escape.
document.addEventListener("click", () => { byId("node").open = false; });
byId("node").addEventListener("click", (event) => event.stopPropagation());
byId("node").lastElementChild.addEventListener("click", () => { byId("node").open = false; }, true);
byId("theme").addEventListener("click", theme);
byId("before").addEventListener("click", () => turnPage(-1));
byId("after").addEventListener("click", () => turnPage(1));
byId("trouble").addEventListener("change", (event) => { [state.trouble, state.page] = [event.target.checked, 1]; change(); });
document.addEventListener("visibilitychange", listen);
for (const head of document.querySelectorAll("th[data-sort]")) {
  head.firstElementChild.addEventListener("click", () => {
    document.querySelectorAll("th[data-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", head.dataset.sort === "key" ? "ascending" : "descending");
    [state.sort, state.page] = [head.dataset.sort, 1];
    change();
  });
}
let typing;
byId("search").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => { [state.search, state.page] = [event.target.value.trim(), 1]; change(); }, 150);
});
document.addEventListener("keydown", onKey);
// All scripts are there by then.
document.addEventListener("DOMContentLoaded", run);
