//! A scenario: everything that a seed decides before the first event.

use super::backend::{AttemptPlan, BackendFault, ConnectPlan};
use super::client::ClientPlan;
use super::dice::Dice;
use super::message::Scale;
use sluice::base::clock::Moment;
use sluice::base::reason::FailureReason;
use sluice::cluster::{Backend, BackendId, BackendUrl, Cluster, ClusterSpec, Options, Route};
use sluice::exchange::{KeepAlive, OnClientAbort, Settings};
use sluice::health;
use sluice::wire::forwarded::{Mode, Policy};
use sluice::wire::limits::Limits;
use std::sync::Arc;
use std::time::Duration;

/// More attempts than any request may have.
const ATTEMPTS: usize = 8;

#[derive(Debug)]
pub(crate) struct Plan {
    /// Nothing goes wrong that a retry does not mend: the client gets the whole answer.
    pub(crate) is_faultless: bool,
    pub(crate) scale: Scale,
    pub(crate) settings: Settings,
    pub(crate) client: ClientPlan,
    pub(crate) attempts: Vec<AttemptPlan>,
    pub(crate) routes: Vec<RoutePlan>,
    /// The event at which the owner ends it all.
    pub(crate) abort_at: Option<usize>,
}

/// What a look-up finds.
#[derive(Clone, Debug)]
pub(crate) enum RoutePlan {
    Found(Arc<Route>),
    Fails(FailureReason),
    Never,
}

impl Plan {
    /// What a reader of the trace wants to know: no long bodies.
    pub(crate) fn describe(&self) -> Vec<String> {
        let client = &self.client;
        let mut lines = vec![
            format!("faultless: {}, {:?}", self.is_faultless, self.scale),
            format!("client: {:?}, expects: {}, behind: {}", client.fault, client.expects, client.behind.len()),
            String::from_utf8_lossy(&client.bytes[..client.head_len]).into_owned(),
            format!("body: {:?}, {} bytes", client.body.framing, client.body.data.len()),
        ];
        for attempt in &self.attempts[..3] {
            let response = &attempt.response;
            lines.push(format!("{:?}, {:?}, {:?}", attempt.connect, attempt.start, attempt.fault));
            let flaws = format!("malformed: {}, extra: {}", response.is_malformed, response.has_extra);
            let len = response.bytes.len();
            lines.push(format!(
                "  {} {:?}, {len} bytes, open: {}, {flaws}",
                response.status, response.body.framing, response.keeps_open
            ));
        }
        lines
    }

    pub(crate) fn random(rng: &mut Dice) -> Self {
        let is_faultless = rng.u8(..3) == 0;
        let scale = Scale::random(rng);
        let mut settings = settings(rng);
        if !is_faultless {
            restrict(&mut settings, scale, rng);
        }
        let client = ClientPlan::random(scale, is_faultless, rng);
        let attempts = if is_faultless {
            let mut attempts: Vec<_> = (0..ATTEMPTS).map(|at| AttemptPlan::good(at, &client, scale, rng)).collect();
            mend(&mut attempts[0], &client, rng);
            attempts
        } else {
            (0..ATTEMPTS).map(|at| AttemptPlan::random(at, &client, scale, rng)).collect()
        };
        Self {
            routes: routes(is_faultless, rng),
            abort_at: (!is_faultless && rng.u8(..20) == 0).then(|| rng.usize(..200)),
            is_faultless,
            scale,
            settings,
            client,
            attempts,
        }
    }
}

/// Lets the first attempt fail in a way that the second makes good.
fn mend(attempt: &mut AttemptPlan, client: &ClientPlan, rng: &mut Dice) {
    match rng.u8(..8) {
        // What is offered together with a chunked body counts as what would have to be kept of it.
        0 if client.is_idempotent() && client.bytes.len() + client.behind.len() < 20_000 => {
            attempt.connect = ConnectPlan::Comes { reused: true, queued: false };
            attempt.fault = BackendFault::Stale { reset: rng.bool() };
        }
        1 => attempt.connect = ConnectPlan::Fails(FailureReason::ConnectFailed),
        _ => {}
    }
}

