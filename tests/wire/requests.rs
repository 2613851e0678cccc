//! Heads of requests that are let through, and the one form in which they go to a backend.

use crate::{crlf, feed, text};
use sluice::base::reason::FailureReason;
use sluice::wire::body::BodyLength;
use sluice::wire::forwarded::{Mode, Peer, Policy, TlsPeer};
use sluice::wire::request::{ForwardContext, RequestHead, Span, fields};
use std::sync::{Arc, LazyLock};

/// What is made of a head: the host and the upstream head, or the reason to refuse it.
pub(crate) fn read(bytes: &[u8], forward: &ForwardContext<'_>) -> Option<(Result<String, FailureReason>, usize)> {
    let mut room = fields();
    let head = match RequestHead::parse(bytes, &mut room) {
        Ok(head) => head?,
        Err(reason) => return Some((Err(reason), 0)),
    };
    let mut out = b"kept ".to_vec();
    let written = head.write(forward, &mut out).map(|spans| {
        assert!(spans.head.start() == spans.host.end() && spans.head.end() == out.len());
        format!("{} | {}", text(spans.host.of(&out)), text(spans.head.of(&out)))
    });
    Some((written, head.len))
}

pub(crate) fn stranger() -> Policy {
    Policy { trusted: Vec::new(), mode: Mode::Append }
}

pub(crate) fn forward<'a>(policy: &'a Policy, via: Option<&'a str>) -> ForwardContext<'a> {
    static PEER: LazyLock<Peer> = LazyLock::new(|| {
        let address = "192.0.2.7".parse().expect("an address");
        Peer { address, local_port: 80, secure: false, tls: None }
    });
    ForwardContext { peer: &PEER, policy, via, request_id: None, request_start: None, may_lack_host: false }
}

pub(crate) const FORWARDED: &str = "X-Forwarded-For: 192.0.2.7\nX-Real-IP: 192.0.2.7\nX-Forwarded-Proto: http\n\
                         X-Forwarded-Protocol: http\nX-Forwarded-Port: 80\n";

/// Checks rows of a head and of what is made of it. `{forwarded}` stands for the forwarded headers.
fn check(forward: &ForwardContext<'_>, table: &[(&str, &str, &str)]) {
    for (input, host, expected) in table {
        let found = feed(crlf(input).as_bytes(), |bytes| read(bytes, forward));
        let expected = crlf(&expected.replace("{forwarded}", FORWARDED));
        assert_eq!(found, Ok(format!("{host} | {expected}")), "{input:?}");
    }
}

#[test]
fn lines_keep_their_case_and_order() {
    check(
        &forward(&stranger(), None),
        &[
            ("GET / HTTP/1.1\nHost: a\n\n", "a", "GET / HTTP/1.1\nHost: a\n{forwarded}\n"),
            (
                "GET /x?y=1&z HTTP/1.1\nx-LOWER: 1\nHOST: A:8080\nX-Twice: 1\nAccept: */*\nX-Twice: 2\n\n",
                "a",
                "GET /x?y=1&z HTTP/1.1\nx-LOWER: 1\nHOST: A:8080\nX-Twice: 1\nAccept: */*\nX-Twice: 2\n{forwarded}\n",
            ),
            (
                "GET / HTTP/1.1\nHost:a.\nX-None:\nX-Tabs:\t 1\t2 \t\nX-Obs: \u{e9}\n\n",
                "a",
                "GET / HTTP/1.1\nHost: a.\nX-None: \nX-Tabs: 1\t2\nX-Obs: \u{e9}\n{forwarded}\n",
            ),
            ("brew-!#$ / HTTP/1.1\nHost: a\n\n", "a", "brew-!#$ / HTTP/1.1\nHost: a\n{forwarded}\n"),
            ("\n\nGET / HTTP/1.1\nHost: a\n\n", "a", "GET / HTTP/1.1\nHost: a\n{forwarded}\n"),
            ("OPTIONS * HTTP/1.1\nHost: a\n\n", "a", "OPTIONS * HTTP/1.1\nHost: a\n{forwarded}\n"),
            ("GET //x/../%2e HTTP/1.1\nHost: a\n\n", "a", "GET //x/../%2e HTTP/1.1\nHost: a\n{forwarded}\n"),
            ("GET / HTTP/1.0\nHost: a\n\n", "a", "GET / HTTP/1.1\nHost: a\n{forwarded}\n"),
            ("GET / HTTP/1.1\nHost: [::1]:80\n\n", "[::1]", "GET / HTTP/1.1\nHost: [::1]:80\n{forwarded}\n"),
        ],
    );
}

