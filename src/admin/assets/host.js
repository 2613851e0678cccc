"use strict";
// One cluster, opened in the list of hosts: what applies to it, its actions, its backends and its buckets.
const STATES = {
  up: ["● up", "good"], partly_dead: ["▲ partly dead", "warn"], dead: ["✕ dead", "bad"], down: ["✕ down", "bad"],
  ejected: ["✕ ejected", "bad"], draining: ["◌ draining", "warn"], disabled: ["◌ disabled", "warn"], removed: ["◌ removed", "quiet"],
};

function backendRow(host, backend, place) {
  const make = () => {
    const row = element("tr"), state = element("td", null, "health"), history = element("td");
    state.append(element("span"), " ", element("span"));
    history.append(spark("Requests a second of " + backend.url));
    row.append(element("td"), state, element("td"), element("td"), element("td"), element("td"), history, element("td", null, "actions"));
    return row;
  };
  const change = (row) => {
    const [url, state, inFlight, pooled, requests, failures, history, actions] = row.children;
    set(url, backend.url);
    const [label, name] = STATES[backend.state] || [backend.state, ""];
    const failing = backend.state === "up" ? failingOf(backend.history) : null;
    const why = [backend.reason, failing, backend.seconds_left != null ? "for another " + span(backend.seconds_left) : null].filter(Boolean).join(", ");
    set(state.firstElementChild, label, "state " + name);
    set(state.lastElementChild, why, "why");
    set(inFlight, number(backend.in_flight) + (backend.capacity ? " / " + backend.capacity : ""));
    set(pooled, number(backend.pooled));
    set(requests, number(backend.requests));
    set(failures, number(backend.failures), backend.failures ? "bad" : "");
    drawHistory(history.firstElementChild, backend.history);
    if (row.dataset.state === backend.state) return;
    row.dataset.state = backend.state;
    const path = (verb) => `/v1/frontends/${encodeURIComponent(host)}/${verb}?backend=${encodeURIComponent(backend.url)}`;
    const buttons = [];
    if (["disabled", "draining"].includes(backend.state)) buttons.push(button("Enable", `Put ${backend.url} back into service?`, path("enable")));
    else buttons.push(button("Drain", `Give ${backend.url} of ${host} requests of its sessions only, on this node?`, path("drain")));
    if (backend.state !== "disabled") buttons.push(button("Disable", `Take ${backend.url} of ${host} out of service on this node?`, path("disable")));
    if (backend.state === "up") buttons.push(button("Mark dead", `Mark ${backend.url} of ${host} dead on this node, for a minute?`, path("dead")));
    if (backend.state.endsWith("dead")) buttons.push(button("Mark alive", `Take back the marks of ${backend.url}?`, path("alive")));
    actions.replaceChildren(...buttons);
  };
  return { key: backend.url + " " + place, make, change };
}

function bucketRows(bucket, depth) {
  const row = element("tr");
  row.append(element("td", "\u00a0".repeat(3 * depth) + bucket.name + (bucket.draining ? " (ends)" : "")), element("td", bucket.rate + ".." + bucket.ceil), element("td", number(bucket.actual), bucket.over ? "warn" : ""), element("td", number(bucket.waiting), bucket.waiting ? "warn" : ""), element("td", number(bucket.taken)), element("td", number(bucket.dropped), bucket.dropped ? "bad" : ""), element("td", bucket.waits ? seconds(bucket.waited_seconds / bucket.waits) : "–"));
  return [row, ...bucket.buckets.flatMap((below) => bucketRows(below, depth + 1))];
}

function bucketTable(root, name = "bucket") {
  const table = element("table"), head = element("tr");
  head.append(...[name, "tokens", "in use", "waiting", "taken", "dropped", "mean wait"].map((text) => element("th", text)));
  table.append(head, ...bucketRows(root, 0));
  return table;
}