fn settings(rng: &mut Dice) -> Settings {
    Settings {
        head_timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(30),
        response_timeout: Duration::from_secs(30),
        body_timeout: Duration::from_secs(30),
        stream_timeout: Some(Duration::from_secs(3600)),
        tunnel_timeout: rng.bool().then_some(Duration::from_secs(300)),
        max_head_bytes: 64 * 1024,
        max_body_bytes: None,
        // A body in small chunks may have more of them than of data.
        limits: Limits { extension_bytes: 1 << 20, ..Limits::default() },
        min_body_rate: if rng.bool() { 240 } else { 0 },
        keep_alive: if rng.u8(..5) > 0 { KeepAlive::Always } else { KeepAlive::Never },
        retry_limit: rng.u32(1..4),
        on_client_abort: if rng.bool() { OnClientAbort::Close } else { OnClientAbort::Ignore },
        via: rng.bool().then(|| "sluice".into()),
        node_via: Some("sluice-5f3a9c21b07d".into()),
        request_id: false,
        request_start: false,
        forwarded: Policy { trusted: Vec::new(), mode: Mode::Append },
        debug_networks: Vec::new(),
        redirect: sluice::exchange::Redirect { for_all: false, port: 443 },
        health: health::Settings {
            dead_ttl: Duration::from_secs(30),
            dead_on_500: rng.bool(),
            checker_until: Moment::ZERO,
        },
    }
}

fn restrict(settings: &mut Settings, scale: Scale, rng: &mut Dice) {
    settings.retry_limit = rng.u32(..4);
    if rng.u8(..3) == 0 {
        settings.min_body_rate = rng.u64(1000..1_000_000);
        settings.body_timeout = Duration::from_secs(10);
    }
    if rng.u8(..10) == 0 {
        settings.max_body_bytes = Some(rng.u64(..scale.largest_body as u64));
    }
    if rng.u8(..10) == 0 {
        settings.max_head_bytes = rng.usize(30..300);
    }
    let limits = &mut settings.limits;
    match rng.u8(..20) {
        0 => limits.fields = rng.usize(1..12),
        1 => limits.uri_bytes = rng.usize(1..60),
        2 => limits.extension_bytes = rng.usize(..40),
        3 => limits.trailer_bytes = rng.usize(..60),
        4 => limits.informational_responses = rng.u32(..3),
        _ => {}
    }
}

fn routes(is_faultless: bool, rng: &mut Dice) -> Vec<RoutePlan> {
    let members = rng.u64(if is_faultless { 2 } else { 1 }..5);
    let found = route(0, members);
    for mark in &found.marks {
        if rng.u8(..6) == 0 {
            mark.mark_dead(Moment::ZERO + Duration::from_secs(rng.u64(1..100)));
        }
    }
    let retired = route(10, members);
    retired.marks.iter().for_each(|mark| mark.mark_removed());
    match rng.u8(..20) {
        0 | 1 => vec![RoutePlan::Found(retired), RoutePlan::Found(found)],
        2 if !is_faultless => vec![RoutePlan::Fails(FailureReason::UnknownHost)],
        3 if !is_faultless => vec![RoutePlan::Never],
        4 if !is_faultless => vec![RoutePlan::Found(retired)],
        5 if !is_faultless => vec![RoutePlan::Found(route(0, 0))],
        _ => vec![RoutePlan::Found(found)],
    }
}

fn route(first_id: u64, members: u64) -> Arc<Route> {
    let urls: Vec<_> = (first_id..first_id + members)
        .map(|id| (id, BackendUrl::parse(&format!("http://10.0.0.{id}:80")).expect("a good URL")))
        .collect();
    let backend = |(id, url): &(u64, BackendUrl)| Arc::new(Backend::new(BackendId::new(*id), url.endpoint().clone()));
    let entries = urls.iter().map(|entry| (&entry.1, backend(entry))).collect();
    let spec = ClusterSpec { created: 0, key: "*", id: "site", entries, options: &Options::none() };
    Arc::new(Route::new("www.example.com", Cluster::edit(None, spec, Moment::ZERO)))
}