#[test]
fn absolute_targets_override_the_host() {
    check(
        &forward(&stranger(), None),
        &[
            ("GET http://B/x HTTP/1.1\nHost: a\n\n", "b", "GET /x HTTP/1.1\nHost: B\n{forwarded}\n"),
            ("GET HTTPS://b:81 HTTP/1.1\nX: 1\nHost: a\n\n", "b", "GET / HTTP/1.1\nX: 1\nHost: b:81\n{forwarded}\n"),
            ("GET http://b?x HTTP/1.1\nHost: a\n\n", "b", "GET /?x HTTP/1.1\nHost: b\n{forwarded}\n"),
            ("GET http://b/x HTTP/1.0\nX: 1\n\n", "b", "GET /x HTTP/1.1\nHost: b\nX: 1\n{forwarded}\n"),
            ("OPTIONS http://b HTTP/1.1\nHost: b\n\n", "b", "OPTIONS * HTTP/1.1\nHost: b\n{forwarded}\n"),
            ("OPTIONS http://b/ HTTP/1.1\nHost: b\n\n", "b", "OPTIONS / HTTP/1.1\nHost: b\n{forwarded}\n"),
        ],
    );
}

#[test]
fn what_belongs_to_a_hop_ends_here() {
    check(
        &forward(&stranger(), None),
        &[
            (
                "GET / HTTP/1.1\nHost: a\nConnection: keep-alive\nKeep-Alive: timeout=5\nProxy-Connection: close\n\n",
                "a",
                "GET / HTTP/1.1\nHost: a\n{forwarded}\n",
            ),
            (
                "GET / HTTP/1.1\nConnection: X-One,, x-two ,close\nx-one: 1\nX-TWO: 2\nHost: a\nX-Three: 3\n\n",
                "a",
                "GET / HTTP/1.1\nHost: a\nX-Three: 3\n{forwarded}\n",
            ),
            (
                "GET / HTTP/1.1\nX-One: 1\nConnection: a\nConnection: x-one\nHost: a\n\n",
                "a",
                "GET / HTTP/1.1\nHost: a\n{forwarded}\n",
            ),
            // What frames and routes a message is not a neighbour's to take away.
            (
                "PUT / HTTP/1.1\nConnection: Host, Content-Length, X-Forwarded-For, Expect\nHost: a\nContent-Length: 5\n\
                 Expect: 100-continue\n\n",
                "a",
                "PUT / HTTP/1.1\nHost: a\nContent-Length: 5\nExpect: 100-continue\n{forwarded}\n",
            ),
            (
                "GET / HTTP/1.1\nHost: a\nTE: gzip, trailers\nConnection: TE\n\n",
                "a",
                "GET / HTTP/1.1\nHost: a\n{forwarded}Connection: TE\nTE: trailers\n\n",
            ),
            ("GET / HTTP/1.1\nHost: a\nTE: gzip\nConnection: TE\n\n", "a", "GET / HTTP/1.1\nHost: a\n{forwarded}\n"),
            (
                "PUT / HTTP/1.0\nHost: a\nContent-Length: 5\nExpect: 100-continue\n\n",
                "a",
                "PUT / HTTP/1.1\nHost: a\nContent-Length: 5\n{forwarded}\n",
            ),
        ],
    );
}

#[test]
fn other_protocols_are_asked_for_plainly_or_not_at_all() {
    let refused = "GET / HTTP/1.1\nHost: a\n{forwarded}\n";
    check(
        &forward(&stranger(), None),
        &[
            (
                "GET / HTTP/1.1\nHost: a\nupgrade: WebSocket\nconnection: keep-alive, UPGRADE\nSec-WebSocket-Key: k\n\n",
                "a",
                "GET / HTTP/1.1\nHost: a\nSec-WebSocket-Key: k\n{forwarded}Connection: Upgrade\nUpgrade: WebSocket\n\n",
            ),
            ("GET / HTTP/1.1\nHost: a\nUpgrade: websocket\n\n", "a", refused),
            ("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\n\n", "a", refused),
            ("GET / HTTP/1.0\nHost: a\nConnection: Upgrade\nUpgrade: websocket\n\n", "a", refused),
            (
                "GET / HTTP/1.1\nHost: a\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: x\n\n",
                "a",
                refused,
            ),
            ("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket, h2c\n\n", "a", refused),
            // Two lines: what is judged must be what is passed on.
            ("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: h2c\nUpgrade: websocket\n\n", "a", refused),
            ("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\nUpgrade: h2c\n\n", "a", refused),
            (
                "PUT / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\nContent-Length: 1\n\n",
                "a",
                "PUT / HTTP/1.1\nHost: a\nContent-Length: 1\n{forwarded}\n",
            ),
        ],
    );
}

