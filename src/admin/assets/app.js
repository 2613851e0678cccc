"use strict";
// The dashboard of one node: it asks the views of the admin service again and again, and shows what they tell.
const SECONDS = 60;
const byId = (id) => document.getElementById(id);
const samples = []; // the statuses of the last minute
const open = new Set(); // keys of the hosts whose backends are shown
const state = { page: 1, pages: 1, search: "", trouble: false };

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
  return value >= 1 << 30 ? (value / (1 << 30)).toFixed(2) + " GiB" : (value / (1 << 20)).toFixed(1) + " MiB";
}

async function ask(path, options) {
  const response = await fetch(path, { credentials: "same-origin", ...options });
  if (!response.ok) throw new Error((await response.json().catch(() => ({}))).detail || "status " + response.status);
  return response.json();
}

// A line through values, as high as the greatest.
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

function spark(history, label) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  draw(svg, history.map((second) => second[0]), history.map((second) => second[1]));
  return svg;
}

function fill(list, rows) {
  list.replaceChildren(...rows.flatMap(([term, value, name]) => [element("dt", term), element("dd", value, name)]));
}

const failures = (status) => Object.values(status.failures).reduce((sum, count) => sum + count, 0);

// The duration that this part of the requests between two statuses took no longer than.
function percentile(first, last, part) {
  const before = new Map(first ? first.latency.total.buckets : []);
  const counts = last.latency.total.buckets.map(([bound, count]) => [bound, count - (before.get(bound) || 0)]);
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
  if (samples.length && samples[samples.length - 1].pid !== status.pid) samples.length = 0;
  samples.push(status);
  while (samples.length > SECONDS + 1) samples.shift();
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
  fill(byId("latency"), [["50 %", 0.5], ["90 %", 0.9], ["99 %", 0.99]].map(([name, part]) => [name, seconds(percentile(first, status, part))]));
  const sum = (field) => status.workers.reduce((total, worker) => total + worker[field], 0);
  fill(byId("now"), [["clients", number(sum("connections"))], ["in flight", number(sum("requests_in_flight"))], ["to backends", number(sum("upstream_connections"))], ["memory", bytes(status.resident_bytes)], ["lost log lines", number(status.lost_log_lines), status.lost_log_lines ? "warn" : ""]]);
  byId("version").textContent = status.version;
  byId("uptime").textContent = "up " + span(status.uptime_seconds);
  byId("ready").textContent = status.ready ? "✓ ready" : "✕ " + status.reason;
  byId("ready").className = "badge " + (status.ready ? "good" : "bad");
  showTables(status, first);
}

function showTables(status, first) {
  const row = (cells) => { const made = element("tr"); made.append(...cells.map((cell) => (cell instanceof Node ? cell : element("td", cell)))); return made; };
  const minute = (now, before) => "+" + number(now - before);
  const reasons = Object.entries(status.failures).map(([reason, count]) => [reason, count, count - ((first && first.failures[reason]) || 0)]);
  reasons.sort((one, other) => other[2] - one[2] || other[1] - one[1]);
  const shown = reasons.slice(0, 8).map(([reason, count, fresh]) => row([reason, number(count), element("td", first ? "+" + number(fresh) : "", fresh > 0 ? "bad" : "quiet")]));
  byId("reasons").tBodies[0].replaceChildren(...(shown.length ? shown : [row(["none", ""])]));
  const classes = ["2xx", "3xx", "4xx", "5xx", "1xx"].map((name) => {
    const of = (one) => one.totals["responses_" + name];
    return row([name === "1xx" ? "tunnels ended" : name, number(of(status)), first ? minute(of(status), of(first)) : ""]);
  });
  byId("classes").tBodies[0].replaceChildren(...classes);
  byId("workers").tBodies[0].replaceChildren(...status.workers.map((worker) => {
    const actions = element("td", null, "actions");
    if (!worker.draining) actions.append(button("Drain", `Replace worker ${worker.worker}? It finishes its requests.`, `/v1/workers/${worker.worker}/drain`));
    return row([worker.worker + (worker.draining ? " (draining)" : ""), number(worker.connections), number(worker.requests_in_flight), bytes(worker.memory_bytes), actions]);
  }));
}

