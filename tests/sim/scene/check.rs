//! What must hold at every step of a scenario.

use super::client::ClientFault;
use super::peer::Peer;
use super::world::{Holding, World};
use sluice::cluster::BackendId;
use sluice::exchange::Side;

/// More than heads, pages and interim answers add to what was read.
const MADE_LIMIT: usize = 16 * 1024;

/// What is kept of a request to send it again, and a head.
const REPLAY_LIMIT: usize = 64 * 1024 + 4 * 1024;

pub(crate) fn after_step(world: &World) {
    for side in [Side::Client, Side::Upstream] {
        let pending_write = world.exchange.pending_write(side.other()).len();
        let is_wanted = world.exchange.wants(side);
        assert!(!is_wanted || pending_write == 0, "bytes of {side:?} are wanted, but {pending_write} have not left");
        let limit = world.plan.scale.largest_read + MADE_LIMIT + REPLAY_LIMIT;
        assert!(pending_write <= limit, "{pending_write} bytes are kept for {:?}", side.other());
    }
}

pub(crate) fn after_turn(world: &World) {
    if world.end.is_some() {
        return;
    }
    if world.holding != Holding::Connection {
        assert!(!world.exchange.wants(Side::Upstream), "bytes of a backend are wanted where none is held");
        assert_eq!(
            world.exchange.pending_write(Side::Upstream).len(),
            0,
            "bytes are kept for a backend that is not held"
        );
    }
    assert!(world.is_tunnel || world.client.seen.behind.is_empty(), "something follows the answer");
    let stats = world.exchange.stats();
    assert_eq!(stats.bytes_to_client, world.client.seen.total as u64, "the ledger counts otherwise");
    if !world.client.seen.last.first.is_empty() && world.client.seen.has_head {
        assert_eq!(stats.status, world.client.seen.last.status(), "the ledger has another status");
    }
}

/// A connection was asked for: whether this request may have one more.
pub(crate) fn may_connect(world: &World, backend: BackendId, fresh: bool) {
    assert!(!world.client.seen.has_head, "a try after an answer has begun");
    assert_eq!(world.exchange.stats().status, 0, "a try after an answer has begun");
    assert!(world.retries <= world.plan.settings.retry_limit, "more tries than allowed");
    let Some(last) = world.attempts.last() else {
        assert_eq!(world.retry, None, "the first try is no retry");
        assert!(!fresh, "no connection was stale yet");
        return;
    };
    assert_eq!(last.released, Some(false), "the connection before this one was given to the next");
    let was_sent = world.attempts.iter().any(|attempt| attempt.connected);
    assert!(!was_sent || world.plan.client.is_idempotent(), "{} was sent twice", world.plan.client.method);
    if world.retry.expect("the effect that tells of a retry") {
        assert!(last.connected && last.reused, "a new connection cannot be stale");
        assert_eq!(last.served, 0, "a stale connection does not answer");
        assert_eq!(last.backend, backend, "a stale connection says nothing about its backend");
        assert!(fresh, "the next connection of the pool may be stale too");
    } else {
        let tried = world.attempts.iter().any(|attempt| attempt.backend == backend);
        assert!(!tried, "{backend:?} was tried before");
    }
}

/// The connection is to serve the next request.
pub(crate) fn may_reuse(world: &World, peer: &Peer) {
    let plan = &world.plan.attempts[world.attempts.len() - 1].response;
    assert!(peer.seen.last.is_complete, "the backend waits for the rest of a request");
    assert!(peer.seen.behind.is_empty(), "the backend has seen the start of something else");
    assert!(world.exchange.pending_write(Side::Upstream).is_empty(), "bytes are kept for the backend");
    assert!(plan.keeps_open && !peer.told_end && !peer.is_write_closed, "the backend does not keep the connection");
    assert_eq!(world.left_over, 0, "bytes of the backend are left, and would be read as the next answer");
    assert!(!world.is_tunnel, "a tunnel has no next request");
    let response_len = plan.bytes.len() - if plan.has_extra { super::backend::EXTRA.len() } else { 0 };
    assert!(peer.sent >= response_len, "the rest of the answer would be read as the next one");
}

/// Nothing went wrong on the side of the client.
pub(crate) fn client_is_good(world: &World) -> bool {
    world.plan.client.fault == ClientFault::None && !world.aborted && !world.client_broken && !world.client_left
}
