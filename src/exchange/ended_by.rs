//! The setting whose value has ended a request: for the page, `X-Debug-Limit` and the log.

use super::Exchange;
use super::settings::Settings;
use super::step_context::{CommonState, WaitsFor};
use crate::base::reason::FailureReason;
use std::fmt;
use std::time::Duration;

/// A setting, and its value where that is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndedBy {
    /// The name of the option, or that of the setting of the node.
    name: &'static str,
    /// It is an option of the frontend.
    is_option: bool,
    value: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Time(Duration),
    Number(u64),
}

impl Exchange {
    /// The setting whose value has ended the request, if it was one.
    pub fn ended_by(&self, settings: &Settings) -> Option<impl fmt::Display + use<>> {
        ended_by(self.common.stats.reason?, &self.common, settings)
    }
}

/// The setting whose value has ended a request for this reason.
#[cold]
pub(super) fn ended_by(reason: FailureReason, common: &CommonState, settings: &Settings) -> Option<EndedBy> {
    let options = common.options();
    let times = options.map(|options| &options.timeouts);
    let ended = match reason {
        FailureReason::ConnectTimeout => {
            time("connectTimeout", times.and_then(|times| times.connect), settings.connect_timeout)
        }
        FailureReason::ResponseTimeout => {
            time("responseTimeout", times.and_then(|times| times.response), settings.response_timeout)
        }
        FailureReason::UpstreamStalled if common.is_silent_stream => {
            let node = settings.stream_timeout.unwrap_or_default();
            time("streamTimeout", times.and_then(|times| times.stream), node)
        }
        FailureReason::UpstreamStalled | FailureReason::BodyTimeout | FailureReason::ClientStalled => {
            time("bodyTimeout", times.and_then(|times| times.body), settings.body_timeout)
        }
        FailureReason::TunnelIdle => {
            let node = settings.tunnel_timeout.unwrap_or_default();
            time("tunnelTimeout", times.and_then(|times| times.tunnel), node)
        }
        FailureReason::BodyTooLarge => {
            let own = options.and_then(|options| options.max_body_bytes);
            number("maxBodyBytes", own, settings.max_body_bytes.unwrap_or_default())
        }
        FailureReason::QueueFull | FailureReason::QueueTimeout => {
            return ended_wait(reason == FailureReason::QueueFull, common, settings);
        }
        FailureReason::ClusterDisabled if options?.holds() => {
            option("queueTimeout", Value::Time(options?.queue.timeout))
        }
        FailureReason::ClientLimit => {
            option("maxRequestsPerClient", Value::Number(options?.max_requests_per_client?.get().into()))
        }
        FailureReason::ClientRate => {
            option("requestsPerSecondPerClient", Value::Number(options?.requests_per_second_per_client.into()))
        }
        FailureReason::FrontendRate => option("requestsPerSecond", Value::Number(options?.requests_per_second.into())),
        FailureReason::TunnelLimit => option("maxTunnels", Value::Number(options?.max_tunnels?.get().into())),
        FailureReason::HeadTimeout => node("server.headTimeout", Some(Value::Time(settings.head_timeout))),
        FailureReason::BodyTooSlow => node("server.minBodyRate", Some(Value::Number(settings.min_body_rate))),
        FailureReason::HeadTooLarge | FailureReason::UpstreamHeadTooLarge => node("server.maxHeadBytes", None),
        FailureReason::TooManyInformationalResponses => node("server.maxInformationalResponses", None),
        FailureReason::BufferLimit => node("server.maxBufferBytes", None),
        FailureReason::BackendRemoved => node("server.tunnelDrain", None),
        FailureReason::Stopped => node("server.drainTimeout", None),
        _ => return None,
    };
    Some(ended)
}

/// The setting that has ended a wait: its queue was full, or its time is over.
fn ended_wait(is_full: bool, common: &CommonState, settings: &Settings) -> Option<EndedBy> {
    let options = common.options()?;
    let ended = match (common.waits_for, is_full) {
        (WaitsFor::Slot, true) => option("queueLimit", Value::Number(options.queue.limit.into())),
        (WaitsFor::Slot, false) => option("queueTimeout", Value::Time(options.queue.timeout)),
        (WaitsFor::Connection, true) => node("server.maxQueue", None),
        (WaitsFor::Connection, false) => time("connectTimeout", options.timeouts.connect, settings.connect_timeout),
        (WaitsFor::Node, true) => node("server.tenants.queueLimit", None),
        (WaitsFor::Node, false) => node("server.tenants.queueTimeout", None),
        (WaitsFor::Turn, _) => option("requestsPerSecond", Value::Number(options.requests_per_second.into())),
    };
    Some(ended)
}

fn option(name: &'static str, value: Value) -> EndedBy {
    EndedBy { name, is_option: true, value: Some(value) }
}

fn node(name: &'static str, value: Option<Value>) -> EndedBy {
    EndedBy { name, is_option: false, value }
}

/// A time that a frontend may have of its own.
fn time(name: &'static str, own: Option<Duration>, of_node: Duration) -> EndedBy {
    EndedBy { name, is_option: own.is_some(), value: Some(Value::Time(own.unwrap_or(of_node))) }
}

fn number(name: &'static str, own: Option<u64>, of_node: u64) -> EndedBy {
    EndedBy { name, is_option: own.is_some(), value: Some(Value::Number(own.unwrap_or(of_node))) }
}

impl fmt::Display for EndedBy {
    /// Such as `server.responseTimeout (30s)` or `responseTimeout of the frontend (5s)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, is_option, value } = self;
        // The settings that frontends have too are named by their option here.
        let of_node = if name.starts_with("server.") { "" } else { "server." };
        match is_option {
            true => write!(f, "{name} of the frontend")?,
            false => write!(f, "{of_node}{name}")?,
        }
        match value {
            Some(Value::Time(time)) => write!(f, " ({time:?})"),
            Some(Value::Number(number)) => write!(f, " ({number})"),
            None => Ok(()),
        }
    }
}
