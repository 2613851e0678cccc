//! HAProxy's statistics as CSV, so that the exporters and scripts of its users work here too.

use super::clusters::{health_of, load_of, own_routes, sum};
use super::{Response, Sources};
use crate::base::clock::Moment;
use crate::cluster::{Cluster, Member, Role, Route};
use std::fmt::Write;
use std::sync::Arc;

/// The columns in their places. Source: HAProxy 1.4's `management.txt`, and x0's `HaproxyStats`, which ends its header with a
/// comma too: an old exporter wants at least 52 fields.
const COLUMNS: [&str; 51] = [
    "pxname",
    "svname",
    "qcur",
    "qmax",
    "scur",
    "smax",
    "slim",
    "stot",
    "bin",
    "bout",
    "dreq",
    "dresp",
    "ereq",
    "econ",
    "eresp",
    "wretr",
    "wredis",
    "status",
    "weight",
    "act",
    "bck",
    "chkfail",
    "chkdown",
    "lastchg",
    "downtime",
    "qlimit",
    "pid",
    "iid",
    "sid",
    "throttle",
    "lbtot",
    "tracked",
    "type",
    "rate",
    "rate_lim",
    "rate_max",
    "check_status",
    "check_code",
    "check_duration",
    "hrsp_1xx",
    "hrsp_2xx",
    "hrsp_3xx",
    "hrsp_4xx",
    "hrsp_5xx",
    "hrsp_other",
    "hanafail",
    "req_rate",
    "req_rate_max",
    "req_tot",
    "cli_abrt",
    "srv_abrt",
];

/// The types of rows.
const FRONTEND: u8 = 0;
const BACKEND: u8 = 1;
const SERVER: u8 = 2;

/// All clusters: a row FRONTEND, a row for each backend, a row BACKEND.
pub(super) fn statistics(sources: &Sources) -> Response {
    let now = sources.clock.now();
    let mut text = format!("# {},\n", COLUMNS.join(","));
    for (cluster, number) in sources.directory.clusters().iter().zip(1_u64..) {
        let routes = own_routes(cluster, sources);
        put_cluster(&mut text, cluster, &routes, number, now);
    }
    Response::new(200, "text/plain", text)
}

fn put_cluster(text: &mut String, cluster: &Cluster, routes: &[Arc<Route>], number: u64, now: Moment) {
    let load = load_of(cluster, routes, now);
    let rate = load.recent / 60;
    let common = |row: &mut Row, kind: u8| {
        row.set("iid", number).set("type", kind).set("pid", 1).set("scur", load.in_flight).set("stot", load.requests);
        row.set("ereq", 0).set("dreq", 0).set("dresp", 0).set("rate", rate);
    };
    let mut frontend = Row::new(&cluster.key, "FRONTEND");
    common(&mut frontend, FRONTEND);
    frontend.set("status", "OPEN").set("sid", 0).set("req_rate", rate).set("req_tot", load.requests);
    frontend.put(text);
    for (member, place) in cluster.members.iter().zip(1_u64..) {
        put_member(text, cluster, member, (routes, now), (number, place));
    }
    let mut backend = Row::new(&cluster.key, "BACKEND");
    common(&mut backend, BACKEND);
    let of_role = |is_backup: bool| {
        let up = |member: &&Member| health_of(member, routes, now).state == "up";
        let of = |member: &&Member| (member.role() == Role::Backup) == is_backup;
        cluster.members.iter().filter(of).filter(up).count()
    };
    let status = if load.up > 0 { "UP" } else { "DOWN" };
    backend.set("status", status).set("act", of_role(false)).set("bck", of_role(true)).set("sid", 0);
    backend.set("qcur", load.waiting).set("qlimit", cluster.options.queue.limit).set("eresp", load.failures);
    backend.set("weight", cluster.total_weight()).set("lbtot", load.requests).set("req_tot", load.requests);
    backend.put(text);
}

fn put_member(
    text: &mut String,
    cluster: &Cluster,
    member: &Member,
    (routes, now): (&[Arc<Route>], Moment),
    (number, place): (u64, u64),
) {
    let health = health_of(member, routes, now);
    let status = match health.state {
        "up" => "UP",
        "disabled" | "removed" => "MAINT",
        _ => "DOWN",
    };
    let (requests, failures) = member.state.history().totals();
    let is_backup = member.role() == Role::Backup;
    let (recent, _) = sum(&member.state.history().read(now));
    let mut row = Row::new(&cluster.key, &member.url.to_string());
    row.set("status", status).set("type", SERVER).set("pid", 1).set("iid", number).set("sid", place);
    row.set("scur", member.state.in_flight()).set("stot", requests).set("lbtot", requests).set("req_tot", requests);
    row.set("eresp", failures).set("weight", member.attributes.weight).set("rate", recent / 60);
    row.set("act", u8::from(!is_backup)).set("bck", u8::from(is_backup)).set("qcur", 0);
    if let Some(capacity) = member.attributes.capacity {
        row.set("slim", capacity);
    }
    row.put(text);
}

/// A row. What is not known here is empty, as it is where HAProxy does not know.
struct Row([String; COLUMNS.len()]);

impl Row {
    fn new(proxy: &str, server: &str) -> Self {
        let mut row = Self(std::array::from_fn(|_| String::new()));
        row.set("pxname", plain(proxy)).set("svname", plain(server));
        row
    }

    fn set(&mut self, column: &str, value: impl std::fmt::Display) -> &mut Self {
        let place = COLUMNS.iter().position(|known| *known == column);
        debug_assert!(place.is_some(), "no column {column}");
        if let Some(cell) = place.and_then(|place| self.0.get_mut(place)) {
            *cell = value.to_string();
        }
        self
    }

    fn put(&self, text: &mut String) {
        // A string takes all that is written to it.
        let _ = writeln!(text, "{},", self.0.join(","));
    }
}

/// A name without what would end its cell.
fn plain(name: &str) -> String {
    name.replace(|letter: char| letter == ',' || letter == '"' || letter.is_control(), "_")
}
