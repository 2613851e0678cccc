//! Routing of admin requests to threads, and to views and actions.

use super::marks::MarkIndex;
use super::query::{Query, decoded};
use super::reply::{asked, busy, send_refusal, send_response, split};
use super::{
    Response, Service, access, actions, dashboard, director, events, frontends, haproxy_page, metrics, monitor,
    receipts, stats_csv, status, views, why,
};
use crate::base::throttle::Throttle;
use crate::exchange::{RuledPage, ServiceRequest};
use crate::worker::ServiceCall;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// The greatest number of warnings about refused requests in ten seconds.
const MAX_WARNINGS: u32 = 3;

/// The interval at which an idle thread drops outdated results.
const GLANCE: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3600);

/// The OpenAPI description of this service.
const OPENAPI: &str = include_str!("assets/openapi.json");

/// The queues of the threads that make responses.
pub(super) struct Lanes {
    pub(super) views: Sender<ServiceCall>,
    pub(super) metrics: Sender<ServiceCall>,
    pub(super) actions: Sender<ServiceCall>,
    pub(super) receipts: Sender<ServiceCall>,
    pub(super) events: Sender<ServiceCall>,
}

/// Checks access, responds to readiness checks, and passes on the rest.
pub(super) fn dispatch(calls: &Receiver<ServiceCall>, lanes: &Lanes, service: &Service) {
    let mut warnings = Throttle::new(MAX_WARNINGS);
    for call in calls {
        let (path, _) = split(&call.request.target);
        // The rules of a frontend have granted access.
        if let Some(page) = &call.request.ruled {
            let lane = if *page == RuledPage::Metrics { &lanes.metrics } else { &lanes.views };
            if let Err(error) = lane.try_send(call) {
                send_response(error.into_inner(), busy(), service);
            }
        } else if let Err(refusal) = access::check(&call.request, path, &service.settings) {
            service.state.count_refusal();
            if let Some(suppressed) = warnings.admit(service.clock.now()) {
                let who = access::who(&call.request, &service.settings);
                let more = if suppressed > 0 { format!(" ({suppressed} more were suppressed)") } else { String::new() };
                log::warn!("admin: {} was refused: {} for {who}{more}", asked(&call.request), refusal.status);
            }
            send_refusal(call, refusal, service);
        } else if access::is_probe(&call.request, path) {
            let response = if path == "/healthz" { Response::text(200, "ok\n") } else { status::readiness(service) };
            send_response(call, response, service);
        } else {
            let lane = match (call.request.method.as_str(), path) {
                ("GET" | "HEAD", "/metrics") => &lanes.metrics,
                ("GET" | "HEAD", events::PATH) => &lanes.events,
                ("GET" | "HEAD", _) => &lanes.views,
                ("POST", receipts::PATH) => &lanes.receipts,
                _ => &lanes.actions,
            };
            if let Err(error) = lane.try_send(call) {
                send_response(error.into_inner(), busy(), service);
            }
        }
    }
}

