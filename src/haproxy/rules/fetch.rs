//! Fetches: properties of a request, a response, a connection or this node.

use super::words::{fetches, is_other_fetch, nearest_fetch};
use super::{Problem, RuleContext};
use crate::haproxy::keyword::Treatment;
use crate::haproxy::position::Position;

/// The type of a value, which determines the comparison unless `-m` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleType {
    /// True or false.
    Bool,
    /// A signed number.
    Int,
    /// An IPv4 or IPv6 address.
    Ip,
    /// Bytes.
    Text,
}

/// The head that a fetch reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The request's.
    Request,
    /// The response's.
    Response,
}

impl Side {
    /// Whether rules of this side have a variable: one of scope `req` ends with the request, and one of `res` begins with
    /// the response.
    pub fn has_variable(self, name: &str) -> bool {
        match self {
            Self::Request => !name.starts_with("res."),
            Self::Response => !name.starts_with("req."),
        }
    }
}

/// A counter of an entry of a stick table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the data type of its name (configuration.txt, stick-table)")]
pub enum Counter {
    ConnCnt,
    ConnCur,
    ConnRate,
    SessCnt,
    SessRate,
    HttpReqCnt,
    HttpReqRate,
    HttpErrCnt,
    HttpErrRate,
    HttpFailCnt,
    HttpFailRate,
    Gpc0,
    Gpc0Rate,
    Gpc1,
    Gpc1Rate,
    Gpt0,
    BytesInRate,
    BytesOutRate,
}

/// The operation of a fetch on a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CounterOperation {
    /// Read it.
    Read,
    /// Increment it, then read it (`inc_gpc0`).
    Increment,
    /// Read it, then clear it (`clr_gpc0`).
    Clear,
}

impl Counter {
    /// The counter for a keyword of `store`; `None` if it is not supported.
    pub(in super::super) fn of_stored(name: &str) -> Option<Self> {
        Some(match name {
            "conn_cnt" => Self::ConnCnt,
            "conn_cur" => Self::ConnCur,
            "conn_rate" => Self::ConnRate,
            "sess_cnt" => Self::SessCnt,
            "sess_rate" => Self::SessRate,
            "http_req_cnt" => Self::HttpReqCnt,
            "http_req_rate" => Self::HttpReqRate,
            "http_err_cnt" => Self::HttpErrCnt,
            "http_err_rate" => Self::HttpErrRate,
            "http_fail_cnt" => Self::HttpFailCnt,
            "http_fail_rate" => Self::HttpFailRate,
            "gpc0" => Self::Gpc0,
            "gpc0_rate" => Self::Gpc0Rate,
            "gpc1" => Self::Gpc1,
            "gpc1_rate" => Self::Gpc1Rate,
            "gpt0" => Self::Gpt0,
            _ => return None,
        })
    }
}

