//! HAProxy's statistics as CSV, for its exporters and scripts.

use super::clusters::{Load, health_of, load_of, name_of, state_of, up_of};
use super::marks::{HostMarks, MarkIndex};
use super::patience::Patience;
use super::query::Query;
use super::{Response, Service};
use crate::base::clock::Moment;
use crate::cluster::{Cluster, Member, MemberState, Role};
use crate::exchange::ServiceBody;
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// The columns. Source: HAProxy 1.4's `management.txt`, and x0's `HaproxyStats`, which ends its header with a comma
/// too: an old exporter expects at least 52 fields.
pub(super) const HEADER: &str = "# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,\
    weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,rate_lim,rate_max,\
    check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,req_rate,\
    req_rate_max,req_tot,cli_abrt,srv_abrt,\n";

const COLUMNS: usize = 51;

pub(super) const QCUR: usize = 2;
pub(super) const SCUR: usize = 4;
pub(super) const SLIM: usize = 6;
pub(super) const STOT: usize = 7;
const DREQ: usize = 10;
const DRESP: usize = 11;
const EREQ: usize = 12;
pub(super) const ERESP: usize = 14;
pub(super) const STATUS: usize = 17;
pub(super) const WEIGHT: usize = 18;
pub(super) const ACT: usize = 19;
pub(super) const BCK: usize = 20;
const QLIMIT: usize = 25;
const PID: usize = 26;
const IID: usize = 27;
const SID: usize = 28;
const LBTOT: usize = 30;
const TYPE: usize = 32;
pub(super) const RATE: usize = 33;
const REQ_RATE: usize = 46;
const REQ_TOT: usize = 48;

/// The types of rows.
const FRONTEND: u64 = 0;
const BACKEND: u64 = 1;
const SERVER: u64 = 2;

/// A longer text ends before the next cluster: about 100,000 rows.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// Time for which one text is reused.
const FRESH: Duration = Duration::from_secs(1);

/// The last text.
#[derive(Debug)]
pub(super) struct Statistics {
    made: Moment,
    scope: String,
    left_out: usize,
    text: ServiceBody,
}

impl Statistics {
    /// Whether it is too old to be reused.
    pub(super) fn is_old(&self, now: Moment) -> bool {
        now.since(self.made) >= FRESH
    }
}

/// Whether a target requests the statistics: any of HAProxy's usual paths, with `csv` among the words separated by
/// semicolons.
pub(super) fn is_asked_for(path: &str, query: &str) -> bool {
    let (path, in_path) = path.split_once(';').unwrap_or((path, ""));
    let (page, in_query) = query.split_once(';').unwrap_or((query, ""));
    let has_csv = |words: &str| words.split('&').next().unwrap_or_default().split(';').any(|word| word == "csv");
    let is_page =
        matches!(path.trim_end_matches('/'), "" | "/stats" | "/haproxy" | "/haproxy/stats" | "/haproxy-stats");
    is_page && (has_csv(in_path) || (matches!(page.trim_end_matches('/'), "" | "stats") && has_csv(in_query)))
}

/// All clusters whose key contains `scope`, sorted by key: a row FRONTEND, a row for each backend, a row BACKEND.
pub(super) fn statistics(query: &str, service: &Service) -> Response {
    let now = service.clock.now();
    // HAProxy's words have no values.
    let words: String = query.replace(';', "&");
    let scope = Query::parse(&words).get("scope").unwrap_or_default().to_owned();
    if !service.state.has_room_for(1) {
        return Response::problem(503, "too many large responses are being sent").with_field("Retry-After: 1");
    }
    let mut kept = service.state.statistics();
    let known = kept.as_ref().filter(|known| !known.is_old(now) && known.scope == scope);
    let (text, left_out) = match known {
        Some(known) => (known.text.clone(), known.left_out),
        None => {
            let (text, left_out) = make(&scope, service, now);
            let text = service.state.body(text);
            *kept = Some(Statistics { made: now, scope, left_out, text: text.clone() });
            (text, left_out)
        }
    };
    let response = Response::shared("text/plain", text);
    if left_out == 0 { response } else { response.with_field(&format!("X-Left-Out: {left_out}")) }
}

