//! The actions of rules.

use super::acl::Condition;
use super::fetch::Counter;
use super::format::Format;
use super::regex::Regex;
use super::sample::Sample;
use crate::haproxy::position::Position;

/// All rules of a proxy. HAProxy's order: `connection`, `content`, `request`, `old_request`, `redirects`, `use_backend`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `tcp-request connection` and `tcp-request session`: for new connections.
    pub connection: Vec<Rule>,
    /// `tcp-request content`.
    pub content: Vec<Rule>,
    /// `http-request`, the old `block` lines before it.
    pub request: Vec<Rule>,
    /// The old `req*` lines, whatever `http-request allow` says. `reqadd` comes last.
    pub old_request: Vec<Rule>,
    /// `redirect`: after all of `request`, whatever the position of the line.
    pub redirects: Vec<Rule>,
    /// `use_backend`: the first rule whose condition holds.
    pub use_backend: Vec<BackendRule>,
    /// `use-server`.
    pub use_server: Vec<ServerRule>,
    /// `http-response`.
    pub response: Vec<Rule>,
    /// The old `rsp*` lines. `rspadd` comes last.
    pub old_response: Vec<Rule>,
    /// `http-after-response`: for responses of this node too.
    pub after_response: Vec<Rule>,
}

/// An action and its condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The action.
    pub action: Action,
    /// The condition; `None` holds always.
    pub condition: Option<Condition>,
    /// Its position.
    pub at: Position,
}

/// `use_backend`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRule {
    /// The backend.
    pub target: BackendTarget,
    /// The condition; `None` holds always.
    pub condition: Option<Condition>,
    /// Its position.
    pub at: Position,
}

/// The target of `use_backend`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendTarget {
    /// A backend by name.
    Named(String),
    /// A name made from the request; if there is no such backend, the default is used.
    Dynamic(Format),
}

/// `use-server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRule {
    /// The server.
    pub server: String,
    /// The condition; `None` holds always.
    pub condition: Option<Condition>,
    /// Its position.
    pub at: Position,
}

/// An action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The rest of the list is skipped.
    Allow,
    /// Responds instead of forwarding, with 403 by default.
    Deny(LocalResponse),
    /// As `Deny`, after `timeout tarpit`; 500 by default.
    Tarpit(LocalResponse),
    /// 401 (or 407) with a realm.
    Auth(Option<String>),
    /// A redirect.
    Redirect(Redirect),
    /// Responds with any status.
    Return(LocalResponse),
    /// `use-service prometheus-exporter`: this node's metrics.
    Metrics,
    /// Closes the connection without a response.
    Reject,
    /// As `Reject`, without notifying the client.
    SilentDrop,
    /// Replaces all fields with this name by one.
    SetHeader(String, Format),
    /// Adds a field.
    AddHeader(String, Format),
    /// Removes all fields with this name.
    DelHeader(String),
    /// Removes all fields whose name matches (`-m beg`, `end`, `sub`, `reg`, as an expression).
    DelHeadersMatching(Regex),
    /// Replaces matches in the lines with this name.
    ReplaceHeader(String, Regex, Format),
    /// Replaces matches in the values with this name, separated by commas.
    ReplaceValue(String, Regex, Format),
    /// Sets the method.
    SetMethod(Format),
    /// Sets the path and keeps the query.
    SetPath(Format),
    /// Sets the path with the query.
    SetPathQuery(Format),
    /// Sets the query.
    SetQuery(Format),
    /// Sets the whole target.
    SetUri(Format),
    /// Replaces matches in the path.
    ReplacePath(Regex, Format),
    /// Replaces matches in the path with the query.
    ReplacePathQuery(Regex, Format),
    /// Replaces matches in the target.
    ReplaceUri(Regex, Format),
    /// Sets the status of the response, and a phrase.
    SetStatus(u16, Option<String>),
    /// Sets a variable to the value of a sample.
    SetVar(String, Sample),
    /// Sets a variable to a text.
    SetVarFormat(String, Format),
    /// Removes a variable.
    UnsetVar(String),
    /// `track-sc0` to `track-sc2`: the slot, the key, and the proxy that has the table; the own proxy if `None`.
    Track(usize, Sample, Option<String>),
    /// `sc-inc-gpc0`, `sc-inc-gpc1`: increments a counter of the entry in a slot.
    IncrementCounter(usize, Counter),
    /// `sc-set-gpt0`: sets the tag of the entry in a slot.
    SetTag(usize, u32),
    /// Keeps the value of a sample in a slot for later rules (`capture`).
    Capture {
        /// The sample.
        sample: Sample,
        /// The slot of the frontend.
        slot: usize,
        /// The length of a slot that the rule declares itself.
        len: Option<usize>,
    },
    /// Takes the client's address from a sample.
    SetSource(Sample),
    /// The old `reqrep` and `rsprep`: replaces matches in a whole header line (or the request line).
    ReplaceLine(Regex, String),
    /// The old `reqadd` and `rspadd`: adds a header line.
    AddLine(String),
    /// The old `reqdel` and `rspdel`: removes matching header lines.
    DelLine(Regex),
    /// The old `reqdeny`: denies a request with a matching line.
    DenyLine(Regex),
    /// In the old `reqallow`: a request with a line that matches is not denied by the old rules that follow.
    AllowLine(Regex),
}

/// A redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The kind of its target.
    pub kind: RedirectKind,
    /// 301, 302 (default), 303, 307 or 308.
    pub status: u16,
    /// `drop-query`.
    pub drop_query: bool,
    /// `keep-query`.
    pub keep_query: bool,
    /// `append-slash`.
    pub append_slash: bool,
    /// `ignore-empty`: an empty location has no effect.
    pub ignore_empty: bool,
    /// `set-cookie NAME[=value]`.
    pub set_cookie: Option<String>,
    /// `clear-cookie NAME[=]`.
    pub clear_cookie: Option<String>,
}

/// The target of a redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectKind {
    /// `location`: this location.
    Location(Format),
    /// `prefix`: this prefix, with the target appended.
    Prefix(Format),
    /// `scheme`: the same host and target with another scheme.
    Scheme(Format),
}

/// A response of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalResponse {
    /// The status; the default of the action if `None`.
    pub status: Option<u16>,
    /// `content-type`.
    pub content_type: Option<String>,
    /// `hdr` pairs.
    pub headers: Vec<(String, Format)>,
    /// `string`, `lf-string`, or the content of `lf-file`.
    pub text: Option<Format>,
    /// `file`.
    pub file: Option<String>,
    /// `errorfile`: a raw response in a file.
    pub raw_file: Option<String>,
    /// `errorfiles`: a section `http-errors`.
    pub error_group: Option<String>,
    /// `default-errorfiles`.
    pub default_errors: bool,
}

impl Action {
    /// Whether an action in a rule of connections applies to each request, and not only to the first one: the variables
    /// and the address that it sets are kept for one request.
    pub(in super::super) fn is_of_each_request(&self) -> bool {
        // Variables of the connection and of the process stay.
        let is_kept = |name: &str| name.starts_with("sess.") || name.starts_with("proc.");
        match self {
            Self::Allow | Self::SetSource(_) => true,
            Self::SetVar(name, _) | Self::SetVarFormat(name, _) | Self::UnsetVar(name) => !is_kept(name),
            _ => false,
        }
    }
}

impl Rules {
    /// Whether there are rules that HAProxy has in a `defaults` section with a name only.
    pub(in super::super) fn has_any(&self) -> bool {
        let lists = [&self.connection, &self.content, &self.request, &self.response, &self.after_response];
        lists.iter().any(|list| !list.is_empty())
    }
}
