//! The sections `defaults`, `frontend`, `listen` and `backend`.

use super::super::position::Position;
use super::super::rules::{Acl, Condition, Format, Rules, Side};
use super::{
    Balance, Bind, Compression, ErrorResponse, ForwardedFor, HashType, HealthCheck, LogTarget, Persistence, Reuse,
    Server, Stats, StickRule, StickTable, Timeouts,
};
use std::collections::BTreeSet;

/// The kind of a proxy's section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyKind {
    /// Defaults for other sections.
    #[default]
    Defaults,
    /// A frontend, which accepts clients.
    Frontend,
    /// A frontend and a backend in one.
    Listen,
    /// A backend, which has servers.
    Backend,
}

/// `mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Bytes. This is the default of `mode`.
    #[default]
    Tcp,
    /// HTTP.
    Http,
    /// Any other mode: `health`, `log`, `spop`.
    Other,
}

/// `option` lines without arguments, and other switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the option of its name")]
pub enum Flag {
    AbortOnClose,
    AllBackups,
    DontLogNormal,
    DontLogNull,
    HttpBufferRequest,
    HttpClose,
    HttpIgnoreProbes,
    HttpKeepAlive,
    HttpServerClose,
    HttpLog,
    HttpsLog,
    TcpLog,
    LogHealthChecks,
    Persist,
    PreferLastServer,
    Redispatch,
    TcpKeepAlive,
    ClientKeepAlive,
    ServerKeepAlive,
}

/// A proxy, including inherited `defaults`.
#[derive(Clone, Debug, Default)]
pub struct Proxy {
    /// The kind of its section.
    pub kind: ProxyKind,
    /// The name; empty for an unnamed `defaults`.
    pub name: String,
    /// The position of its section.
    pub at: Position,
    /// Where the `defaults` section begins whose rules it has.
    pub inherited_rules: Option<Position>,
    /// `mode`.
    pub mode: Mode,
    /// `disabled`.
    pub is_disabled: bool,
    /// `bind` lines.
    pub binds: Vec<Bind>,
    /// `server` and `server-template` lines.
    pub servers: Vec<Server>,
    /// `default-server`, for the servers that follow.
    pub default_server: Server,
    /// `maxconn`: the greatest number of client connections of a frontend.
    pub maxconn: Option<u64>,
    /// `backlog`.
    pub backlog: Option<u64>,
    /// `fullconn`: the load at which `minconn` becomes `maxconn`.
    pub fullconn: Option<u64>,
    /// `rate-limit sessions`: new connections a second.
    pub session_rate: Option<u64>,
    /// `balance`.
    pub balance: Balance,
    /// `hash-type`.
    pub hash_type: Option<HashType>,
    /// `hash-balance-factor`, in percent; 0 is off.
    pub hash_balance_factor: u64,
    /// `cookie`.
    pub persistence: Option<Persistence>,
    /// `dynamic-cookie-key`.
    pub dynamic_cookie_key: Option<String>,
    /// `option httpchk`, `option tcp-check`, `http-check`.
    pub check: HealthCheck,
    /// `timeout` lines.
    pub timeouts: Timeouts,
    /// `option` lines that are on.
    pub flags: BTreeSet<Flag>,
    /// `option forwardfor`.
    pub forwarded_for: Option<ForwardedFor>,
    /// `retries`. Default 3.
    pub retries: Option<u64>,
    /// `retry-on`.
    pub retry_on: Vec<String>,
    /// `http-reuse`.
    pub reuse: Reuse,
    /// `errorfile`, `errorfiles`, `errorloc`, `http-error`.
    pub errors: Vec<ErrorResponse>,
    /// `stats` lines.
    pub stats: Stats,
    /// `monitor-uri`: this node responds to it.
    pub monitor_uri: Option<String>,
    /// `monitor fail`: the conditions under which the monitor's response is 503.
    pub monitor_fail: Vec<Condition>,
    /// `log` lines.
    pub logs: Vec<LogTarget>,
    /// `log-format`.
    pub log_format: Option<Format>,
    /// `log-tag`.
    pub log_tag: Option<String>,
    /// `unique-id-format`.
    pub unique_id_format: Option<Format>,
    /// `unique-id-header`.
    pub unique_id_header: Option<String>,
    /// `compression`.
    pub compression: Compression,
    /// `stick-table`.
    pub stick_table: Option<StickTable>,
    /// `stick on` and related lines.
    pub stick_rules: Vec<StickRule>,
    /// `acl` lines; tests with one name are combined with "or".
    pub acls: Vec<Acl>,
    /// Rules, `use_backend`, `use-server`, `redirect`.
    pub rules: Rules,
    /// Values that are kept for later rules.
    pub captures: Captures,
    /// `default_backend`, and its position.
    pub default_backend: Option<(String, Position)>,
}

/// Slots for values that later rules read (`capture.req.hdr`), in the order of their lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    /// Those of requests.
    pub request: Vec<Capture>,
    /// Those of responses.
    pub response: Vec<Capture>,
}

/// A slot for a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The header that it has the value of; `None` if rules fill it.
    pub header: Option<String>,
    /// The greatest length in bytes.
    pub len: usize,
}

impl Captures {
    /// The slots for requests or responses.
    pub fn of(&self, side: Side) -> &[Capture] {
        match side {
            Side::Request => &self.request,
            Side::Response => &self.response,
        }
    }
}

impl Proxy {
    /// Whether it accepts clients.
    pub fn is_frontend(&self) -> bool {
        matches!(self.kind, ProxyKind::Frontend | ProxyKind::Listen)
    }

    /// Whether it has servers.
    pub fn is_backend(&self) -> bool {
        matches!(self.kind, ProxyKind::Backend | ProxyKind::Listen)
    }

    /// Whether an option is on.
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }
}