function button(label, question, path) {
  const made = element("button", label);
  made.type = "button";
  made.addEventListener("click", (event) => {
    event.stopPropagation();
    byId("question").textContent = question;
    const dialog = byId("ask");
    dialog.returnValue = "no";
    dialog.onclose = async () => {
      if (dialog.returnValue !== "yes") return;
      try { await ask(path, { method: "POST" }); } catch (error) { alert(error.message); }
      look();
    };
    dialog.showModal();
  });
  return made;
}

const STATES = { up: ["● up", "good"], dead: ["✕ dead", "bad"], down: ["✕ down", "bad"], disabled: ["◌ disabled", "warn"], removed: ["◌ removed", "quiet"] };

function backendRow(host, backend) {
  const row = element("tr");
  const [label, name] = STATES[backend.state] || [backend.state, ""];
  const what = element("td", backend.url);
  const why = [backend.reason, backend.seconds_left != null ? "for another " + span(backend.seconds_left) : null].filter(Boolean).join(", ");
  const cell = element("td");
  cell.append(element("span", label, "state " + name));
  if (why) cell.append(" ", element("span", why, "why"));
  const history = element("td");
  history.append(spark(backend.history, "Requests a second of " + backend.url));
  const actions = element("td", null, "actions");
  const path = (verb) => `/v1/frontends/${encodeURIComponent(host)}/${verb}?backend=${encodeURIComponent(backend.url)}`;
  const add = (verb, text, question) => actions.append(button(text, question, path(verb)), " ");
  if (backend.state === "disabled") add("enable", "Enable", `Put ${backend.url} back into service?`);
  else add("disable", "Disable", `Take ${backend.url} of ${host} out of service on this node?`);
  if (backend.state === "dead") add("alive", "Mark alive", `Take back all marks of ${backend.url}?`);
  row.append(what, cell, element("td", number(backend.in_flight) + (backend.capacity ? " / " + backend.capacity : "")), element("td", number(backend.requests)), element("td", number(backend.failures), backend.failures ? "bad" : ""), history, actions);
  return row;
}

function bucketRows(bucket, depth) {
  const row = element("tr");
  row.append(element("td", "\u00a0".repeat(3 * depth) + bucket.name + (bucket.draining ? " (ends)" : "")), element("td", bucket.rate + ".." + bucket.ceil), element("td", number(bucket.actual), bucket.over ? "warn" : ""), element("td", number(bucket.waiting), bucket.waiting ? "warn" : ""), element("td", number(bucket.taken)), element("td", number(bucket.dropped), bucket.dropped ? "bad" : ""), element("td", bucket.waits ? span(bucket.waited_seconds / bucket.waits) : "–"));
  return [row, ...bucket.buckets.flatMap((below) => bucketRows(below, depth + 1))];
}

function bucketTable(root) {
  const table = element("table"), head = element("tr");
  head.append(...["bucket", "tokens", "in use", "waiting", "taken", "dropped", "mean wait"].map((text) => element("th", text)));
  table.append(head, ...bucketRows(root, 0));
  return table;
}

async function showBackends(host, cell) {
  try {
    const view = await ask("/v1/frontends/" + encodeURIComponent(host));
    const table = element("table"), head = element("tr");
    head.append(...["backend", "state", "in flight", "requests", "failed", "60 s", ""].map((text) => element("th", text)));
    table.append(head, ...view.backends.map((backend) => backendRow(host, backend)));
    cell.replaceChildren(table, ...(view.buckets ? [bucketTable(view.buckets)] : []));
  } catch (error) { cell.textContent = error.message; }
}

function toggle(host) {
  if (!open.delete(host)) open.add(host);
  lookAtHosts();
}