/// The text, and the number of clusters left out.
fn make(scope: &str, service: &Service, now: Moment) -> (Vec<u8>, usize) {
    let mut clusters = service.directory.clusters();
    clusters.retain(|cluster| cluster.key.contains(scope));
    let patience = Patience::default();
    clusters.sort_unstable_by(patience.order(|one: &Arc<Cluster>, other: &Arc<Cluster>| one.key.cmp(&other.key)));
    let mut index = MarkIndex::new(&service.sources, now);
    let mut text = HEADER.as_bytes().to_vec();
    for (place, cluster) in clusters.iter().enumerate() {
        if text.len() > MAX_BYTES {
            return (text, clusters.len() - place);
        }
        let key = plain(&cluster.key);
        let marks = index.marks(cluster);
        let number = place as u64 + 1;
        let load = load_of(cluster);
        let common = common(cluster, &load, (number, now));
        let mut frontend = common.clone();
        frontend.set(TYPE, FRONTEND).say(STATUS, "OPEN").copy(RATE, REQ_RATE);
        frontend.put(&mut text, &key, "FRONTEND");
        let mut seen = Seen::new(cluster.members.len());
        for (place, member) in cluster.members.iter().enumerate() {
            // An endpoint that occurs in the list twice has one state, and one row: readers identify a server by name.
            if seen.is_new(Arc::as_ptr(&member.state)) {
                member_row((member, place), &marks, (number, now)).put(&mut text, &key, &plain(&name_of(member)));
            }
        }
        fill_backend(common, cluster, &load, &marks).put(&mut text, &key, "BACKEND");
        patience.row();
    }
    (text, 0)
}

/// The common part of the rows FRONTEND and BACKEND of a cluster.
fn common(cluster: &Cluster, load: &Load, (number, now): (u64, Moment)) -> Row {
    let rate = if load.requests > 0 { cluster.admission.history().last_second(now).requests.into() } else { 0 };
    let mut common = Row::default();
    common.set(PID, 1).set(IID, number).set(SID, 0).set(SCUR, load.in_flight).set(STOT, load.requests);
    common.set(EREQ, 0).set(DREQ, 0).set(DRESP, 0).set(RATE, rate);
    common.set(REQ_TOT, load.requests);
    common
}

/// The row BACKEND of a cluster.
pub(super) fn backend_row(cluster: &Cluster, marks: &HostMarks, (number, now): (u64, Moment)) -> Row {
    let load = load_of(cluster);
    fill_backend(common(cluster, &load, (number, now)), cluster, &load, marks)
}

/// The remaining cells of the row BACKEND.
fn fill_backend(mut backend: Row, cluster: &Cluster, load: &Load, marks: &HostMarks) -> Row {
    let up = up_of(cluster, marks);
    let of_role = |is_backup: bool| {
        let members = cluster.members.iter().enumerate();
        let of_role = members.filter(|(_, member)| (member.role() == Role::Backup) == is_backup && member.is_up());
        of_role.filter(|(place, _)| !marks.of_member(*place).are_of_all()).count() as u64
    };
    let status = match state_of(cluster, marks, up) {
        "disabled" => "MAINT",
        "down" => "DOWN",
        _ => "UP",
    };
    backend.set(TYPE, BACKEND).say(STATUS, status).set(ACT, of_role(false)).set(BCK, of_role(true));
    backend.set(QCUR, load.waiting).set(QLIMIT, cluster.options.queue.limit.into()).set(ERESP, load.failures);
    backend.set(WEIGHT, cluster.total_weight()).set(LBTOT, load.requests);
    backend
}

