//! A tunnel, or a response under way, for another process: its state as a serialisable value, and the bytes that were read
//! and not sent.
//!
//! The state is that between two turns. Some exchanges cannot move: a response that fills the cache, is compressed, or whose
//! request is still being sent, and requests under the rules of HAProxy's files.

use super::Exchange;
use super::body_forwarder::BodyForwarder;
use super::events::Side;
use super::forwarding_response::ForwardingResponse;
use super::log_fields::LogFields;
use super::origin::Origin;
use super::output_queue::PendingWrite;
use super::request::Request;
use super::request_stats::{PortableStats, RequestStats};
use super::state::State;
use super::step_context::CommonState;
use super::transition::ResponseCourse;
use super::tunnel::{PortableTunnel, Tunnel};
use super::worker_context::WorkerContext;
use crate::base::clock::Moment;
use crate::base::secret::redact_url;
use crate::cluster::{BackendUrl, Permit, Route};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// The version of [`PortableExchange`], and of the TLS sessions beside it. It changes with every change of a type in them, and
/// two processes of different versions hand over none.
pub const PORTABLE_VERSION: u16 = 2;

/// The state of an exchange, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortableExchange {
    progress: Progress,
    stats: PortableStats,
    origin: Origin,
    /// Microseconds until its deadline; `None` without one.
    due_in_micros: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Progress {
    Tunnel(PortableTunnel),
    Response(PortableResponse),
}

/// A response whose head was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortableResponse {
    body: BodyForwarder,
    course: ResponseCourse,
    is_http11: bool,
    keep_alive: bool,
    received_bytes: u64,
    connections: u8,
}

/// The bytes of an exchange.
#[derive(Debug, Default)]
pub struct PortableBytes<B> {
    /// The facts about the request for the log.
    pub log_fields: B,
    /// Bytes that the client's socket has not accepted.
    pub to_client: B,
    /// Bytes that the backend's socket has not accepted.
    pub to_upstream: B,
}