// Where a cluster comes from, which hosts it has, and what has happened.
function aboutOf(view) {
  const names = view.hosts.length > 3 ? view.hosts.slice(0, 3).concat(`${number(view.host_count - 3)} more`) : view.hosts;
  const counts = [["waiting", view.waiting], ["queued so far", view.queued], ["dropped from the queue", view.dropped], ["tunnels", view.tunnels], ["requests at once at most, by latency", view.adaptive_limit]];
  return [
    `from ${view.source}`,
    names.length && names[0] !== view.key ? "for " + names.join(", ") : "",
    ...counts.filter(([, count]) => count).map(([name, count]) => `${number(count)} ${name}`),
  ].filter(Boolean).join(" · ");
}

// The options that are set for a cluster; buckets have a table of their own.
function showOptions(part, options) {
  const given = Object.entries(options).filter(([name]) => name !== "buckets");
  part.hidden = !given.length;
  set(part.firstChild, given.length === 1 ? "1 option" : `${given.length} options`);
  set(part.lastChild, given.map(([name, value]) => `${name} ${value.length > 60 ? value.slice(0, 60) + "…" : value}`).join(" · "), "why");
}

// The actions on a cluster as a whole.
function clusterActions(host, view) {
  const flush = (name) => `/v1/frontends/${encodeURIComponent(name)}/flush`;
  const everywhere = state.source === "redis" ? ["&nodes=all", "all nodes"] : ["", "this node"];
  const made = [];
  if (view.source !== "on demand" && view.hosts.includes(host)) {
    made.push(button("Flush route", `Read the route of ${host} from the source again?`, flush(host)));
  } else if (view.source !== "on demand" && view.hosts.length) {
    const asked = element("button", "Flush route");
    asked.type = "button";
    asked.addEventListener("click", () => openForm("Read the route of a host again", [{ name: "host", label: "Host", required: "", value: view.hosts[0] }], async ({ host: name }) => {
      say(outcome(await ask(flush(name), { method: "POST" })), true);
    }));
    made.push(asked);
  }
  if (view.options["cache.enabled"] === "true") {
    made.push(button("Purge cache", `Purge all cached objects of ${host} on ${everywhere[1]}?`, `/v1/cache/purge?frontend=${encodeURIComponent(host)}${everywhere[0]}`));
  }
  if (state.source === "redis" && view.hosts.includes(host)) {
    made.push(button("Confirm on all nodes", `Wait until every node serves the present state of ${host} in Redis?`, async () => {
      const receipt = await ask(`/v1/receipts?host=${encodeURIComponent(host)}&timeout=10`, { method: "POST" });
      return { accepted: `every core of ${number(receipt.nodes.length)} nodes serves the present state of ${host}` };
    }));
  }
  return made;
}

function showAbout(host, part, view) {
  if (!part.firstChild) {
    const options = element("details");
    options.append(element("summary"), element("div"));
    part.append(element("span", null, "why"), options, element("span", null, "actions"));
    part.addEventListener("click", (event) => event.stopPropagation());
  }
  set(part.firstChild, aboutOf(view), "why");
  showOptions(part.children[1], view.options);
  const shown = [view.source, state.source, view.hosts[0], view.options["cache.enabled"]].join(" ");
  if (part.dataset.shown === shown) return;
  part.dataset.shown = shown;
  part.lastChild.replaceChildren(...clusterActions(host, view));
}

function showBackends(host, cell, view) {
  let table = cell.querySelector("table");
  if (!table) {
    const head = element("tr");
    head.append(...["backend", "state", "in flight", "pooled", "requests", "failed", "last minute", ""].map((text) => element("th", text)));
    table = element("table", null, "backends");
    table.append(element("thead"), element("tbody"));
    table.tHead.append(head);
    cell.replaceChildren(element("div", null, "bar about"), table, element("div", null, "demand"), element("div", null, "buckets"));
  }
  showAbout(host, cell.firstChild, view);
  sync(table.tBodies[0], view.backends.map((backend, place) => backendRow(host, backend, place)));
  // A cluster that has gone meanwhile is not shown for long.
  if (view.source === "on demand") showDemand(host, cell.querySelector(".demand")).catch(() => {});
  cell.lastElementChild.replaceChildren(...(view.buckets ? [bucketTable(view.buckets)] : []));
}