#[test]
fn lengths_are_stated_once_and_plainly() {
    check(
        &forward(&stranger(), None),
        &[
            (
                "PUT / HTTP/1.1\nHost: a\ncontent-length: 0005\n\n",
                "a",
                "PUT / HTTP/1.1\nHost: a\ncontent-length: 5\n{forwarded}\n",
            ),
            (
                "PUT / HTTP/1.1\nHost: a\nTRANSFER-ENCODING: ,Chunked\n\n",
                "a",
                "PUT / HTTP/1.1\nHost: a\nTRANSFER-ENCODING: chunked\n{forwarded}\n",
            ),
        ],
    );
    let table = [
        ("Content-Length: 0\n", BodyLength::None),
        ("Content-Length: 7\n", BodyLength::Sized(7)),
        ("Content-Length: 2147483648\n", BodyLength::Sized(1 << 31)),
        ("Content-Length: 4294967301\n", BodyLength::Sized((1 << 32) + 5)),
        ("Content-Length: 999999999999999999\n", BodyLength::Sized(999_999_999_999_999_999)),
        ("Transfer-Encoding: chunked\n", BodyLength::Chunked),
        ("", BodyLength::None),
    ];
    for (line, expected) in table {
        let input = crlf(&format!("PUT / HTTP/1.1\nHost: a\n{line}\n"));
        let mut room = fields();
        let head = RequestHead::parse(input.as_bytes(), &mut room).expect("a good head").expect("a whole head");
        assert_eq!(head.body, expected, "{line:?}");
    }
}

#[test]
fn what_a_client_says_of_its_connection() {
    // The lines, whether the connection is kept, whether a 100 is waited for, and whether twice is as good as once.
    let table = [
        ("GET / HTTP/1.1\nHost: a\n\n", true, false, true),
        ("GET / HTTP/1.1\nHost: a\nConnection: Close\n\n", false, false, true),
        ("GET / HTTP/1.1\nHost: a\nConnection: close, keep-alive\n\n", false, false, true),
        ("GET / HTTP/1.0\nHost: a\n\n", false, false, true),
        ("GET / HTTP/1.0\nHost: a\nConnection: Keep-Alive\n\n", true, false, true),
        ("POST / HTTP/1.1\nHost: a\nContent-Length: 1\nExpect: 100-Continue\n\n", true, true, false),
        ("POST / HTTP/1.1\nHost: a\nExpect: 100-continue\n\n", true, false, false),
        ("POST / HTTP/1.0\nHost: a\nContent-Length: 1\nExpect: 100-continue\n\n", false, false, false),
        ("brew / HTTP/1.1\nHost: a\n\n", true, false, false),
        ("PATCH / HTTP/1.1\nHost: a\n\n", true, false, false),
        ("DELETE / HTTP/1.1\nHost: a\n\n", true, false, true),
    ];
    for (input, keep_alive, expects_continue, idempotent) in table {
        let bytes = crlf(input);
        let mut room = fields();
        let head = RequestHead::parse(bytes.as_bytes(), &mut room).expect("a good head").expect("a whole head");
        let found = (head.keep_alive, head.expects_continue, head.is_idempotent());
        assert_eq!(found, (keep_alive, expects_continue, idempotent), "{input:?}");
    }
}

