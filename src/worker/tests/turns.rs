//! Turns of tenants: their order, and connections that wait for a turn while time passes.

use super::*;
use crate::cluster::{TenantKey, TenantSettings};
use crate::shaper::{QueueLimits, Spec};
use crate::worker::connection::Endpoint;
use crate::worker::tenants::TenantTurns;
use std::net::IpAddr;

fn turns() -> TenantTurns {
    let queue = QueueLimits { limit: 10, timeout: PATIENCE };
    let buckets = Arc::new(Spec::parse("{}").expect("no buckets"));
    TenantTurns::new(Arc::new(Tenants::new(&TenantSettings { requests: None, buckets, queue })))
}

/// A response has come and waits for the turn of its tenant while the deadline for it passes.
#[test]
fn bytes_that_wait_for_a_turn_have_come_before_the_deadline() {
    let mut stage = Stage::new("in-time", 10);
    stage.worker.tenants = Some(turns());
    let mut client = stage.client(&request("/"));
    let mut backend = stage.accepted();
    stage.watch();
    backend.write_all(OK).expect("a response");
    stage.until_there("the response", |worker| {
        worker.upstreams.values().any(|upstream| !upstream.stream.transport.is_silent())
    });
    let worker = &mut stage.worker;
    let mut events = Events::with_capacity(EVENTS);
    worker.poll.poll(&mut events, Some(PATIENCE)).expect("a poll");
    for event in &events {
        if let Some(source) = Endpoint::of(event) {
            worker.queue_event(source, event);
        }
    }
    assert!(worker.has_turns(), "the response waits");
    worker.core.now = worker.core.now + 2 * PATIENCE;
    worker.expire();
    stage.expect_response(&mut client, "HTTP/1.1 200 ");
}

/// The idle time of a connection to a backend is over in the same moment in which an exchange gets it.
#[test]
fn a_connection_that_was_idle_for_too_long_stays_with_its_next_exchange() {
    let mut stage = Stage::new("idle-till-now", 10);
    let mut client = stage.client(&request("/"));
    let mut backend = stage.accepted();
    let key = stage.worker.upstreams.keys().next().expect("a connection");
    stage.worker.upstream_due(key);
    backend.write_all(OK).expect("a response");
    stage.expect_response(&mut client, "HTTP/1.1 200 ");
}

/// A refresh of the cache has no client. Its key is no place in a list: there is no room for so many.
#[test]
fn an_exchange_without_a_client_takes_no_place() {
    let mut stage = Stage::new("no-client", 10);
    stage.worker.tenants = Some(turns());
    stage.worker.note_tenant(SlotKey::NONE, Some(TenantKey::UNKNOWN));
    let client = stage.client(&request("/"));
    assert!(stage.worker.tenants.as_ref().is_some_and(|tenants| tenants.places() <= 16));
    drop(client);
}

#[test]
fn new_connections_of_one_network_do_not_stand_before_those_of_another() {
    let mut turns = turns();
    let mut slots = GenSlab::default();
    let mut ready = |address: [u8; 4]| {
        let source = Endpoint::Client(slots.insert(()));
        turns.push(TenantKey::UNKNOWN, source, Some(IpAddr::from(address)));
        source
    };
    (0..1000).for_each(|_| _ = ready([192, 0, 2, 1]));
    let quiet = ready([192, 0, 2, 2]);
    let place = (0..1001).position(|_| turns.take(TenantKey::UNKNOWN) == Some(quiet));
    assert!(place.is_some_and(|place| place <= 1), "place {place:?}");
    assert!((0..999).all(|_| turns.take(TenantKey::UNKNOWN).is_some()));
    assert_eq!(turns.take(TenantKey::UNKNOWN), None);
}
