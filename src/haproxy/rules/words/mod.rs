//! The tables of actions, fetches and converters: each name occurs once.

mod converters;
mod fetches;

use crate::haproxy::keyword::{Treatment, nearest};
use Treatment::{Honoured, Ignored, Lost, Mapped, Refused};
use converters::CONVERTERS;
use fetches::FETCHES;

/// The lists in which a rule may occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum RuleSet {
    /// `http-request`.
    Request,
    /// `http-response`.
    Response,
    /// `http-after-response`.
    AfterResponse,
    /// `tcp-request connection` and `session`.
    Connection,
    /// `tcp-request content`.
    Content,
    /// `tcp-response content`.
    ResponseContent,
}

impl RuleSet {
    /// Whether its rules apply to responses.
    pub(in super::super) fn is_of_responses(self) -> bool {
        matches!(self, Self::Response | Self::AfterResponse | Self::ResponseContent)
    }
}

/// An action.
pub(in super::super) struct ActionWord {
    pub(in super::super) name: &'static str,
    /// A letter for each list: `q`uest, re`s`ponse, `a`fter-response, `c`onnection, con`t`ent, response content `T`.
    pub(in super::super) sets: &'static str,
    /// Whether its loss in a list of requests affects access, routing or the requests that backends get.
    pub(in super::super) decides_request: bool,
    /// The same for lists of responses.
    pub(in super::super) decides_response: bool,
    pub(in super::super) treatment: Treatment,
    pub(in super::super) reason: &'static str,
}

impl ActionWord {
    pub(super) fn is_allowed_in(&self, set: RuleSet) -> bool {
        self.sets.contains(match set {
            RuleSet::Request => 'q',
            RuleSet::Response => 's',
            RuleSet::AfterResponse => 'a',
            RuleSet::Connection => 'c',
            RuleSet::Content => 't',
            RuleSet::ResponseContent => 'T',
        })
    }
}

/// A fetch.
pub(in super::super) struct FetchWord {
    pub(in super::super) name: &'static str,
    pub(in super::super) treatment: Treatment,
    pub(in super::super) reason: &'static str,
}

/// A converter.
pub(in super::super) type ConverterWord = FetchWord;

const fn always(name: &'static str, sets: &'static str) -> ActionWord {
    ActionWord { name, sets, decides_request: true, decides_response: true, treatment: Honoured, reason: "" }
}

/// The loss of this action matters in requests only.
const fn request(name: &'static str, sets: &'static str) -> ActionWord {
    ActionWord { decides_response: false, ..always(name, sets) }
}

const fn never(name: &'static str, sets: &'static str, treatment: Treatment, reason: &'static str) -> ActionWord {
    ActionWord { name, sets, decides_request: false, decides_response: false, treatment, reason }
}

const fn refused(name: &'static str, sets: &'static str, reason: &'static str) -> ActionWord {
    ActionWord { treatment: Refused, reason, ..always(name, sets) }
}

const RUN_TIME: &str = "lists and maps change with their files only, not by requests";
const SOCKET: &str = "sluice does not set socket marks by requests";

