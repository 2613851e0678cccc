//! Heads: however they are cut they mean the same, and what is made of them is canonical.

use super::cuts;
use crate::scene::decoder::{Decoder, Kind};
use sluice::base::reason::FailureReason;
use sluice::wire::body::BodyLength;
use sluice::wire::forwarded::{Mode, Peer, Policy};
use sluice::wire::request::{ForwardContext, RequestHead, Span, fields};
use sluice::wire::response::{Persistence, ResponseEncoding, ResponseHead};
use sluice::wire::version::as_http11;
use sluice::wire::{HeadFault, MAX_FIELDS};
use std::fmt::Debug;
use std::sync::LazyLock;

pub(crate) const CLIENT: &str = "192.0.2.7";

/// What is made of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    /// How many bytes the head has.
    pub(crate) len: usize,
    pub(crate) body: BodyLength,
    pub(crate) host: Vec<u8>,
    pub(crate) method: String,
    pub(crate) target: String,
    /// The head as it is sent on.
    pub(crate) out: Vec<u8>,
}

pub(crate) fn request(bytes: &[u8]) {
    let found = read_request(bytes);
    check_cuts(bytes, found.as_ref(), read_request);
    let Some(Ok(made)) = found else { return };
    check_limits(bytes, &made);
    let again = read_request(&made.out).expect("what was sent on is whole").expect("what was sent on is good");
    assert_eq!(again.len, made.out.len(), "something stands behind what was sent on");
    assert_eq!((&again.host, again.body), (&made.host, made.body), "read differently a second time");
    assert_eq!(text(&again.out), text(&made.out), "the canonical form is none");
    check_request_by_decoder(&made);
}

/// A request from somebody who is not believed.
pub(crate) fn read_request(bytes: &[u8]) -> Option<Result<Made, FailureReason>> {
    static PEER: LazyLock<Peer> = LazyLock::new(|| {
        let address = CLIENT.parse().expect("an address");
        Peer { address, local_port: 80, secure: false, tls: None }
    });
    static POLICY: Policy = Policy { trusted: Vec::new(), mode: Mode::Append };
    // As the exchange does where a head has a later minor version.
    let known = as_http11(bytes);
    let mut room = fields();
    let head = match RequestHead::parse(known.as_deref().unwrap_or(bytes), &mut room) {
        Ok(head) => head?,
        Err(reason) => return Some(Err(reason)),
    };
    let mut out = Vec::new();
    let spans = match head.write(
        &ForwardContext {
            peer: &PEER,
            policy: &POLICY,
            via: None,
            request_id: None,
            request_start: None,
            may_lack_host: false,
        },
        &mut out,
    ) {
        Ok(spans) => spans,
        Err(reason) => return Some(Err(reason)),
    };
    let part = |span: Span| String::from_utf8_lossy(span.of(&out)).into_owned();
    Some(Ok(Made {
        len: head.len,
        body: head.body,
        host: spans.host.of(&out).to_vec(),
        method: part(spans.method),
        target: part(spans.target),
        out: spans.head.of(&out).to_vec(),
    }))
}

pub(crate) fn response(bytes: &[u8]) {
    // Whether it answers a HEAD is not in the bytes.
    for to_head in [false, true] {
        let read = |bytes: &[u8]| read_response(bytes, to_head);
        let found = read(bytes);
        check_cuts(bytes, found.as_ref(), read);
        let Some(Ok(made)) = found else { continue };
        check_limits(bytes, &made);
        let again = read(&made.out).expect("what was sent on is whole").expect("what was sent on is good");
        assert_eq!(again.len, made.out.len(), "something stands behind what was sent on");
        assert_eq!(again.body, made.body, "read differently a second time");
        assert_eq!(text(&again.out), text(&made.out), "the canonical form is none");
        check_response_by_decoder(&made, to_head);
    }
}

/// An answer as it goes to a client of HTTP/1.1.
pub(crate) fn read_response(bytes: &[u8], to_head: bool) -> Option<Result<Made, HeadFault>> {
    let known = as_http11(bytes);
    let mut room = fields();
    let head = match ResponseHead::parse(known.as_deref().unwrap_or(bytes), &mut room, to_head) {
        Ok(head) => head?,
        Err(fault) => return Some(Err(fault)),
    };
    let mut out = Vec::new();
    let chunked = head.body == BodyLength::Chunked;
    let persistence =
        if head.status == 101 && head.upgrade().is_some() { Persistence::Upgrade } else { Persistence::Implied };
    head.write(&ResponseEncoding { chunked, to_http11: true, persistence, via: None }, &mut out);
    out.extend_from_slice(b"\r\n");
    Some(Ok(Made {
        len: head.len,
        body: head.body,
        host: Vec::new(),
        method: String::new(),
        target: head.status.to_string(),
        out,
    }))
}