impl Exchange {
    /// Whether it is a tunnel.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.state, State::Tunnel(_))
    }

    /// Whether another worker of this process can continue it. It is called between two steps.
    pub fn is_movable(&self) -> bool {
        match &self.state {
            State::Tunnel(_) => true,
            State::ForwardingResponse(state) => {
                !self.common.is_for_service() && !self.common.client_left && state.is_movable()
            }
            _ => false,
        }
    }

    /// Whether another process can continue it. It is called between two steps.
    pub fn is_portable(&self) -> bool {
        let common = &self.common;
        let is_known = common.permit.is_some() || common.origin.is_some();
        is_known
            && common.rules.is_none()
            && !common.is_for_service()
            && !common.client_left
            && common.stats.reason.is_none()
            && match &self.state {
                State::Tunnel(tunnel) => tunnel.is_portable(),
                State::ForwardingResponse(state) => state.is_portable(),
                _ => false,
            }
    }

    /// Its state for another process, and the facts about its request for the log. [`Exchange::pending_write`] has the bytes.
    pub fn to_portable(&self, now: Moment) -> Option<(PortableExchange, Box<[u8]>)> {
        if !self.is_portable() {
            return None;
        }
        let (progress, log_fields) = match &self.state {
            State::Tunnel(tunnel) => (Progress::Tunnel(tunnel.to_portable()), tunnel.log_fields().clone()),
            State::ForwardingResponse(ForwardingResponse { context, course, .. }) => {
                let request = &context.request;
                let response = PortableResponse {
                    body: context.download.clone(),
                    course: *course,
                    is_http11: request.is_http11(),
                    keep_alive: request.keep_alive(),
                    received_bytes: context.received_bytes,
                    connections: context.connections,
                };
                (Progress::Response(response), request.log_fields())
            }
            _ => return None,
        };
        let deadline = self.common.deadline;
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let portable = PortableExchange {
            progress,
            stats: self.common.stats.to_portable(),
            origin: self.origin_for_another(log_fields.host(), now)?,
            due_in_micros: (deadline != Moment::NEVER).then(|| micros(deadline.since(now))),
        };
        Some((portable, log_fields.into_bytes()))
    }

    fn origin_for_another(&self, host: &str, now: Moment) -> Option<Origin> {
        let elapsed = self.elapsed_elsewhere() + self.common.stats.total(now);
        let Some(permit) = &self.common.permit else {
            return self.common.origin.as_deref().cloned().map(|origin| Origin {
                elapsed,
                awaits_route: true,
                ..origin
            });
        };
        let (cluster, member) = (permit.cluster(), permit.member());
        Some(Origin {
            host: host.into(),
            pattern: self.common.route().map_or(&*cluster.key, |route| &route.cluster.key).into(),
            frontend_id: cluster.id.clone(),
            backend_url: redact_url(member.url.as_str()).into(),
            endpoint: member.backend.endpoint().to_string().into(),
            bucket: self.bucket().map(Into::into),
            counted_client: self.common.client_slot.as_ref().map(|slot| slot.client()),
            elapsed,
            timeouts: cluster.options.timeouts.clone(),
            awaits_route: true,
        })
    }

    /// Continues the exchange of another process. Its route is looked up later ([`Exchange::rejoin`]); until then it
    /// holds no permit.
    pub fn from_portable(portable: PortableExchange, bytes: PortableBytes<Vec<u8>>, core: &mut WorkerContext) -> Self {
        let PortableExchange { progress, stats, origin, due_in_micros } = portable;
        let now = core.now;
        let mut common = CommonState::new(RequestStats::from_portable(stats, now), false);
        common.deadline = due_in_micros.map_or(Moment::NEVER, |micros| now + Duration::from_micros(micros));
        common.origin = Some(Box::new(origin));
        common.holds_upstream = true;
        common.to_client = PendingWrite::restored(&bytes.to_client, now, &mut core.buffers);
        common.to_upstream = PendingWrite::restored(&bytes.to_upstream, now, &mut core.buffers);
        let log_fields = LogFields::from_bytes(bytes.log_fields);
        let state = match progress {
            Progress::Tunnel(tunnel) => State::Tunnel(Tunnel::from_portable(tunnel, log_fields)),
            Progress::Response(response) => {
                let PortableResponse { body, course, is_http11, keep_alive, received_bytes, connections } = response;
                let mut context = core.request_pool.take();
                context.request = Request::past(&log_fields, is_http11, keep_alive, &mut core.buffers);
                (context.upload, context.download) = (BodyForwarder::default(), body);
                (context.received_bytes, context.connections) = (received_bytes, connections);
                if !common.to_client.is_empty() {
                    context.download_rate.start(now);
                }
                State::ForwardingResponse(ForwardingResponse::moved(context, course))
            }
        };
        Self { state, common }
    }

    /// The host whose route has to be looked up for [`Exchange::rejoin`]: another process has begun the exchange.
    pub fn host_to_rejoin(&self) -> Option<&str> {
        self.common.origin.as_ref().filter(|origin| origin.awaits_route).map(|origin| &*origin.host)
    }

    /// The names of its route and its backend, if another process has begun it.
    pub fn origin(&self) -> Option<&Origin> {
        self.common.origin.as_deref()
    }

    /// The time that it spent in other processes.
    pub fn elapsed_elsewhere(&self) -> Duration {
        self.origin().map_or(Duration::ZERO, Origin::elapsed)
    }

    /// Counts the exchange of another process at its member, beyond any limit. Returns whether it is counted, or over: if the
    /// route lacks the member, a later one may contain it.
    pub fn rejoin(&mut self, route: &Arc<Route>, now: Moment) -> bool {
        let is_tunnel = self.is_tunnel();
        let is_under_way = is_tunnel || matches!(self.state, State::ForwardingResponse(_));
        let Some(origin) = self.common.origin.as_mut().filter(|origin| origin.awaits_route) else { return true };
        if !is_under_way {
            origin.awaits_route = false;
            return true;
        }
        let counted_client = origin.counted_client;
        let url = BackendUrl::parse(&origin.endpoint).ok();
        let place = url.and_then(|url| route.place_at(url.endpoint()));
        let permit = place.and_then(|place| Permit::of_moved(Arc::clone(route), place, is_tunnel));
        origin.awaits_route = permit.is_none();
        self.common.held_route = permit.is_none().then(|| Arc::clone(route));
        self.common.permit = permit;
        if let Some(client) = counted_client
            && self.common.client_slot.is_none()
        {
            let slot = route.cluster.admission.take_client(client, NonZeroU32::MAX);
            self.common.client_slot = slot.map(Box::new);
        }
        if self.common.pacing.is_none() && route.cluster.options.has_byte_rates() {
            self.common.start_pacing(0, now);
        }
        self.common.permit.is_some()
    }

    /// Whether a route contains the backend of an exchange without a permit.
    pub fn is_led_to_by(&self, route: &Route) -> bool {
        let url = self.common.origin.as_ref().and_then(|origin| BackendUrl::parse(&origin.endpoint).ok());
        url.and_then(|url| route.place_at(url.endpoint())).is_some()
    }

    /// The bytes that the socket of a side has not accepted yet.
    pub fn pending_bytes(&self, side: Side) -> &[u8] {
        self.common.pending_write(side).pending()
    }
}