#[test]
fn forwarded_headers_of_strangers_are_replaced() {
    let input = "GET / HTTP/1.1\nHost: a\nX-Forwarded-For: 1.1.1.1\nx-real-ip: 1.1.1.1\nX-Forwarded-Proto: https\n\
                 X-Forwarded-Protocol: https\nX-Forwarded-Port: 443\nForwarded: for=1.1.1.1\n\n";
    let row = (input, "a", "GET / HTTP/1.1\nHost: a\n{forwarded}\n");
    check(&forward(&stranger(), None), &[row]);
    let replaced = Policy { trusted: vec!["192.0.2.0/24".parse().expect("a network")], mode: Mode::Replace };
    check(&forward(&replaced, None), &[row]);
    let other = Policy { trusted: vec!["198.51.100.0/24".parse().expect("a network")], mode: Mode::Append };
    check(&forward(&other, None), &[row]);
}

#[test]
fn forwarded_headers_of_trusted_proxies_are_kept_and_continued() {
    let trusted = Policy { trusted: vec!["192.0.2.0/24".parse().expect("a network")], mode: Mode::Append };
    check(
        &forward(&trusted, None),
        &[
            ("GET / HTTP/1.1\nHost: a\n\n", "a", "GET / HTTP/1.1\nHost: a\n{forwarded}\n"),
            (
                "GET / HTTP/1.1\nX-Forwarded-For: 1.1.1.1\nHost: a\nX-Forwarded-For: \nx-forwarded-for: 2.2.2.2, 3.3.3.3\n\
                 X-Forwarded-Proto: https\nForwarded: for=1.1.1.1\n\n",
                "a",
                "GET / HTTP/1.1\nHost: a\nX-Forwarded-Proto: https\nForwarded: for=1.1.1.1\n\
                 X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.7\nX-Real-IP: 192.0.2.7\n\
                 X-Forwarded-Protocol: http\nX-Forwarded-Port: 80\n\n",
            ),
            (
                "GET / HTTP/1.1\nHost: a\nX-Real-IP: 1.1.1.1\nX-Forwarded-Protocol: https\nX-Forwarded-Port: 443\n\n",
                "a",
                "GET / HTTP/1.1\nHost: a\nX-Real-IP: 1.1.1.1\nX-Forwarded-Protocol: https\nX-Forwarded-Port: 443\n\
                 X-Forwarded-For: 192.0.2.7\nX-Forwarded-Proto: http\n\n",
            ),
        ],
    );
}

#[test]
fn a_trusted_proxy_that_has_done_the_encryption_is_believed_whatever_becomes_of_its_headers() {
    let networks = vec!["192.0.2.0/24".parse().expect("a network")];
    for (trusted, mode, expected) in [
        (networks.clone(), Mode::Append, true),
        (networks, Mode::Replace, true),
        (Vec::new(), Mode::Append, false),
        (Vec::new(), Mode::Replace, false),
    ] {
        let input = crlf("GET / HTTP/1.1\nHost: a\nX-Forwarded-Proto: HTTPS\n\n");
        let mut room = fields();
        let head = RequestHead::parse(input.as_bytes(), &mut room).expect("a good head").expect("a whole head");
        let policy = Policy { trusted, mode };
        assert_eq!(head.came_encrypted(&forward(&policy, None)), expected, "{policy:?}");
    }
}

#[test]
fn forwarded_headers_say_what_this_node_sees() {
    let policy = stranger();
    let peer = Peer { address: "2001:db8::1".parse().expect("an address"), local_port: 8443, secure: true, tls: None };
    let forward = ForwardContext { peer: &peer, ..forward(&policy, None) };
    check(
        &forward,
        &[(
            "GET / HTTP/1.1\nHost: a\n\n",
            "a",
            "GET / HTTP/1.1\nHost: a\nX-Forwarded-For: 2001:db8::1\nX-Real-IP: 2001:db8::1\nX-Forwarded-Proto: https\n\
             X-Forwarded-Protocol: https\nX-Forwarded-Port: 8443\n\n",
        )],
    );
}

#[test]
fn via_is_added_behind_what_is_there() {
    check(
        &forward(&stranger(), Some("edge-1")),
        &[
            (
                "GET / HTTP/1.1\nVia: 1.1 other\nHost: a\n\n",
                "a",
                "GET / HTTP/1.1\nVia: 1.1 other\nHost: a\n{forwarded}Via: 1.1 edge-1\n\n",
            ),
            ("GET / HTTP/1.0\nHost: a\n\n", "a", "GET / HTTP/1.1\nHost: a\n{forwarded}Via: 1.0 edge-1\n\n"),
        ],
    );
}