/// A fetch with its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fetch {
    /// `method`.
    Method,
    /// `path`: without the query.
    Path,
    /// `pathq`: with the query.
    PathQuery,
    /// `url`: the target as sent.
    Url,
    /// `capture.req.uri`: the target as received, available to rules of responses too.
    CapturedUri,
    /// `capture.req.hdr`, `capture.res.hdr`: the value in a slot of the frontend.
    Captured(Side, u16),
    /// `query`: after the `?`.
    Query,
    /// `base`: the host and the path.
    Base,
    /// `url_param`, `urlp`: a parameter of the query; without a name the first one.
    UrlParam {
        /// The name.
        name: Option<String>,
        /// Whether the case of the name is ignored.
        ignore_case: bool,
    },
    /// `hdr`, `req.hdr`, `res.hdr`, `fhdr`: a field by its name in lower case.
    Header {
        /// Request or response.
        side: Side,
        /// The name.
        name: String,
        /// 1 is the first value, -1 the last; `None`: all in an ACL, the last elsewhere.
        occurrence: Option<i32>,
        /// `fhdr`: values are whole lines, not separated by commas.
        is_line: bool,
        /// The type: text, number (`hdr_val`) or address (`hdr_ip`).
        read_as: ReadAs,
    },
    /// `hdr_cnt`, `fhdr_cnt`.
    HeaderCount {
        /// Request or response.
        side: Side,
        /// The name.
        name: String,
        /// `fhdr_cnt`: lines are counted, not values.
        is_line: bool,
    },
    /// `req.cook`, and `res.cook` of a response's `Set-Cookie`.
    Cookie {
        /// Request or response.
        side: Side,
        /// The name, case-sensitive; `None` is the first cookie.
        name: Option<String>,
        /// The type, such as a number (`cook_val`).
        read_as: ReadAs,
    },
    /// `req.cook_cnt`.
    CookieCount(Option<String>),
    /// `req.ver`: such as `1.1`.
    Version,
    /// `status`.
    Status,
    /// `ssl_fc`: the client speaks TLS.
    Ssl,
    /// `ssl_fc_sni`: the server name of the client's handshake.
    Sni,
    /// `ssl_fc_has_sni`.
    HasSni,
    /// `src`.
    Source,
    /// `src_port`.
    SourcePort,
    /// `dst`.
    Destination,
    /// `dst_port`.
    DestinationPort,
    /// `always_true`, `always_false`, `bool(…)`.
    Bool(bool),
    /// `int(…)`.
    Int(i64),
    /// `str(…)`, `env(…)`, `hostname`.
    Text(String),
    /// `nbsrv`: the number of servers that are up; in the own backend without a name.
    ServersUp(Option<String>),
    /// `srv_is_up`: backend and server.
    ServerIsUp(Option<String>, String),
    /// `connslots`: free places for connections and in queues.
    ConnectionSlots(Option<String>),
    /// `be_conn`, `fe_conn`, `queue`: connections or queued requests of a proxy.
    Load(LoadKind, Option<String>),
    /// `var(scope.name)`.
    Variable(String),
    /// `http_auth(list)`.
    HttpAuth(String),
    /// `http_auth_group(list)`.
    HttpAuthGroup(String),
    /// `http_auth_user`.
    HttpAuthUser,
    /// `sc0_http_req_rate`, `src_conn_cur`, …: a counter of the tracked entry, or of the client's own entry.
    StickCounter {
        /// The counter.
        counter: Counter,
        /// The operation.
        operation: CounterOperation,
        /// The slot of `track-scN`; `None` is the client's own entry.
        slot: Option<u8>,
        /// The proxy that has the table.
        table: Option<String>,
    },
    /// `fe_name`.
    FrontendName,
    /// `be_name`.
    BackendName,
    /// `srv_name`.
    ServerName,
    /// `unique-id`.
    UniqueId,
    /// `date`: seconds since 1970, and an offset.
    Date(i64),
    /// `rand`: from 0 to below this number.
    Random(u32),
}

/// The type that a text is parsed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadAs {
    /// A text.
    Text,
    /// A number.
    Int,
    /// An address.
    Ip,
}

/// A count of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoadKind {
    /// `fe_conn`.
    FrontendConnections,
    /// `be_conn`.
    BackendConnections,
    /// `queue`.
    Queue,
}

impl Fetch {
    /// The type of its values.
    pub fn value_type(&self) -> SampleType {
        match self {
            Self::Header { read_as, .. } | Self::Cookie { read_as, .. } => match read_as {
                ReadAs::Text => SampleType::Text,
                ReadAs::Int => SampleType::Int,
                ReadAs::Ip => SampleType::Ip,
            },
            Self::Ssl | Self::HasSni | Self::Bool(_) | Self::HttpAuth(_) | Self::ServerIsUp(..) => SampleType::Bool,
            Self::Source | Self::Destination => SampleType::Ip,
            Self::HeaderCount { .. }
            | Self::CookieCount(_)
            | Self::Status
            | Self::SourcePort
            | Self::DestinationPort
            | Self::Int(_)
            | Self::ServersUp(_)
            | Self::ConnectionSlots(_)
            | Self::Load(..)
            | Self::StickCounter { .. }
            | Self::Date(_)
            | Self::Random(_) => SampleType::Int,
            _ => SampleType::Text,
        }
    }
}

/// A fetch by its name and arguments.
pub(super) fn parse(
    name: &str,
    arguments: &[String],
    at: Position,
    context: RuleContext<'_, '_>,
) -> Result<Fetch, Problem> {
    let Some(word) = fetches().iter().find(|word| word.name == name) else {
        if let Some(fetch) = counter_fetch(name, arguments) {
            return Ok(fetch);
        }
        if name.starts_with("lua.") {
            return Err(Problem::unsupported(at, format!("{name}: sluice runs no Lua")));
        }
        if is_other_fetch(name) {
            return Err(Problem::unsupported(at, format!("{name}: sluice does not have this fetch")));
        }
        let nearest = nearest_fetch(name).map(|name| format!("; {name} is similar")).unwrap_or_default();
        return Err(Problem::wrong(at, format!("{name:?} is no sample fetch that sluice knows of{nearest}")));
    };
    if word.treatment == Treatment::Refused {
        return Err(Problem::unsupported(at, format!("{name}: {}", word.reason)));
    }
    if arguments.len() > most_arguments(name) {
        return Err(Problem::wrong(at, format!("{name} has at most {} arguments", most_arguments(name))));
    }
    build(name, arguments, context).map_err(|problem| Problem::wrong(at, format!("{name}: {problem}")))
}

