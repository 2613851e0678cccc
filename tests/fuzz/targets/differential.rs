//! Another parser reads what `wire` lets through, as it came and as it is sent on: where both accept a message, they
//! agree on its lines, its body and its end.

use super::chunked;
use super::heads::{Made, read_request, read_response, text};
use super::hyper_reads::{Seen, Verdict, requests, responses};
use sluice::wire::body::BodyLength;

/// What stands behind the message. If its end is seen elsewhere, this is read otherwise, or not at all.
const NEXT_REQUEST: &str = "GET /second HTTP/1.1\r\nhost: second\r\n\r\n";
const NEXT_RESPONSE: &str = "HTTP/1.1 299 Second\r\ncontent-length: 2\r\n\r\nok";

/// A body that is longer is not made up where the input ends within it.
const LONGEST_BODY: u64 = 4096;

pub(crate) fn request(bytes: &[u8]) {
    let Some(Ok(made)) = read_request(bytes) else { return };
    let Some(body) = Body::behind(&bytes[made.len..], made.body) else { return };
    // As it came, hyper may refuse what is odd, or close where it is told to.
    let came = [&bytes[..made.len], &body.came].concat();
    agree_on_request(&came, &made, &body, false);
    let sent = [made.out.as_slice(), &body.sent].concat();
    agree_on_request(&sent, &made, &body, true);
}

fn agree_on_request(wire: &[u8], made: &Made, body: &Body, is_canonical: bool) {
    let verdict = requests(&[wire, NEXT_REQUEST.as_bytes()].concat());
    let Some(first) = verdict.messages.first() else { return };
    check_body(first, body, wire);
    check_end(&verdict, "GET /second", wire);
    if is_canonical {
        let target = format!("{} {}", made.method, made.target);
        assert_eq!(first.first, target, "the request line of {}", text(wire));
        assert_eq!(sorted(&first.fields), lines_of(&made.out), "the lines of {}", text(wire));
    }
}

pub(crate) fn response(bytes: &[u8]) {
    for method in ["GET", "HEAD"] {
        let Some(Ok(made)) = read_response(bytes, method == "HEAD") else { continue };
        // Of interim answers, another one follows; behind a 101, another protocol.
        if made.target.starts_with('1') {
            continue;
        }
        let Some(body) = Body::behind(&bytes[made.len..], made.body) else { continue };
        let came = [&bytes[..made.len], &body.came].concat();
        let sent = [made.out.as_slice(), &body.sent].concat();
        for (wire, is_canonical) in [(came, false), (sent, true)] {
            let next = if made.body == BodyLength::UntilClose { "" } else { NEXT_RESPONSE };
            let verdict = responses(method, &wire, next.as_bytes());
            let Some(first) = verdict.messages.first() else { continue };
            check_body(first, &body, &wire);
            check_end(&verdict, "299", &wire);
            if is_canonical {
                assert_eq!(first.first, made.target, "the status of {}", text(&wire));
                assert_eq!(sorted(&first.fields), lines_of(&made.out), "the lines of {}", text(&wire));
            }
        }
    }
}

fn check_body(seen: &Seen, body: &Body, wire: &[u8]) {
    assert!(seen.is_complete, "another end: hyper does not see that of {}", text(wire));
    assert_eq!(text(&seen.data), text(&body.data), "another body of {}", text(wire));
}

/// Where the connection goes on, the next message is the one that stands there.
fn check_end(verdict: &Verdict, next: &str, wire: &[u8]) {
    match verdict.messages.as_slice() {
        [_] => assert!(verdict.closes, "hyper reads nothing behind {}", text(wire)),
        [_, second] => assert_eq!(second.first, next, "behind {}", text(wire)),
        more => panic!("{} messages in {}", more.len(), text(wire)),
    }
}

/// A body as it came, as it is sent on, and what is in it.
struct Body {
    came: Vec<u8>,
    sent: Vec<u8>,
    data: Vec<u8>,
}

impl Body {
    /// The body that `rest` begins with; one that is not whole gets an end. `None` where it cannot be one.
    fn behind(rest: &[u8], length: BodyLength) -> Option<Self> {
        let plain = |data: Vec<u8>| Self { came: data.clone(), sent: data.clone(), data };
        match length {
            BodyLength::None => Some(plain(Vec::new())),
            BodyLength::UntilClose => Some(plain(rest.to_vec())),
            BodyLength::Sized(len) if len > LONGEST_BODY => None,
            BodyLength::Sized(len) => {
                let mut data = rest.to_vec();
                data.resize(usize::try_from(len).expect("a small number"), b'x');
                Some(plain(data))
            }
            BodyLength::Chunked => {
                let mut came = rest.to_vec();
                let mut found = chunked::read(&came, || usize::MAX);
                if !found.is_done {
                    came = b"3\r\nabc\r\n0\r\n\r\n".to_vec();
                    found = chunked::read(&came, || usize::MAX);
                }
                came.truncate(found.consumed);
                let sent = chunked::written(&found).ok()?;
                Some(Self { came, sent, data: found.data })
            }
        }
    }
}

/// The lines of a canonical head as hyper shows them.
fn lines_of(head: &[u8]) -> Vec<(String, Vec<u8>)> {
    let lines = head.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase(), line[colon + 2..].to_vec()))
    });
    sorted(&lines.collect::<Vec<_>>())
}

/// By name; the values of one name in their order.
fn sorted(fields: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let mut fields = fields.to_vec();
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}
