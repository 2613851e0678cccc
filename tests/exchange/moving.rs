//! Exchanges that another process has begun.

use super::*;
use sluice::exchange::PortableBytes;

/// The exchange as another process continues it.
fn moved(scene: &Scene) -> Scene {
    let (portable, log_fields) = scene.exchange.to_portable(scene.core.now).expect("an exchange that can move");
    let mut moved = Scene::new(settings());
    let bytes = PortableBytes { log_fields: log_fields.into_vec(), ..PortableBytes::default() };
    moved.exchange = Exchange::from_portable(portable, bytes, &mut moved.core);
    moved
}

/// The route may arrive after the response has: then the exchange holds no member.
#[test]
fn a_response_that_is_over_before_its_route_is_known_counts_nowhere() {
    let mut scene = Scene::with_backend(settings(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let start = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nstart";
    let mut consumed = 0;
    while consumed < start.len() {
        consumed += scene.tell(Input::Bytes(Side::Upstream, &start[consumed..]));
        assert_eq!(scene.send(Side::Client, usize::MAX).0, Flushed::All);
    }
    for is_over in [false, true] {
        let mut moved = moved(&scene);
        if is_over {
            assert_eq!(moved.tell(Input::Bytes(Side::Upstream, b"rest")), 4);
            assert_eq!(moved.send(Side::Client, 2).0, Flushed::Blocked);
        }
        let route = route(1, 2);
        assert_eq!(moved.exchange.host_to_rejoin(), Some("a"));
        assert!(moved.exchange.rejoin(&route, Moment::ZERO));
        assert_eq!(moved.exchange.host_to_rejoin(), None);
        assert_eq!(moved.exchange.permit().is_some(), !is_over);
        assert_eq!(route.cluster.admission.in_flight(), u32::from(!is_over));
    }
}

/// A route without its member is not the last word: the member may be back in the next one.
#[test]
fn a_tunnel_is_counted_once_its_member_is_in_the_list() {
    let mut scene = moved(&Scene::with_tunnel("lines"));
    let (without, with) = (route(7, 1), route(1, 2));
    assert!(!scene.exchange.rejoin(&without, Moment::ZERO) && scene.exchange.permit().is_none());
    assert_eq!(scene.exchange.host_to_rejoin(), Some("a"));
    assert!(scene.exchange.rejoin(&with, Moment::ZERO));
    assert_eq!((without.cluster.admission.tunnels(), with.cluster.admission.tunnels()), (0, 1));
    assert!(scene.exchange.rejoin(&with, Moment::ZERO));
    assert_eq!(with.cluster.admission.tunnels(), 1);
}