/// The greatest number of arguments of a fetch.
fn most_arguments(name: &str) -> usize {
    match name {
        "url_param" | "urlp" => 3,
        "hdr" | "hdr_ip" | "hdr_val" | "shdr" | "shdr_ip" | "shdr_val" | "date" | "var" => 2,
        _ if name.contains("hdr") && !name.ends_with("_cnt") && !name.starts_with("capture.") => 2,
        "method" | "path" | "pathq" | "url" | "base" | "src" | "src_port" | "dst" | "dst_port" | "ssl_fc"
        | "ssl_fc_sni" | "ssl_fc_has_sni" | "status" | "always_true" | "always_false" => 0,
        _ => 1,
    }
}

/// The fetch for a name that the table lists as supported.
fn build(name: &str, arguments: &[String], context: RuleContext<'_, '_>) -> Result<Fetch, String> {
    let optional = |index: usize| arguments.get(index).filter(|text| !text.is_empty()).cloned();
    let required = |index: usize, what: &str| optional(index).ok_or_else(|| format!("expected {what} in parentheses"));
    let fetch = match name {
        "method" => Fetch::Method,
        "path" => Fetch::Path,
        "pathq" => Fetch::PathQuery,
        "url" => Fetch::Url,
        "capture.req.uri" => Fetch::CapturedUri,
        "capture.req.method" => Fetch::Method,
        "capture.req.hdr" | "capture.res.hdr" => {
            let slot = required(0, "the number of a slot")?.parse().map_err(|_| "expected the number of a slot")?;
            Fetch::Captured(if name == "capture.req.hdr" { Side::Request } else { Side::Response }, slot)
        }
        "query" if arguments.is_empty() => Fetch::Query,
        "query" => return Err("options of it are not read".to_owned()),
        "var" | "date" if arguments.len() > 1 => return Err("a second argument is not read".to_owned()),
        "base" => Fetch::Base,
        "url_param" | "urlp" if optional(1).is_some_and(|delimiter| delimiter != "?") => {
            return Err("parameters behind another delimiter than ? are not read".to_owned());
        }
        "url_param" | "urlp" => {
            Fetch::UrlParam { name: optional(0), ignore_case: optional(2).is_some_and(|flag| flag == "i") }
        }
        "req.ver" | "req_ver" => Fetch::Version,
        "status" | "txn.status" => Fetch::Status,
        "ssl_fc" => Fetch::Ssl,
        "ssl_fc_sni" => Fetch::Sni,
        "ssl_fc_has_sni" => Fetch::HasSni,
        "src" => Fetch::Source,
        "src_port" => Fetch::SourcePort,
        "dst" => Fetch::Destination,
        "dst_port" => Fetch::DestinationPort,
        "always_true" => Fetch::Bool(true),
        "always_false" => Fetch::Bool(false),
        "bool" => Fetch::Bool(!matches!(required(0, "true or false")?.as_str(), "0" | "false" | "no" | "off")),
        "int" => Fetch::Int(required(0, "a number")?.parse().map_err(|_| "expected a number in parentheses")?),
        "str" => Fetch::Text(optional(0).unwrap_or_default()),
        "env" => {
            let name = required(0, "a variable")?;
            Fetch::Text(context.environment.variable(&name).unwrap_or_default().to_owned())
        }
        "nbsrv" => Fetch::ServersUp(optional(0)),
        "connslots" => Fetch::ConnectionSlots(optional(0)),
        "fe_conn" => Fetch::Load(LoadKind::FrontendConnections, optional(0)),
        "be_conn" => Fetch::Load(LoadKind::BackendConnections, optional(0)),
        "queue" => Fetch::Load(LoadKind::Queue, optional(0)),
        "srv_is_up" => match required(0, "a server")?.split_once('/') {
            Some((backend, server)) => Fetch::ServerIsUp(Some(backend.to_owned()), server.to_owned()),
            None => Fetch::ServerIsUp(None, required(0, "a server")?),
        },
        "var" => Fetch::Variable(variable(&required(0, "scope.name")?)?),
        "http_auth" => Fetch::HttpAuth(required(0, "a userlist")?),
        "http_auth_group" => Fetch::HttpAuthGroup(required(0, "a userlist")?),
        "http_auth_user" => Fetch::HttpAuthUser,
        "fe_name" => Fetch::FrontendName,
        "be_name" => Fetch::BackendName,
        "srv_name" => Fetch::ServerName,
        "unique-id" => Fetch::UniqueId,
        "date" => Fetch::Date(optional(0).map_or(Ok(0), |offset| offset.parse()).map_err(|_| "expected seconds")?),
        "rand" => {
            Fetch::Random(optional(0).map_or(Ok(u32::MAX), |range| range.parse()).map_err(|_| "expected a range")?)
        }
        // The whole head has been read, so there is nothing left to wait for.
        "req.proto_http" | "req_proto_http" | "wait_end" => Fetch::Bool(true),
        _ => return head_fetch(name, arguments),
    };
    Ok(fetch)
}

