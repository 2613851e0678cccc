"use strict";
// Clusters on demand: shown below their row in the list of hosts, made and changed by x0d's API.
const director = (...parts) => "/director/" + parts.map(encodeURIComponent).join("/");

function field({ name, label, ...attributes }) {
  const made = element("label", label + " "), options = attributes.options;
  const input = element(options ? "select" : "input");
  delete attributes.options;
  input.name = name;
  if (options) input.append(...options.map((option) => element("option", option)));
  else input.autocomplete = "off";
  Object.entries(attributes).forEach(([key, value]) => input.setAttribute(key, value));
  made.append(input);
  return made;
}

// Asks for values, and has `act` do something with those that are given. The form stays open while that fails.
function openForm(title, fields, act) {
  const dialog = byId("form"), form = dialog.querySelector("form");
  byId("form-title").textContent = title;
  byId("form-problem").textContent = "";
  byId("fields").replaceChildren(...fields.map(field));
  form.onsubmit = async (event) => {
    event.preventDefault();
    const given = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value));
    try {
      await act(given);
      dialog.close();
      change();
    } catch (error) { byId("form-problem").textContent = error.message; }
  };
  dialog.showModal();
}

const PORT = { type: "number", min: 1, max: 65535 };

function newCluster() {
  const fields = [
    { name: "name", label: "Name", required: "", pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", maxlength: 128 },
    { name: "hostname", label: "Host", placeholder: "www.example.com" },
    { name: "port", label: "Port", placeholder: "any", ...PORT },
  ];
  openForm("New cluster on demand, for a host, a port, or both", fields, async ({ name, ...given }) => {
    // A PUT would change one that is there.
    if ((await fetch(director(name), { credentials: "same-origin" })).ok) throw new Error(`a cluster ${name} is there already`);
    await ask(director(name), { method: "PUT", body: new URLSearchParams(given) });
    open.add(name);
  });
}

function newBackend(cluster) {
  const fields = [
    { name: "name", label: "Name", required: "", maxlength: 128 },
    { name: "hostname", label: "Address", required: "", placeholder: "10.0.0.7" },
    { name: "port", label: "Port", required: "", ...PORT },
    { name: "protocol", label: "Protocol", options: ["http", "https"] },
    { name: "role", label: "Role", options: ["active", "standby", "backup"] },
    { name: "capacity", label: "Capacity", type: "number", min: 0, placeholder: "any" },
  ];
  openForm("New backend of " + cluster, fields, ({ name, ...given }) =>
    ask(director(cluster, "backends", name), { method: "PUT", body: new URLSearchParams(given) }));
}

function memberRow(cluster, member) {
  const at = director(cluster, "backends", member.name), isLeaving = member.role === "terminate";
  const make = () => {
    const row = element("tr");
    row.append(...["", "", "", ""].map(() => element("td")), element("td", null, "actions"));
    return row;
  };
  const change = (row) => {
    set(row.children[0], member.name);
    set(row.children[1], `${member.protocol}://${member.hostname}:${member.port}`);
    set(row.children[2], member.role + (member["terminate-protection"] ? ", protected" : ""));
    set(row.children[3], isLeaving ? "finishes its requests" : member.enabled ? member.health.state : "locked", member.enabled ? "" : "warn");
    const shown = `${member.role} ${member.enabled}`;
    if (row.dataset.shown === shown) return;
    row.dataset.shown = shown;
    const lock = member.enabled
      ? button("Lock", `Lock backend ${member.name} of ${cluster}? It gets no new request.`, at, "LOCK")
      : button("Unlock", `Unlock backend ${member.name} of ${cluster}?`, at, "UNLOCK");
    const remove = button("Remove", `Remove backend ${member.name} of ${cluster}? It finishes its requests.`, at, "DELETE");
    row.lastElementChild.replaceChildren(...(isLeaving ? [] : [lock, remove]));
  };
  return { key: member.name + (isLeaving ? " leaves" : ""), make, change };
}

async function showDemand(name, part) {
  const cluster = await ask(director(name));
  if (!part.firstChild) {
    const bar = element("div", null, "bar"), table = element("table"), add = element("button", "Add backend");
    add.type = "button";
    add.addEventListener("click", (event) => { event.stopPropagation(); newBackend(name); });
    bar.append(element("span", null, "why"), add, element("span", null, "lock"), button("Delete cluster", `Delete cluster ${name}? Requests in progress are finished, and its cached objects go.`, director(name), "DELETE"));
    table.append(element("tbody"));
    part.append(bar, table);
    part.addEventListener("click", (event) => event.stopPropagation());
  }
  const [text, , lock] = part.firstChild.children;
  const match = [cluster.hostname || "any host", cluster.port ? "port " + cluster.port : ""].filter(Boolean).join(", ");
  const use = cluster.hostname || cluster.port ? "on demand, for " + match : "on demand, for no request yet";
  set(text, [use, cluster.enabled ? "" : "locked", cluster["terminate-protection"] ? "protected" : "", cluster["buckets-problem"]].filter(Boolean).join("; "), "why");
  if (lock.dataset.shown !== String(cluster.enabled)) {
    lock.dataset.shown = cluster.enabled;
    lock.replaceChildren(cluster.enabled
      ? button("Lock cluster", `Lock cluster ${name}? Every request gets a 503.`, director(name), "LOCK")
      : button("Unlock cluster", `Unlock cluster ${name}?`, director(name), "UNLOCK"));
  }
  sync(part.lastChild.tBodies[0], cluster.members.map((member) => memberRow(name, member)));
}

byId("new-cluster").addEventListener("click", newCluster);
byId("form-cancel").addEventListener("click", () => byId("form").close());