#[cfg(test)]
impl PortableExchange {
    /// A tunnel.
    pub fn sample() -> Self {
        serde_json::from_str(&tests::text(tests::TUNNEL)).expect("the form")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: u16 = 2;
    const STATS: &str = r#""stats":{"status":200,"cache":null,"bytes_to_client":7,"has_backend":true,"queue_micros":4294967295,"connect_micros":5,"first_byte_micros":6}"#;
    const ORIGIN: &str = r#""origin":{"host":"a.test","pattern":"*.test","frontend_id":"site","backend_url":"http://10.0.0.1:80","endpoint":"http://10.0.0.1:80","bucket":null,"counted_client":"10.0.0.9","elapsed":{"secs":9,"nanos":1},"timeouts":{"connect":null,"response":null,"body":null,"tunnel":{"secs":60,"nanos":0},"stream":null}}"#;
    pub(super) const TUNNEL: &str = r#"{"tunnel":{"client_ended":true,"upstream_ended":false,"upstream_write_closed":false,"frames":{"payload":70000,"start":[130,127],"header_len":4,"is_lost":false,"is_closed":false}}}"#;
    const RESPONSE: &str = r#"{"response":{"body":{"reader":{"Chunked":{"at":{"Data":12},"spare":16384,"extension_bytes":16384,"trailer_bytes":8192}},"chunked":true,"received":99},"course":{"client_stays":true,"ends_with_connection":false,"has_no_length":true,"upstream_stays":true,"upload_irrelevant":false,"upload_is_optional":false},"is_http11":true,"keep_alive":true,"received_bytes":50,"connections":1}}"#;

    pub(super) fn text(progress: &str) -> String {
        format!(r#"{{"progress":{progress},{STATS},{ORIGIN},"due_in_micros":1000}}"#)
    }

    /// Another process reads this format. Each change of it needs a new version, here too.
    #[test]
    fn the_form_has_a_version() {
        for progress in [TUNNEL, RESPONSE] {
            let text = text(progress);
            let read: PortableExchange =
                serde_json::from_str(&text).expect("the form has changed: raise PORTABLE_VERSION");
            assert_eq!(serde_json::to_string(&read).expect("text"), text);
            assert!(read.origin.awaits_route);
            let with_more = text.replacen('{', "{\"more\":1,", 1);
            assert!(serde_json::from_str::<PortableExchange>(&with_more).is_err());
        }
        assert_eq!(PORTABLE_VERSION, VERSION, "the form above is of another version");
    }
}