/// Checks `scope.name`.
pub(super) fn variable(text: &str) -> Result<String, String> {
    let scopes = ["proc", "sess", "txn", "req", "res"];
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
    };
    match text.split_once('.') {
        Some((scope, name)) if scopes.contains(&scope) && is_name(name) => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is no variable; expected a scope ({}) and a name", scopes.join(", "))),
    }
}

/// Parses fetches of headers and cookies.
fn head_fetch(name: &str, arguments: &[String]) -> Result<Fetch, String> {
    let (side, plain) = match name {
        _ if name.starts_with("res.") => (Side::Response, &name[4..]),
        _ if name.starts_with("req.") => (Side::Request, &name[4..]),
        "shdr" | "shdr_cnt" | "shdr_ip" | "shdr_val" | "scook" | "scook_cnt" | "scook_val" => {
            (Side::Response, &name[1..])
        }
        "cookie" => (Side::Request, "cook"),
        "set-cookie" => (Side::Response, "cook"),
        _ => (Side::Request, name),
    };
    let first = arguments.first().filter(|text| !text.is_empty()).cloned();
    let header =
        || first.clone().map(|name| name.to_ascii_lowercase()).ok_or("expected the name of a header in parentheses");
    let occurrence = match arguments.get(1).filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(text.parse::<i32>().map_err(|_| format!("{text:?} is no number of a value"))?),
    };
    // Zero is equivalent to none.
    let occurrence = occurrence.filter(|occurrence| *occurrence != 0);
    let as_header = |is_line, read_as| Ok(Fetch::Header { side, name: header()?, occurrence, is_line, read_as });
    match plain {
        "hdr" => as_header(false, ReadAs::Text),
        "fhdr" => as_header(true, ReadAs::Text),
        "hdr_val" => as_header(false, ReadAs::Int),
        "hdr_ip" => as_header(false, ReadAs::Ip),
        "hdr_cnt" => Ok(Fetch::HeaderCount { side, name: header()?, is_line: false }),
        "fhdr_cnt" => Ok(Fetch::HeaderCount { side, name: header()?, is_line: true }),
        "cook" => Ok(Fetch::Cookie { side, name: first, read_as: ReadAs::Text }),
        "cook_val" => Ok(Fetch::Cookie { side, name: first, read_as: ReadAs::Int }),
        "cook_cnt" if side == Side::Request => Ok(Fetch::CookieCount(first)),
        _ => Err("this fetch is in no table".to_owned()),
    }
}

/// Parses `sc0_NAME(table)`, `sc_NAME(slot,table)`, `src_NAME(table)`.
fn counter_fetch(name: &str, arguments: &[String]) -> Option<Fetch> {
    let table = |index: usize| arguments.get(index).filter(|text| !text.is_empty()).cloned();
    let (slot, what, table) = if let Some(what) = name.strip_prefix("src_") {
        (None, what, table(0))
    } else if let Some(what) = name.strip_prefix("sc_") {
        (Some(arguments.first()?.parse().ok()?), what, table(1))
    } else {
        let (slot, what) = name.strip_prefix("sc")?.split_once('_')?;
        (Some(slot.parse().ok()?), what, table(0))
    };
    let (operation, name) = match what.split_once('_') {
        Some(("get", name)) => (CounterOperation::Read, name),
        Some(("inc", name)) => (CounterOperation::Increment, name),
        Some(("clr", name)) => (CounterOperation::Clear, name),
        _ => (CounterOperation::Read, what),
    };
    let counter = match name {
        "bytes_in_rate" => Counter::BytesInRate,
        "bytes_out_rate" => Counter::BytesOutRate,
        name => Counter::of_stored(name)?,
    };
    // These have an operation in their name, the others have none.
    let is_general = matches!(counter, Counter::Gpc0 | Counter::Gpc1 | Counter::Gpt0);
    (is_general == (name != what)).then_some(Fetch::StickCounter { counter, operation, slot, table })
}