const ACTIONS: &[ActionWord] = &[
    always("accept", "ctT"),
    refused("add-acl", "qs", RUN_TIME),
    request("add-header", "qsa"),
    always("allow", "qsa"),
    refused("attach-srv", "c", "sluice does not open reverse tunnels"),
    always("auth", "q"),
    never("cache-store", "s", Lost, "sluice's own cache has its own settings"),
    never("cache-use", "q", Lost, "sluice's own cache has its own settings"),
    never("capture", "qsat", Mapped, "for capture.req.hdr and capture.res.hdr; the log has a setting of its own"),
    refused("close", "T", "rules cannot read responses as bytes"),
    refused("del-acl", "qs", RUN_TIME),
    request("del-header", "qsa"),
    refused("del-map", "qsa", RUN_TIME),
    always("deny", "qs"),
    never("disable-l7-retry", "q", Lost, "a request with a body is not repeated anyway"),
    never("do-log", "qsactT", Lost, "a request has one log line, at its end"),
    refused("do-resolve", "qt", "sluice resolves the names of servers only"),
    never("early-hint", "q", Lost, "sluice does not send 103 responses itself"),
    refused("expect-netscaler-cip", "c", "sluice reads the PROXY protocol only"),
    ActionWord { treatment: Refused, reason: "use accept-proxy for the whole listener", ..always("expect-proxy", "c") },
    refused("normalize-uri", "q", "targets are forwarded as they come"),
    never("ot-group", "qsatT", Lost, "sluice does not support OpenTracing"),
    never("pause", "qs", Lost, "sluice does not delay requests"),
    always("redirect", "qs"),
    always("reject", "qctT"),
    request("replace-header", "qsa"),
    always("replace-path", "q"),
    always("replace-pathq", "q"),
    always("replace-uri", "q"),
    request("replace-value", "qsa"),
    always("return", "qs"),
    refused("sc-add-gpc", "qsactT", "write sc-inc-gpc0"),
    refused("sc-inc-gpc", "qsactT", "write sc-inc-gpc0 or sc-inc-gpc1"),
    always("sc-inc-gpc0", "qsactT"),
    always("sc-inc-gpc1", "qsactT"),
    refused("sc-set-gpt", "qsactT", "write sc-set-gpt0"),
    always("sc-set-gpt0", "qsactT"),
    refused("send-spoe-group", "qstT", "sluice does not support SPOP"),
    never("set-bandwidth-limit", "qstT", Lost, "the traffic shaper limits by class, not by rule"),
    never("set-bc-mark", "qt", Lost, SOCKET),
    never("set-bc-tos", "qt", Lost, SOCKET),
    refused("set-dst", "qct", "the destination is a server of the backend"),
    refused("set-dst-port", "qct", "the destination is a server of the backend"),
    never("set-fc-mark", "qsctT", Lost, SOCKET),
    never("set-fc-tos", "qsctT", Lost, SOCKET),
    request("set-header", "qsa"),
    never("set-log-level", "qsatT", Lost, "the access log has no levels"),
    refused("set-map", "qsa", RUN_TIME),
    never("set-mark", "qsctT", Lost, SOCKET),
    always("set-method", "q"),
    never("set-nice", "qstT", Ignored, "sluice serves requests in the order of their events"),
    always("set-path", "q"),
    always("set-pathq", "q"),
    never("set-priority-class", "qt", Lost, "the queue of a backend is in the order of arrival"),
    never("set-priority-offset", "qt", Lost, "the queue of a backend is in the order of arrival"),
    always("set-query", "q"),
    never("set-retries", "qt", Lost, "the number of tries is the backend's"),
    always("set-src", "qct"),
    refused("set-src-port", "qct", "the client's port is not changed"),
    request("set-status", "sa"),
    never("set-timeout", "qs", Lost, "timeouts are those of the backend"),
    never("set-tos", "qsctT", Lost, SOCKET),
    always("set-uri", "q"),
    always("set-var", "qsactT"),
    always("set-var-fmt", "qsactT"),
    ActionWord {
        treatment: Mapped,
        reason: "the client is told that the connection is closed",
        ..always("silent-drop", "qsctT")
    },
    never("strict-mode", "qsa", Ignored, "a failed rule is counted, and the request continues"),
    refused("switch-mode", "t", "the mode of a frontend is fixed"),
    ActionWord { treatment: Mapped, reason: "the response comes at once", ..always("tarpit", "q") },
    request("track-sc0", "qsct"),
    request("track-sc1", "qsct"),
    request("track-sc2", "qsct"),
    always("unset-var", "qsactT"),
    ActionWord {
        treatment: Mapped,
        reason: "prometheus-exporter: sluice's own metrics; other services are refused",
        ..always("use-service", "qt")
    },
    never("wait-for-body", "qs", Lost, "bodies are forwarded as they arrive"),
    never("wait-for-handshake", "q", Ignored, "requests in early data are not accepted"),
];

const fn known(name: &'static str) -> FetchWord {
    FetchWord { name, treatment: Honoured, reason: "" }
}

const fn unknown(name: &'static str, reason: &'static str) -> FetchWord {
    FetchWord { name, treatment: Refused, reason }
}

/// All actions.
pub(in super::super) fn actions() -> &'static [ActionWord] {
    ACTIONS
}

/// All fetches with their own name and treatment.
pub(in super::super) fn fetches() -> &'static [FetchWord] {
    FETCHES
}

/// All converters.
pub(in super::super) fn converters() -> &'static [ConverterWord] {
    CONVERTERS
}

pub(super) fn nearest_action(name: &str) -> Option<&'static str> {
    nearest(name, ACTIONS.iter().map(|word| word.name))
}

pub(super) fn nearest_fetch(name: &str) -> Option<&'static str> {
    nearest(name, FETCHES.iter().map(|word| word.name))
}

pub(super) fn nearest_converter(name: &str) -> Option<&'static str> {
    nearest(name, CONVERTERS.iter().map(|word| word.name))
}

/// Whether HAProxy has a fetch with this name that is in no table here.
pub(super) fn is_other_fetch(name: &str) -> bool {
    let counter = name.strip_prefix("src_").or_else(|| name.strip_prefix("sc_")).or_else(|| {
        let rest = name.strip_prefix("sc")?;
        rest.strip_prefix(['0', '1', '2'])?.strip_prefix('_')
    });
    let is_counter = counter.is_some_and(|what| OTHER_COUNTERS.split_whitespace().any(|other| other == what));
    is_counter || fetches::OTHERS.split_whitespace().any(|other| other == name)
}

/// Whether HAProxy has a converter with this name that is in no table here.
pub(super) fn is_other_converter(name: &str) -> bool {
    converters::OTHERS.split_whitespace().any(|other| other == name)
}

/// Counters of HAProxy's tables besides [`super::Counter`].
const OTHER_COUNTERS: &str = "\
    clr_gpc get_gpc get_gpt glitch_cnt glitch_rate gpc_rate inc_gpc kbytes_in kbytes_out key tracked trackers updt_conn_cnt";