function hostRow(host) {
  const row = element("tr", null, "host");
  row.tabIndex = 0;
  row.dataset.key = host.key;
  row.setAttribute("aria-expanded", open.has(host.key));
  const name = element("td", (open.has(host.key) ? "▾ " : "▸ ") + host.key);
  if (host.id && host.id !== host.key) name.append(" ", element("span", host.id, "why"));
  const health = host.up === host.backends_total ? ["● ", "good"] : host.up === 0 ? ["✕ ", "bad"] : ["▲ ", "warn"];
  const history = element("td");
  history.append(spark(host.history, "Requests a second of " + host.key));
  row.append(name, element("td", health[0] + host.up + " / " + host.backends_total, "state " + health[1]), element("td", number(host.in_flight)), element("td", number(host.waiting), host.waiting ? "warn" : ""), element("td", number(host.requests_60s)), element("td", number(host.failures_60s), host.failures_60s ? "bad" : ""), history);
  row.addEventListener("click", () => toggle(host.key));
  return row;
}

async function lookAtHosts() {
  const query = new URLSearchParams({ page: state.page, per_page: 50, search: state.search });
  if (state.trouble) query.set("trouble", "1");
  const view = await ask("/v1/frontends?" + query);
  [state.page, state.pages] = [view.page, view.pages];
  const body = byId("hosts").tBodies[0], focused = document.activeElement && document.activeElement.dataset.key;
  const old = new Map([...body.querySelectorAll("tr.more")].map((row) => [row.dataset.of, row]));
  body.replaceChildren(...view.frontends.flatMap((host) => {
    if (!open.has(host.key)) return [hostRow(host)];
    let more = old.get(host.key);
    if (!more) {
      more = element("tr", null, "more");
      more.dataset.of = host.key;
      const cell = element("td", "…");
      cell.colSpan = 7;
      more.append(cell);
    }
    showBackends(host.key, more.firstChild);
    return [hostRow(host), more];
  }));
  if (focused) [...body.querySelectorAll("tr.host")].find((row) => row.dataset.key === focused)?.focus();
  byId("empty").hidden = view.total > 0;
  byId("count").textContent = `${number(view.total)} hosts, page ${view.page} of ${Math.max(view.pages, 1)}`;
  byId("before").disabled = view.page <= 1;
  byId("after").disabled = view.page >= view.pages;
}

async function lookAtSource() {
  const [source, list] = await Promise.all([ask("/v1/redis"), ask("/v1/certificates").catch(() => ({ certificates: [] }))]);
  fill(byId("source"), [["source", source.kind], ["changes by", source.freshness.replace("_", " ")], ["away for", source.age_seconds > 0 ? span(source.age_seconds) : "–", source.age_seconds > 0 ? "bad" : ""], ["losses", number(source.losses)], ["certificates", number(list.certificates.length)]]);
  const soon = list.certificates.filter((one) => one.days_left !== null && one.days_left < 30).slice(0, 5);
  byId("certificates").replaceChildren(...soon.map((one) => element("li", one.days_left > 0 ? `⚠ ${one.name} ends in ${Math.floor(one.days_left)} days` : `✕ ${one.name} has expired`, one.days_left > 0 ? "warn" : "bad")));
}

let turns = 0;
async function look() {
  try {
    showStatus(await ask("/v1/status"));
    await lookAtHosts();
    if (turns++ % 10 === 0) await lookAtSource();
    byId("stale").hidden = true;
  } catch (error) {
    byId("stale").hidden = false;
    byId("stale").textContent = "no view: " + error.message;
  }
}

async function run() {
  for (;;) {
    if (!document.hidden) await look();
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
  lookAtHosts();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("ask").open) return;
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

byId("theme").addEventListener("click", theme);
byId("before").addEventListener("click", () => turnPage(-1));
byId("after").addEventListener("click", () => turnPage(1));
byId("trouble").addEventListener("change", (event) => { [state.trouble, state.page] = [event.target.checked, 1]; lookAtHosts(); });
let typing;
byId("search").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => { [state.search, state.page] = [event.target.value.trim(), 1]; lookAtHosts(); }, 150);
});
document.addEventListener("keydown", onKey);
run();
