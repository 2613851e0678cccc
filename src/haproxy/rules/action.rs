//! What rules do.

use super::acl::Condition;
use super::fetch::Counter;
use super::format::Format;
use super::pattern::Regex;
use super::sample::Sample;
use crate::haproxy::position::Position;

/// All rules of a proxy. HAProxy's order: `connection`, `content`, `request`, `redirects`, `use_backend`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `tcp-request connection` and `tcp-request session`: when a client comes.
    pub connection: Vec<Rule>,
    /// `tcp-request content`.
    pub content: Vec<Rule>,
    /// `http-request`, the old `block` lines before it and the old `req*` lines after it.
    pub request: Vec<Rule>,
    /// `redirect`: after all of `request`, wherever the line stands.
    pub redirects: Vec<Rule>,
    /// `use_backend`: the first whose condition holds.
    pub use_backend: Vec<BackendRule>,
    /// `use-server`.
    pub use_server: Vec<ServerRule>,
    /// `http-response`, the old `rsp*` lines after it.
    pub response: Vec<Rule>,
    /// `http-after-response`: for responses of this node too.
    pub after_response: Vec<Rule>,
}

/// An action and when it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The action.
    pub action: Action,
    /// Always, if `None`.
    pub condition: Option<Condition>,
    /// Where it stands.
    pub at: Position,
}

/// `use_backend`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRule {
    /// The backend.
    pub target: BackendTarget,
    /// Always, if `None`.
    pub condition: Option<Condition>,
    /// Where it stands.
    pub at: Position,
}

/// Where `use_backend` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendTarget {
    /// A backend by name.
    Named(String),
    /// A name that is made of the request; where there is no such backend, the default is taken.
    Dynamic(Format),
}

/// `use-server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRule {
    /// The server.
    pub server: String,
    /// Always, if `None`.
    pub condition: Option<Condition>,
    /// Where it stands.
    pub at: Position,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The rest of the list is skipped.
    Allow,
    /// A response of this node instead: 403 unless said otherwise.
    Deny(LocalResponse),
    /// As `Deny`, after `timeout tarpit`; 500 unless said otherwise.
    Tarpit(LocalResponse),
    /// 401 (or 407) with a realm.
    Auth(Option<String>),
    /// A redirect.
    Redirect(Redirect),
    /// A response of this node, whatever its status.
    Return(LocalResponse),
    /// `use-service prometheus-exporter`: this node's metrics.
    Metrics,
    /// The connection is closed without a response.
    Reject,
    /// As `Reject`, and the client is not told.
    SilentDrop,
    /// A field replaces all of its name.
    SetHeader(String, Format),
    /// A field is added.
    AddHeader(String, Format),
    /// All fields of a name go.
    DelHeader(String),
    /// All fields whose name matches go (`-m beg`, `end`, `sub`, `reg`, as an expression).
    DelHeadersMatching(Regex),
    /// In the lines of a name what matches is replaced.
    ReplaceHeader(String, Regex, Format),
    /// In the values of a name, separated by commas, what matches is replaced.
    ReplaceValue(String, Regex, Format),
    /// The method.
    SetMethod(Format),
    /// The path; the query stays.
    SetPath(Format),
    /// The path with the query.
    SetPathQuery(Format),
    /// The query.
    SetQuery(Format),
    /// The whole target.
    SetUri(Format),
    /// What matches in the path is replaced.
    ReplacePath(Regex, Format),
    /// What matches in the path with the query is replaced.
    ReplacePathQuery(Regex, Format),
    /// What matches in the target is replaced.
    ReplaceUri(Regex, Format),
    /// The status of the response, and a phrase.
    SetStatus(u16, Option<String>),
    /// A variable gets the value of a sample.
    SetVar(String, Sample),
    /// A variable gets a text.
    SetVarFormat(String, Format),
    /// A variable goes.
    UnsetVar(String),
    /// `track-sc0` to `track-sc2`: the slot, the key, and the proxy whose table it is; its own if `None`.
    Track(usize, Sample, Option<String>),
    /// `sc-inc-gpc0`, `sc-inc-gpc1`: one more for the entry that a slot tracks.
    IncrementCounter(usize, Counter),
    /// `sc-set-gpt0`: a tag for the entry that a slot tracks.
    SetTag(usize, u32),
    /// The client's address is taken from a sample.
    SetSource(Sample),
    /// In the old `reqrep` and `rspreq`: what matches in a whole header line (or the request line) is replaced.
    ReplaceLine(Regex, String),
    /// In the old `reqadd` and `rspadd`: a header line is added.
    AddLine(String),
    /// In the old `reqdel` and `rspdel`: header lines that match go.
    DelLine(Regex),
    /// In the old `reqdeny`: a request with a line that matches is denied.
    DenyLine(Regex),
    /// In the old `reqallow`: a request with a line that matches skips the old rules that follow.
    AllowLine(Regex),
}

/// A redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Where to.
    pub kind: RedirectKind,
    /// 301, 302 (default), 303, 307 or 308.
    pub status: u16,
    /// `drop-query`.
    pub drop_query: bool,
    /// `keep-query`.
    pub keep_query: bool,
    /// `append-slash`.
    pub append_slash: bool,
    /// `ignore-empty`: an empty location does nothing.
    pub ignore_empty: bool,
    /// `set-cookie NAME[=value]`.
    pub set_cookie: Option<String>,
    /// `clear-cookie NAME[=]`.
    pub clear_cookie: Option<String>,
}

/// Where a redirect leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectKind {
    /// `location`: there.
    Location(Format),
    /// `prefix`: there, with the target appended.
    Prefix(Format),
    /// `scheme`: the same host and target over another scheme.
    Scheme(Format),
}

/// A response of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalResponse {
    /// The status; that of the action if `None`.
    pub status: Option<u16>,
    /// `content-type`.
    pub content_type: Option<String>,
    /// `hdr` pairs.
    pub headers: Vec<(String, Format)>,
    /// `string` or `lf-string`.
    pub text: Option<Format>,
    /// `file` or `lf-file`.
    pub file: Option<String>,
    /// `errorfile`: a raw response in a file.
    pub raw_file: Option<String>,
    /// `errorfiles`: a section `http-errors`.
    pub error_group: Option<String>,
    /// `default-errorfiles`.
    pub default_errors: bool,
}

impl Action {
    /// Whether it belongs to each request, and not only to the first of a connection, where a rule of connections has it: the
    /// variables and the address that it sets are kept for one request.
    pub(in super::super) fn is_of_each_request(&self) -> bool {
        matches!(self, Self::Allow | Self::SetVar(..) | Self::SetVarFormat(..) | Self::UnsetVar(_) | Self::SetSource(_))
    }

    /// Whether it is one of the old words, which come after the others of their list.
    pub(in super::super) fn is_old(&self) -> bool {
        matches!(
            self,
            Self::ReplaceLine(..) | Self::AddLine(_) | Self::DelLine(_) | Self::DenyLine(_) | Self::AllowLine(_)
        )
    }
}