#[test]
fn a_request_that_has_been_here_is_refused() {
    let policy = stranger();
    let written = |via: Option<&str>, fields: &str| {
        let input = crlf(&format!("GET / HTTP/1.1\nHost: a\n{fields}\n"));
        read(input.as_bytes(), &forward(&policy, via)).expect("a whole head").0
    };
    for fields in [
        "Via: 1.1 edge-1\n",
        "VIA: 1.0 edge-1 (a comment, with a comma)\n",
        "Via: 1.1 other\nX: 1\nVia: HTTP/1.1 first , 1.1\tedge-1,1.1 last\n",
        "Connection: via\nVia: 1.1 edge-1\n",
    ] {
        assert_eq!(written(Some("edge-1"), fields), Err(FailureReason::LoopDetected), "{fields:?}");
        assert!(written(None, fields).is_ok(), "{fields:?}");
    }
    for fields in [
        "Via: 1.1 edge-10\n",
        "Via: 1.1 EDGE-1\n",
        "Via: edge-1\n",
        "Via:\n",
        "Via: 1.1 b (edge-1)\n",
        "X-Via: 1.1 edge-1\n",
    ] {
        assert!(written(Some("edge-1"), fields).is_ok(), "{fields:?}");
    }
}

#[test]
fn spans_point_at_what_the_log_wants() {
    let input =
        crlf("GET http://b/x HTTP/1.1\nHost: a\nReferer:  r s \nUSER-AGENT: u\nConnection: Upgrade\nUpgrade: w\n\n");
    let mut room = fields();
    let head = RequestHead::parse(input.as_bytes(), &mut room).expect("a good head").expect("a whole head");
    let mut out = b"kept ".to_vec();
    let policy = stranger();
    let spans = head.write(&forward(&policy, Some("v")), &mut out).expect("a good head");
    let at = |span: Span| text(span.of(&out));
    assert_eq!((at(spans.method), at(spans.target), at(spans.host)), ("GET".into(), "/x".into(), "b".into()));
    assert_eq!(spans.referer.map(at).as_deref(), Some("r s"));
    assert_eq!(spans.user_agent.map(at).as_deref(), Some("u"));
    assert_eq!(spans.upgrade.map(at).as_deref(), Some("w"));
}

#[test]
fn the_subject_of_a_certificate_is_nobodys_to_forge() {
    let forged = "GET / HTTP/1.1\nHost: a\nX-SSL-Client-S-DN: CN=root\nx_ssl_client_s_dn: CN=root\n\n";
    let policy = Policy { trusted: vec!["192.0.2.0/24".parse().expect("a network")], mode: Mode::Append };
    check(&forward(&policy, None), &[(forged, "a", "GET / HTTP/1.1\nHost: a\n{forwarded}\n")]);
    let tls = TlsPeer { subject: Some(Arc::new("CN=alice".into())), ..TlsPeer::default() };
    let peer = Peer { tls: Some(Arc::new(tls)), ..forward(&policy, None).peer.clone() };
    let told = format!("a | GET / HTTP/1.1\nHost: a\n{FORWARDED}X-SSL-Client-S-DN: CN=alice\n\n");
    let found = read(crlf(forged).as_bytes(), &ForwardContext { peer: &peer, ..forward(&policy, None) });
    assert_eq!(found, Some((Ok(crlf(&told)), crlf(forged).len())));
}

#[test]
fn a_certificate_covers_its_names_and_one_label_below_its_wildcards() {
    let shown: Arc<[String]> = ["a.test", "*.b.test"].map(String::from).into();
    let peer = |name: Option<&str>, shown: Option<&Arc<[String]>>| TlsPeer {
        server_name: name.map(Into::into),
        subject: None,
        shown: shown.cloned(),
    };
    let table = [
        ("a.test", false),
        ("x.b.test", false),
        ("x.y.b.test", true),
        ("b.test", true),
        (".b.test", false),
        ("test", true),
        ("other.test", true),
        ("asked.test", false),
    ];
    for (host, is_for_another) in table {
        assert_eq!(peer(Some("asked.test"), Some(&shown)).is_for_another(host), is_for_another, "{host}");
        assert!(!peer(None, Some(&shown)).is_for_another(host), "a client that names no server: {host}");
        assert!(!peer(Some("asked.test"), None).is_for_another(host), "rules choose the certificate: {host}");
    }
    assert!(peer(Some("asked.test"), Some(&[].into())).is_for_another("a.test"));
}
