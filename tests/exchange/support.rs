//! What an exchange is played with: settings, a client, and routes to members that are nowhere.

use sluice::base::clock::Moment;
use sluice::cluster::{Backend, BackendId, BackendUrl, Cluster, ClusterSpec, Options, Route};
use sluice::exchange::{KeepAlive, OnClientAbort, Redirect, Settings};
use sluice::health;
use sluice::wire::forwarded::{Mode, Peer, Policy};
use sluice::wire::limits::Limits;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn settings() -> Settings {
    Settings {
        head_timeout: 10 * SECOND,
        connect_timeout: 10 * SECOND,
        response_timeout: 20 * SECOND,
        body_timeout: 10 * SECOND,
        stream_timeout: Some(Duration::from_secs(3600)),
        tunnel_timeout: None,
        max_head_bytes: 4096,
        max_body_bytes: None,
        limits: Limits::default(),
        min_body_rate: 0,
        keep_alive: KeepAlive::Always,
        retry_limit: 3,
        on_client_abort: OnClientAbort::Close,
        via: None,
        node_via: None,
        request_id: false,
        request_start: false,
        forwarded: Policy { trusted: Vec::new(), mode: Mode::Append },
        debug_networks: Vec::new(),
        redirect: Redirect { for_all: false, port: 443 },
        health: health::Settings { dead_ttl: 30 * SECOND, dead_on_500: true, checker_until: Moment::ZERO },
    }
}

pub(crate) fn peer() -> Peer {
    Peer { address: "192.0.2.7".parse().expect("an address"), local_port: 80, secure: false, tls: None }
}

/// A route to members whose numbers follow `first_id`.
pub(crate) fn route(first_id: u64, members: u64) -> Arc<Route> {
    let urls: Vec<_> = (first_id..first_id + members)
        .map(|id| (id, BackendUrl::parse(&format!("http://10.0.0.{id}")).expect("a good URL")))
        .collect();
    let backend = |(id, url): &(u64, BackendUrl)| Arc::new(Backend::new(BackendId::new(*id), url.endpoint().clone()));
    let entries = urls.iter().map(|entry| (&entry.1, backend(entry))).collect();
    let spec = ClusterSpec { created: 0, key: "a", id: "site", entries, options: &Options::none() };
    Arc::new(Route::new("a", Cluster::edit(None, spec, Moment::ZERO)))
}