/// The row of a frontend of its own: its clients, and their limit.
pub(super) fn frontend_row((current, total): (u64, u64), limit: Option<u64>, number: u64) -> Row {
    let mut row = Row::default();
    row.set(TYPE, FRONTEND).say(STATUS, "OPEN").set(PID, 1).set(IID, number).set(SID, 0);
    row.set(SCUR, current).set(STOT, total);
    if let Some(limit) = limit {
        row.set(SLIM, limit);
    }
    row
}

/// The row of a server.
pub(super) fn member_row((member, place): (&Member, usize), marks: &HostMarks, (number, now): (u64, Moment)) -> Row {
    let status = match health_of(member, marks.of_member(place), now).state {
        "up" | "partly_dead" => "UP",
        "draining" => "DRAIN",
        "disabled" | "removed" => "MAINT",
        _ => "DOWN",
    };
    let (requests, failures) = member.state.history().totals();
    let rate = if requests > 0 { member.state.history().last_second(now).requests } else { 0 };
    let is_backup = member.role() == Role::Backup;
    let mut row = Row::default();
    row.say(STATUS, status).set(TYPE, SERVER).set(PID, 1).set(IID, number).set(SID, place as u64 + 1);
    row.set(SCUR, member.state.in_flight().into()).set(STOT, requests).set(LBTOT, requests).set(REQ_TOT, requests);
    row.set(ERESP, failures).set(WEIGHT, member.attributes.weight.into()).set(RATE, rate.into()).set(QCUR, 0);
    row.set(ACT, (!is_backup).into()).set(BCK, is_backup.into());
    if let Some(capacity) = member.attributes.capacity {
        row.set(SLIM, capacity.get().into());
    }
    row
}

#[derive(Clone, Copy, Debug, Default)]
enum Cell {
    /// An unknown value is empty, as in HAProxy.
    #[default]
    Empty,
    Number(u64),
    Text(&'static str),
}

/// The cells of a row behind its two names.
#[derive(Clone, Debug)]
pub(super) struct Row([Cell; COLUMNS]);

impl Default for Row {
    fn default() -> Self {
        Self([Cell::Empty; COLUMNS])
    }
}

impl Row {
    fn set(&mut self, column: usize, value: u64) -> &mut Self {
        self.0[column] = Cell::Number(value);
        self
    }

    /// Copies the value of a cell to another one.
    fn copy(&mut self, from: usize, to: usize) -> &mut Self {
        self.0[to] = self.0[from];
        self
    }

    fn say(&mut self, column: usize, text: &'static str) -> &mut Self {
        self.0[column] = Cell::Text(text);
        self
    }

    /// The text of a cell; empty for an unknown value.
    pub(super) fn text(&self, column: usize) -> String {
        match self.0.get(column) {
            Some(Cell::Number(value)) => value.to_string(),
            Some(Cell::Text(text)) => (*text).to_owned(),
            Some(Cell::Empty) | None => String::new(),
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>, proxy: &str, server: &str) {
        for text in [proxy, ",", server, ","] {
            out.extend_from_slice(text.as_bytes());
        }
        for cell in self.0.iter().skip(2) {
            match cell {
                Cell::Empty => {}
                Cell::Number(value) => out.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
                Cell::Text(text) => out.extend_from_slice(text.as_bytes()),
            }
            out.push(b',');
        }
        out.push(b'\n');
    }
}

/// A set of seen members. A short one is a list, a long one a hash set.
struct Seen {
    list: Vec<*const MemberState>,
    set: Option<HashSet<*const MemberState>>,
}

impl Seen {
    /// The number of members beyond which a hash set is faster.
    const MAX_WALK: usize = 16;

    fn new(members: usize) -> Self {
        let set = (members > Self::MAX_WALK).then(|| HashSet::with_capacity(members));
        Self { list: Vec::with_capacity(members.min(Self::MAX_WALK)), set }
    }

