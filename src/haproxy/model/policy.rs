//! Policies of a proxy: balancing, checks, persistence, logs and errors.

use super::super::position::Position;
use super::super::rules::{Condition, Sample};
use std::time::Duration;

/// `balance`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// In turn, by fixed weights.
    StaticRoundRobin,
    /// The server with the fewest connections.
    LeastConn,
    /// The first server with room.
    First,
    /// Hash of the client's address.
    Source,
    /// Hash of the path, and of the query if `whole`.
    Uri {
        /// `len`: the number of bytes used.
        len: Option<u32>,
        /// `depth`: the number of folders used.
        depth: Option<u32>,
        /// `whole`: the query is used too.
        whole: bool,
        /// `path-only`: scheme and authority are not used.
        path_only: bool,
    },
    /// Hash of a parameter of the query.
    UrlParam(String),
    /// Hash of a request header; the flag is `use_domain_only`.
    Header(String, bool),
    /// The least loaded of several random servers.
    Random(u32),
    /// Hash of a sample.
    Hash(Box<Sample>),
}

/// `hash-type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashType {
    /// `consistent` rather than `map-based`.
    pub is_consistent: bool,
    /// `sdbm`, `djb2`, `wt6`, `crc32` or `none`.
    pub function: String,
    /// `avalanche`.
    pub avalanche: bool,
}

/// The handling of the persistence cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieMode {
    /// `rewrite`: the application sets it, and its value is replaced.
    Rewrite,
    /// `insert`: it is set.
    Insert,
    /// `prefix`: the server's value is put before the application's.
    Prefix,
    /// None of them: it is only read.
    Passive,
}

/// `cookie` of a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// The name.
    pub name: String,
    /// How it is handled.
    pub mode: CookieMode,
    /// `indirect`: it is hidden from servers.
    pub indirect: bool,
    /// `nocache`: responses that set it are not cacheable.
    pub nocache: bool,
    /// `postonly`: it is set in responses to POST only.
    pub postonly: bool,
    /// `preserve`: a cookie set by the server is kept.
    pub preserve: bool,
    /// `httponly`.
    pub httponly: bool,
    /// `secure`.
    pub secure: bool,
    /// `domain`.
    pub domains: Vec<String>,
    /// `maxidle`.
    pub max_idle: Option<Duration>,
    /// `maxlife`.
    pub max_life: Option<Duration>,
    /// `attr`, verbatim.
    pub attributes: Vec<String>,
    /// `dynamic`: a server without a value has one made from its address.
    pub is_dynamic: bool,
}

/// `option httpchk` with `http-check`, or a bare connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthCheck {
    /// `option httpchk` (an HTTP request rather than a mere connection).
    pub is_http: bool,
    /// Its method. Default `OPTIONS`.
    pub method: Option<String>,
    /// Its target. Default `/`.
    pub uri: Option<String>,
    /// Its version, followed by header lines in old files.
    pub version: Option<String>,
    /// `http-check` lines in order.
    pub steps: Vec<HttpCheckStep>,
    /// `http-check disable-on-404`: 404 drains the server.
    pub disable_on_404: bool,
    /// `http-check send-state`.
    pub send_state: bool,
}

/// A line `http-check`.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpCheckStep {
    /// `send`.
    Send {
        /// `meth`.
        method: Option<String>,
        /// `uri` or `uri-lf`.
        uri: Option<String>,
        /// `ver`.
        version: Option<String>,
        /// `hdr` pairs.
        headers: Vec<(String, String)>,
        /// `body` or `body-lf`.
        body: Option<String>,
    },
    /// `expect`.
    Expect {
        /// `!` before the test.
        negated: bool,
        /// `status`, `rstatus`, `string`, `rstring` or `hdr`.
        what: String,
        /// The pattern; for `hdr` all its words.
        pattern: String,
    },
    /// `connect`, with its words.
    Connect(Vec<String>),
}

/// All `timeout` lines. `None`: not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// `timeout connect`.
    pub connect: Option<Duration>,
    /// `timeout client`: inactivity of the client.
    pub client: Option<Duration>,
    /// `timeout server`: inactivity of the server.
    pub server: Option<Duration>,
    /// `timeout tunnel`: inactivity of a tunnel.
    pub tunnel: Option<Duration>,
    /// `timeout http-request`: the head of a request.
    pub http_request: Option<Duration>,
    /// `timeout http-keep-alive`: the next request.
    pub http_keep_alive: Option<Duration>,
    /// `timeout queue`; without it `timeout connect`.
    pub queue: Option<Duration>,
    /// `timeout check`: the response to a check.
    pub check: Option<Duration>,
    /// `timeout client-fin`: after the client has closed its half.
    pub client_fin: Option<Duration>,
    /// `timeout server-fin`: after the server has closed its half.
    pub server_fin: Option<Duration>,
    /// `timeout tarpit`.
    pub tarpit: Option<Duration>,
}

