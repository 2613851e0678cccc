//! How long the parts of a request's way took.

use super::*;
use sluice::base::histogram::Phase;

/// The longest waits are those that come to nothing: they count like others, and not for the try behind them.
#[test]
fn a_wait_that_comes_to_nothing_counts() {
    let mut scene = Scene::new(settings());
    scene.tell(Input::Bytes(Side::Client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    scene.tell(Input::Route(Ok(route(1, 2))));
    let phase = |scene: &Scene, phase| scene.exchange.stats().phase(phase, scene.core.now);
    scene.tell(Input::Dialling);
    let began = scene.core.now;
    scene.core.now = scene.exchange.deadline();
    let waited = scene.core.now.since(began);
    scene.tell(Input::Deadline);
    assert!(waited >= SECOND && matches!(*scene.core.output.effects, [.., Effect::Connect { .. }]));
    // A pooled connection to the other backend: nothing was opened for it.
    scene.tell(Input::Connected { reused: true });
    assert_eq!(phase(&scene, Phase::Connect), None);
    assert_eq!(scene.send(Side::Upstream, usize::MAX).0, Flushed::All);
    scene.tell(Input::Drained(Side::Upstream));
    let began = scene.core.now;
    scene.core.now = scene.exchange.deadline();
    scene.tell(Input::Deadline);
    assert_eq!(scene.exchange.stats().reason, Some(FailureReason::ResponseTimeout));
    assert_eq!(phase(&scene, Phase::FirstByte), Some(scene.core.now.since(began)));

    // The only backend cannot be reached.
    let mut scene = Scene::new(settings());
    scene.tell(Input::Bytes(Side::Client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    scene.tell(Input::Route(Ok(route(1, 1))));
    scene.tell(Input::Dialling);
    let began = scene.core.now;
    scene.core.now = scene.exchange.deadline();
    scene.tell(Input::Deadline);
    assert_eq!(scene.exchange.stats().reason, Some(FailureReason::ConnectTimeout));
    assert_eq!(phase(&scene, Phase::Connect), Some(scene.core.now.since(began)));

    // A socket to it does not become free.
    let mut scene = Scene::new(settings());
    scene.tell(Input::Bytes(Side::Client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    scene.tell(Input::Route(Ok(route(1, 1))));
    scene.tell(Input::Queued);
    let began = scene.core.now;
    scene.core.now = scene.exchange.deadline();
    scene.tell(Input::Deadline);
    assert_eq!(scene.exchange.stats().reason, Some(FailureReason::QueueTimeout));
    assert_eq!(phase(&scene, Phase::Queue), Some(scene.core.now.since(began)));
}