    fn is_new(&mut self, state: *const MemberState) -> bool {
        match &mut self.set {
            Some(set) => set.insert(state),
            None if self.list.contains(&state) => false,
            None => {
                self.list.push(state);
                true
            }
        }
    }
}

/// A name without characters that would end its cell.
pub(super) fn plain(name: &str) -> Cow<'_, str> {
    let is_bad = |letter: char| letter == ',' || letter == '"' || letter.is_control();
    if name.contains(is_bad) { name.replace(is_bad, "_").into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_in_their_places() {
        let names: Vec<&str> = HEADER.trim_start_matches("# ").trim_end().split(',').collect();
        assert_eq!(names.len(), COLUMNS + 1);
        let table = [
            (QCUR, "qcur"),
            (SCUR, "scur"),
            (SLIM, "slim"),
            (STOT, "stot"),
            (DREQ, "dreq"),
            (DRESP, "dresp"),
            (EREQ, "ereq"),
            (ERESP, "eresp"),
            (STATUS, "status"),
            (WEIGHT, "weight"),
            (ACT, "act"),
            (BCK, "bck"),
            (QLIMIT, "qlimit"),
            (PID, "pid"),
            (IID, "iid"),
            (SID, "sid"),
            (LBTOT, "lbtot"),
            (TYPE, "type"),
            (RATE, "rate"),
            (REQ_RATE, "req_rate"),
            (REQ_TOT, "req_tot"),
        ];
        for (place, name) in table {
            assert_eq!(names[place], name, "{place}");
        }
    }

    #[test]
    fn a_row_has_its_cells_in_their_columns_and_commas_between() {
        let mut text = Vec::new();
        let mut row = Row::default();
        row.set(QCUR, 7).say(STATUS, "UP").copy(QCUR, SCUR).put(&mut text, "a", "b");
        let text = String::from_utf8(text).expect("plain text");
        let cells: Vec<&str> = text.trim_end().split(',').collect();
        assert_eq!(cells.len(), COLUMNS + 1, "{text}");
        let known: Vec<_> = cells.iter().enumerate().filter(|(_, cell)| !cell.is_empty()).collect();
        assert_eq!(known, [(0, &"a"), (1, &"b"), (QCUR, &"7"), (SCUR, &"7"), (STATUS, &"UP")]);
    }

    #[test]
    fn an_endpoint_is_seen_once_in_short_lists_and_long_ones() {
        let states: Vec<MemberState> = (0..40).map(|_| MemberState::new()).collect();
        for count in [3, 40] {
            let mut seen = Seen::new(count);
            let found: Vec<bool> =
                states.iter().take(count).chain(&states[..2]).map(|state| seen.is_new(state)).collect();
            assert_eq!(found.iter().filter(|is_new| **is_new).count(), count);
        }
    }

    #[test]
    fn the_targets_of_common_tools_are_known() {
        let targets = [
            "/;csv",
            "/stats;csv",
            "/stats/;csv",
            "/haproxy;csv",
            "/haproxy/;csv",
            "/haproxy?stats;csv",
            "/haproxy/?stats;csv",
            "/?stats;csv",
            "/stats;csv;norefresh",
            "/stats;norefresh;csv",
            "/haproxy?stats;csv;norefresh",
            "/haproxy?stats/;csv",
            "/haproxy-stats;csv",
            "/haproxy/stats;csv",
            "/stats?stats;csv",
            "/stats;csv?scope=www",
            "/haproxy?stats;csv&scope=www",
        ];
        let is_known = |target: &str| {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            is_asked_for(path, query)
        };
        for target in targets {
            assert!(is_known(target), "{target}");
        }
        for target in
            ["/", "/stats", "/haproxy?stats", "/v1/status;csv", "/stats;csvx", "/x?stats;csv", "/haproxy?x;csv"]
        {
            assert!(!is_known(target), "{target}");
        }
    }
}