/// Makes the responses of one thread.
pub(super) fn serve(calls: &Receiver<ServiceCall>, service: &Service) {
    loop {
        let patience = if service.state.keeps_statistics() { GLANCE } else { LONG };
        match calls.recv_timeout(patience) {
            Ok(call) => {
                let respond = AssertUnwindSafe(|| respond(&call.request, service));
                let failed = |_| Response::problem(500, "the view could not be made; the log of the process says why");
                let response = catch_unwind(respond).unwrap_or_else(failed);
                send_response(call, response, service);
            }
            Err(RecvTimeoutError::Timeout) => {
                let now = service.clock.now();
                service.state.drop_statistics(|statistics| statistics.is_old(now));
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn respond(request: &ServiceRequest, service: &Service) -> Response {
    match &request.ruled {
        Some(RuledPage::Statistics(page)) => return haproxy_page::page(page, service),
        Some(RuledPage::Metrics) => return metrics::metrics(request.accept.as_deref(), service),
        None => {}
    }
    let (path, query) = split(&request.target);
    if let Some(response) = director::respond(request, path, query, service) {
        return response;
    }
    let is_reading = matches!(request.method.as_str(), "GET" | "HEAD");
    let is_receipt = path == receipts::PATH;
    match (is_receipt || actions::is_action(path), is_reading) {
        (true, _) if is_receipt && request.method == "POST" => receipts::receipt(&Query::parse(query), service),
        (true, _) if request.method == "POST" => actions::act(path, &Query::parse(query), service),
        (true, _) => Response::problem(405, "an action takes POST").with_field("Allow: POST"),
        (false, true) => view(request, path, query, service),
        (false, false) if is_view(path, query) => {
            Response::problem(405, "a view takes GET and HEAD").with_field("Allow: GET, HEAD")
        }
        (false, false) => Response::problem(404, "no such action; /v1/openapi.json names them all"),
    }
}

/// Whether a view has this path, so that other methods get a 405.
fn is_view(path: &str, query: &str) -> bool {
    const VIEWS: [&str; 15] = [
        "/healthz",
        "/readyz",
        "/v1/status",
        "/v1/frontends",
        "/v1/backends",
        "/v1/config",
        "/v1/redis",
        "/v1/nodes",
        "/v1/why",
        "/v1/certificates",
        "/v1/openapi.json",
        events::PATH,
        "/metrics",
        "/monitor",
        "/haproxy/monitor",
    ];
    let is_frontend = path.strip_prefix("/v1/frontends/").is_some_and(|key| !key.is_empty() && !key.contains('/'));
    let is_page = stats_csv::is_asked_for(path, query) || dashboard::asset(path).is_some() || path == "/haproxy";
    VIEWS.contains(&path) || is_frontend || is_page
}

fn view(request: &ServiceRequest, path: &str, query: &str, service: &Service) -> Response {
    match path {
        _ if stats_csv::is_asked_for(path, query) => stats_csv::statistics(query, service),
        "/v1/status" => Response::json(&status::status(service)),
        "/v1/frontends" => {
            let mut index = MarkIndex::new(service, service.clock.now());
            shown(frontends::list(&Query::parse(query), &service.directory.clusters(), &mut index, service))
        }
        "/v1/backends" => frontends::backends(&Query::parse(query), service),
        "/v1/config" => views::config(service),
        "/v1/redis" => Response::json(&views::redis(service)),
        "/v1/nodes" => receipts::nodes(service),
        "/v1/why" => why::why(&Query::parse(query), service),
        "/v1/certificates" => shown(views::certificates(&Query::parse(query), service)),
        "/v1/openapi.json" => Response::new(200, "application/json", OPENAPI),
        "/metrics" => metrics::metrics(request.accept.as_deref(), service),
        "/haproxy/monitor" | "/monitor" => monitor::page(service),
        _ => match path.strip_prefix("/v1/frontends/") {
            Some(key) => one_frontend(&decoded(key), service),
            None => dashboard::asset(path)
                .unwrap_or_else(|| Response::problem(404, "no such view; /v1/openapi.json names them all")),
        },
    }
}

fn shown(view: Result<Value, Response>) -> Response {
    view.map_or_else(|refusal| refusal, |view| Response::json(&view))
}

fn one_frontend(key: &str, service: &Service) -> Response {
    match frontends::one(key, &mut MarkIndex::new(service, service.clock.now()), service) {
        Some(view) => Response::json(&view),
        None => Response::problem(404, &frontends::unused(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::finished;
    use super::super::state::State;
    use super::super::{Roster, Settings, Sources};
    use super::*;
    use crate::base::clock::Clock;
    use crate::directory;
    use crate::net::mailbox::{MailboxReceiver, mailbox};
    use crate::worker::WorkerCommand;
    use crossbeam_channel::bounded;
    use mio::{Poll, Token, Waker};
    use std::sync::Arc;

    /// A service whose threads, except the first one, are busy: nothing is taken from their queues.
    struct Scene {
        service: Service,
        lanes: Lanes,
        waiting: [Receiver<ServiceCall>; 3],
        /// A waker without effect: the test reads at any time.
        waker: Arc<Waker>,
        _poll: Poll,
    }

    impl Scene {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sluice-admin-{name}-{}.json", std::process::id()));
            std::fs::write(&path, r#"{"frontends": {}}"#).expect("a file");
            let clock = Clock::new();
            let source = directory::Source::File(path.clone());
            let settings = directory::Settings { source, dns_refresh: LONG, dns_servers: None, state_dir: None };
            let directory = directory::start(&settings, clock).expect("a directory");
            let _ = std::fs::remove_file(path);
            let bind = Some("127.0.0.1:9100".parse().expect("an address"));
            let settings = Settings { bind, ..Settings::off() };
            let roster = Arc::new(Roster::new(clock.now()));
            let order = Box::new(|_, _| {});
            let cache = None;
            let (redis, source_kind) = (None, "file");
            let sources =
                Sources { settings, clock, roster, cache, redis, directory, source_kind, order, tenants: None };
            let [views, metrics, actions, receipts, events] = [(); 5].map(|()| bounded(2));
            let (views, waiting_views) = views;
            let lanes = Lanes { views, metrics: metrics.0, actions: actions.0, receipts: receipts.0, events: events.0 };
            let waiting = [waiting_views, metrics.1, actions.1];
            let poll = Poll::new().expect("a poll");
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
            Self { service: Service { sources, state: State::default() }, lanes, waiting, waker, _poll: poll }
        }

        /// Dispatches these requests, and returns the statuses of the responses.
        fn dispatch(&self, targets: &[&str]) -> Vec<u16> {
            let (sender, responses): (_, MailboxReceiver<WorkerCommand>) = mailbox(64, Arc::clone(&self.waker));
            let (calls, received) = bounded(64);
            for target in targets {
                let (method, target) = target.split_once(' ').expect("a method");
                let request = ServiceRequest {
                    method: method.to_owned(),
                    target: target.to_owned(),
                    host: Some(b"localhost".to_vec()),
                    ..ServiceRequest::default()
                };
                calls.send(ServiceCall::new(request, sender.clone())).expect("room");
            }
            drop(calls);
            dispatch(&received, &self.lanes, &self.service);
            let statuses = std::iter::from_fn(|| responses.receive()).filter_map(|command| match command {
                WorkerCommand::ServiceResponse(_, response) => Some(response.status),
                _ => None,
            });
            statuses.collect()
        }
    }

    #[test]
    fn probes_and_actions_wait_for_no_view() {
        let scene = Scene::new("lanes");
        let views = ["GET /v1/frontends", "GET /;csv", "GET /v1/status", "GET /"];
        assert_eq!(scene.dispatch(&views), [503, 503], "two wait, and for the others there is no room");
        assert_eq!(scene.dispatch(&["GET /healthz", "HEAD /healthz", "GET /readyz"]), [200, 200, 503]);
        assert!(
            scene.dispatch(&["GET /metrics", "POST /v1/actions/reload"]).is_empty(),
            "each waits in a lane of its own"
        );
        assert_eq!(scene.waiting.each_ref().map(Receiver::len), [2, 1, 1]);
    }

    #[test]
    fn responses_that_clients_hold_leave_room_or_are_refused() {
        let scene = Scene::new("held");
        let held = scene.service.state.body(vec![0; 64 << 20]);
        let response = || finished(Response::new(200, "text/plain", vec![b'x'; 1000]), &scene.service).status;
        let statistics = || finished(stats_csv::statistics("", &scene.service), &scene.service);
        assert_eq!((response(), statistics().status), (503, 503));
        drop(held);
        assert_eq!(response(), 200);
        let (one, other) = (statistics(), statistics());
        assert_eq!(one.status, 200);
        assert!(std::ptr::eq(&*one.body, &*other.body), "all who ask within a second have one text");
    }
}
