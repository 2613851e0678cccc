use super::options;
use crate::health::ProbeFault;
use crate::probe::check::{Check, Outcome};

/// The outcome of a response that arrives in pieces of this length and ends with the connection.
fn judge(pairs: &[(&str, &str)], response: &str, piece: usize) -> Outcome {
    let mut check = Check::new(options(pairs), None);
    response.as_bytes().chunks(piece).find_map(|bytes| check.receive(bytes)).unwrap_or_else(|| check.end())
}

const GET: (&str, &str) = ("health.method", "GET");
const BODY: (&str, &str) = ("health.body", "all is well");

#[test]
fn the_request_has_what_the_options_say() {
    let check = Check::new(
        options(&[("health.method", "HEAD"), ("health.path", "/up?x=1"), ("health.host", "a.test")]),
        Some("own.test"),
    );
    let request = std::str::from_utf8(check.request()).expect("text");
    assert!(request.starts_with("HEAD /up?x=1 HTTP/1.1\r\nHost: a.test\r\nUser-Agent: sluice-health/"), "{request}");
    assert!(request.ends_with("\r\nConnection: close\r\n\r\n"), "{request}");
    let check = Check::new(options(&[]), Some("own.test:81"));
    assert!(check.request().starts_with(b"OPTIONS / HTTP/1.1\r\nHost: own.test:81\r\n"));
}

#[test]
fn responses_are_judged_by_status_and_body() {
    let large = format!("HTTP/1.1 200 OK\r\n\r\n{}all is well", "x".repeat(70_000));
    let long_head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(70_000));
    type Row<'r> = (&'r [(&'r str, &'r str)], &'r str, Outcome);
    let table: [Row<'_>; 24] = [
        (&[], "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", Ok(())),
        (&[], "HTTP/1.0 204 No Content\r\n\r\n", Ok(())),
        (&[], "HTTP/1.2 200 OK\r\n\r\n", Ok(())),
        (&[], "HTTP/1.1 302 Found\r\n\r\n", Ok(())),
        (&[], "HTTP/1.1 404 Not Found\r\n\r\n", Err(ProbeFault::Status(404))),
        (&[], "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\n\r\n", Err(ProbeFault::Status(503))),
        (&[("health.expect", "503")], "HTTP/1.1 503 Busy\r\n\r\n", Ok(())),
        (
            &[],
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            Ok(()),
        ),
        (&[], "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Err(ProbeFault::Status(101))),
        (&[], "", Err(ProbeFault::Closed)),
        (&[], "HTTP/1.1 200 OK\r\nContent-", Err(ProbeFault::Closed)),
        (&[], "SSH-2.0-OpenSSH_9.2\r\n", Err(ProbeFault::Malformed)),
        (&[], "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Err(ProbeFault::Malformed)),
        (&[], &long_head, Err(ProbeFault::Malformed)),
        (&[GET, BODY], "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{all is well}\n", Ok(())),
        (&[GET, BODY], "HTTP/1.1 200 OK\r\n\r\nso far all is well", Ok(())),
        (&[GET, BODY], "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nall is well", Err(ProbeFault::BodyMismatch)),
        (&[GET, BODY], "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nall is", Err(ProbeFault::Closed)),
        (&[GET, BODY], "HTTP/1.1 200 OK\r\n\r\nnothing is", Err(ProbeFault::BodyMismatch)),
        (&[GET, BODY], "HTTP/1.1 500 No\r\n\r\nall is well", Err(ProbeFault::Status(500))),
        (
            &[GET, BODY],
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nall is\r\n6;x=y\r\n well!\r\n0\r\n\r\n",
            Ok(()),
        ),
        (
            &[GET, BODY],
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\r\n",
            Err(ProbeFault::BodyMismatch),
        ),
        (
            &[GET, BODY],
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nall is well\r\n",
            Err(ProbeFault::Malformed),
        ),
        (&[GET, BODY], &large, Err(ProbeFault::BodyMismatch)),
    ];
    for (pairs, response, expected) in table {
        let pieces: &[usize] = if response.len() > 10_000 { &[4096, 16_384] } else { &[1, 2, 7, 16_384] };
        for piece in pieces {
            let start = response.get(..60).unwrap_or(response);
            assert_eq!(judge(pairs, response, *piece), expected, "{pairs:?} {start:?} in pieces of {piece}");
        }
    }
}

#[test]
fn a_head_has_no_body_to_search() {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n";
    assert_eq!(judge(&[("health.method", "HEAD")], response, 9), Ok(()));
    assert_eq!(judge(&[("health.method", "HEAD"), BODY], response, 9), Err(ProbeFault::BodyMismatch));
}
