//! The upgrade handshake (RFC 9110 section 7.8).

use super::field::list;

/// The greatest number of protocols that may be offered or chosen at once: each chosen one is searched among all that
/// were offered.
const MOST_PROTOCOLS: usize = 16;

/// Whether a client's `Upgrade` may be forwarded. `h2c` may not: RFC 9113 section 3.1 has deprecated it, and a tunnel
/// to the HTTP/2 port of a backend would pass requests that this node has not checked ("h2c smuggling").
pub(super) fn may_be_asked(offered: &[u8]) -> bool {
    is_some_few(offered) && list(offered).all(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"))
}

/// Whether a 101 with this `Upgrade` matches the request: it names only protocols that were offered.
pub fn is_response(offered: &[u8], chosen: &[u8]) -> bool {
    let was_offered = |protocol: &[u8]| list(offered).any(|offer| offer.eq_ignore_ascii_case(protocol));
    is_some_few(chosen) && list(chosen).all(was_offered)
}

fn is_some_few(protocols: &[u8]) -> bool {
    (1..=MOST_PROTOCOLS).contains(&list(protocols).take(MOST_PROTOCOLS + 1).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols() {
        assert!(may_be_asked(b"websocket"));
        assert!(may_be_asked(b"a/1, b"));
        assert!(!may_be_asked(b"h2c"));
        assert!(!may_be_asked(b"websocket, H2C"));
        assert!(!may_be_asked(b" , "));
        assert!(may_be_asked(["a"; 16].join(",").as_bytes()));
        assert!(!may_be_asked(["a"; 17].join(",").as_bytes()));
        assert!(is_response(b"WebSocket", b"websocket"));
        assert!(is_response(b"a/1, b", b"b"));
        assert!(!is_response(b"websocket", b"other"));
        assert!(!is_response(b"websocket", b""));
        assert!(!is_response(b"a", ["a"; 17].join(",").as_bytes()));
    }
}