/// `option forwardfor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardedFor {
    /// `except`: clients in these networks get none.
    pub except: Vec<ipnet::IpNet>,
    /// `header`: the name instead of `X-Forwarded-For`.
    pub header: Option<String>,
    /// `if-none`: an existing header is kept.
    pub if_none: bool,
}

/// A response for an error status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    /// Its status.
    pub status: u16,
    /// Its source.
    pub source: ErrorSource,
    /// Its position.
    pub at: Position,
}

/// The source of an error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorSource {
    /// `errorfile`: a raw response in a file, whose own status may differ.
    RawFile(String),
    /// `errorloc` (302) and `errorloc303`: the status and the location.
    Redirect(u16, String),
    /// `http-error`: content type, and a file or a text.
    Content {
        /// `content-type`.
        content_type: Option<String>,
        /// `file` or `lf-file`.
        file: Option<String>,
        /// `string` or `lf-string`.
        text: Option<String>,
        /// `hdr` pairs.
        headers: Vec<(String, String)>,
    },
    /// `errorfiles`: a section `http-errors`.
    Group(String),
}

/// `stats` lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// `stats enable`, or any other `stats` line.
    pub is_enabled: bool,
    /// `stats uri`. HAProxy's default is `/haproxy?stats`.
    pub uri: Option<String>,
    /// `stats realm`.
    pub realm: Option<String>,
    /// `stats auth` lines.
    pub auth: Vec<StatsAuth>,
    /// `stats refresh`.
    pub refresh: Option<Duration>,
    /// `stats hide-version`.
    pub hides_version: bool,
    /// `stats scope` lines.
    pub scope: Vec<String>,
}

/// `stats auth user:password`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsAuth {
    /// The user.
    pub user: String,
    /// The password, in the clear.
    pub password: String,
}

/// `user` of a user list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCredential {
    /// The name.
    pub name: String,
    /// The password: a hash of crypt(3), or in the clear with `insecure-password`. `None`: the user cannot log in.
    pub password: Option<String>,
    /// Whether the password is in the clear.
    pub is_clear: bool,
    /// `groups`.
    pub groups: Vec<String>,
}

/// `log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// `log global`.
    Global,
    /// `log <address> <facility> [level]`.
    Address {
        /// The address, `stdout`, or a path.
        address: String,
        /// The facility.
        facility: String,
        /// The least important level.
        level: Option<String>,
    },
}

/// `compression`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compression {
    /// `algo`, in order.
    pub algorithms: Vec<String>,
    /// `type`: content types; empty is all.
    pub types: Vec<String>,
    /// `offload`: servers are not asked to compress.
    pub offload: bool,
}

/// `http-reuse`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// No connection is shared.
    Never,
    /// The first request of a client uses a new connection.
    #[default]
    Safe,
    /// Connections that have been reused before are shared.
    Aggressive,
    /// All are shared.
    Always,
}

/// `stick-table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickTable {
    /// `ip`, `ipv6`, `integer`, `string` or `binary`.
    pub key: String,
    /// `len` of a string or binary key.
    pub key_len: Option<u32>,
    /// `size`: the greatest number of entries.
    pub size: u64,
    /// `expire`.
    pub expire: Option<Duration>,
    /// `nopurge`: a full table accepts no new entries.
    pub nopurge: bool,
    /// `store`: the counters, and the period of a rate.
    pub store: Vec<(String, Option<Duration>)>,
}

/// `stick on`, `stick match`, `stick store-request`.
#[derive(Clone, Debug, PartialEq)]
pub struct StickRule {
    /// Whether an entry selects the server.
    pub is_match: bool,
    /// Whether the choice is stored.
    pub is_store: bool,
    /// `stick store-response`: the key comes from the response.
    pub is_response: bool,
    /// The key.
    pub key: Sample,
    /// The proxy that has the table; the own proxy if `None`.
    pub table: Option<String>,
    /// The condition.
    pub condition: Option<Condition>,
}
