//! Answers as bytes.

/// An answer of this status line's rest ("200 OK") with a Content-Length.
pub(crate) fn sized(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// 200 with this body.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    sized("200 OK", body)
}

/// 200 with each of these as a chunk.
pub(crate) fn chunked(pieces: &[&str]) -> Vec<u8> {
    let mut response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in pieces {
        response.extend_from_slice(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes());
    }
    response.extend_from_slice(b"0\r\n\r\n");
    response
}

/// A GET of this host and path.
pub(crate) fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// A POST of this host and path.
pub(crate) fn post(host: &str, path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