/// Of a part, nothing is found, or already what is found in the end; what follows a head changes nothing.
fn check_cuts<F: PartialEq + Debug>(
    bytes: &[u8],
    found: Option<&Result<Made, F>>,
    read: impl Fn(&[u8]) -> Option<Result<Made, F>>,
) {
    let len = match found {
        Some(Ok(made)) => made.len,
        _ => bytes.len(),
    };
    for cut in cuts(len) {
        let early = read(&bytes[..cut]);
        let is_early_fault = matches!(early, Some(Err(_)));
        assert!(early.is_none() || (is_early_fault && early.as_ref() == found), "{early:?} at {cut}, then {found:?}");
    }
    if let Some(Ok(_)) = found {
        assert_eq!(read(&bytes[..len]).as_ref(), found, "what follows the head changes it");
    }
}

fn check_limits(bytes: &[u8], made: &Made) {
    let head = &bytes[..made.len];
    assert!(head.ends_with(b"\r\n\r\n"));
    let is_bare = |at: usize| head[at] == b'\n' && (at == 0 || head[at - 1] != b'\r');
    assert!(!(0..head.len()).any(is_bare), "a bare LF was let through");
    assert!(head.windows(2).all(|pair| pair[0] != b'\r' || pair[1] == b'\n'), "a bare CR was let through");
    assert!(!head.contains(&0), "a NUL was let through");
    let lines = head.split(|byte| *byte == b'\n').count();
    // The first line, the blank one, what is behind it, and blank lines in front.
    let blank = head.iter().take_while(|byte| b"\r\n".contains(byte)).count() / 2;
    assert!(lines - blank <= MAX_FIELDS + 3, "{lines} lines");
    assert!(made.host.len() <= 255 && !made.host.iter().any(u8::is_ascii_uppercase), "the host's name");
    assert!(made.out.len() <= made.len + 600, "{} bytes were made of {}", made.out.len(), made.len);
}

/// The reader of the simulation knows nothing of `wire` and takes the canonical form alone. It reads text.
fn check_request_by_decoder(made: &Made) {
    if !made.out.is_ascii() {
        return;
    }
    let mut decoder = Decoder::new(Kind::Request);
    decoder.push(&made.out).unwrap_or_else(|fault| panic!("{fault} in {:?}", text(&made.out)));
    push_body(&mut decoder, made);
    let request = &decoder.last;
    assert_eq!(request.first, format!("{} {} HTTP/1.1", made.method, made.target));
    assert_eq!(request.all("host").count(), 1, "one host");
    assert_eq!(request.all("x-forwarded-for").collect::<Vec<_>>(), [CLIENT]);
    assert_eq!(request.all("x-real-ip").collect::<Vec<_>>(), [CLIENT]);
    for name in ["keep-alive", "proxy-connection", "forwarded", "x-ssl-client-s-dn"] {
        assert_eq!(request.one(name), None, "{name}");
    }
    let options: Vec<_> = request.all("connection").collect();
    assert!(matches!(options.as_slice(), [] | ["Upgrade" | "TE"]), "{options:?}");
    assert_eq!(request.one("upgrade").is_some(), options == ["Upgrade"], "Upgrade and its option");
}

fn check_response_by_decoder(made: &Made, to_head: bool) {
    if !made.out.is_ascii() || (100..200).contains(&made.target.parse().unwrap_or(0)) {
        return;
    }
    let mut decoder = Decoder::new(Kind::Response { to_head });
    decoder.push(&made.out).unwrap_or_else(|fault| panic!("{fault} in {:?}", text(&made.out)));
    push_body(&mut decoder, made);
    for name in ["keep-alive", "proxy-connection"] {
        assert_eq!(decoder.last.one(name), None, "{name}");
    }
}

/// A body of the stated length has to be what the decoder waits for.
fn push_body(decoder: &mut Decoder, made: &Made) {
    let body = match made.body {
        BodyLength::None => Vec::new(),
        BodyLength::Sized(len @ 1..=4096) => vec![b'x'; usize::try_from(len).expect("a small number")],
        BodyLength::Sized(_) => return,
        BodyLength::Chunked => b"1\r\nx\r\n0\r\n\r\n".to_vec(),
        BodyLength::UntilClose => {
            decoder.push(b"x").expect("data");
            return decoder.close();
        }
    };
    assert_eq!(decoder.last.is_complete, body.is_empty(), "the end without a body");
    decoder.push(&body).unwrap_or_else(|fault| panic!("{fault} behind {:?}", text(&made.out)));
    assert!(decoder.last.is_complete && decoder.behind.is_empty(), "another end of {:?}", text(&made.out));
}

pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
