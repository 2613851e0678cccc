//! The upgrade handshake (RFC 9110 section 7.8).

use super::field::list;

/// Whether a client's `Upgrade` may be passed on. `h2c` is not: RFC 9113 section 3.1 has given it up, and a tunnel to a
/// backend's HTTP/2 side would let requests through that nobody here has read ("h2c smuggling").
pub(super) fn may_be_asked(offered: &[u8]) -> bool {
    let mut protocols = list(offered).peekable();
    protocols.peek().is_some() && protocols.all(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"))
}

/// Whether a 101 with this `Upgrade` is an answer to a request with that one: it names nothing that was not offered.
pub fn is_answer(offered: &[u8], chosen: &[u8]) -> bool {
    let was_offered = |protocol: &[u8]| list(offered).any(|offer| offer.eq_ignore_ascii_case(protocol));
    list(chosen).next().is_some() && list(chosen).all(was_offered)
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
        assert!(is_answer(b"WebSocket", b"websocket"));
        assert!(is_answer(b"a/1, b", b"b"));
        assert!(!is_answer(b"websocket", b"other"));
        assert!(!is_answer(b"websocket", b""));
    }
}
