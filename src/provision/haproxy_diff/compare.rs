//! One request through one program, and the comparison of results.

use flate2::read::{MultiGzDecoder, ZlibDecoder};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Fields that each program writes in its own form, or that belong to the connection.
const OWN: [&str; 6] = ["connection", "keep-alive", "date", "transfer-encoding", "content-length", "via"];

/// The response to a request, and the request as its server received it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// 0 if the connection was closed without a response.
    status: u16,
    /// Names in lower case, and values.
    fields: BTreeMap<String, Vec<String>>,
    /// The content of the echo, if the response is one: the backend, the request line, and the fields.
    echo: Option<(String, String, BTreeMap<String, Vec<String>>)>,
}

impl Seen {
    /// The status of the response; 0 if there was none.
    pub(super) fn status(&self) -> u16 {
        self.status
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.status, self.fields)?;
        match &self.echo {
            Some((backend, line, fields)) => write!(f, " from {backend}: {line} {fields:?}"),
            None => Ok(()),
        }
    }
}

/// Sends a request on its own connection.
pub(super) fn fetch(address: SocketAddr, request: &[u8]) -> Seen {
    // The two programs have different ports.
    let port = address.port().to_string();
    exchange(address, request).map(|bytes| read(&bytes, &port)).unwrap_or_default()
}

fn exchange(address: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request)?;
    let is_head = request.starts_with(b"HEAD ");
    let mut bytes = Vec::new();
    let mut room = [0; 16 * 1024];
    loop {
        if is_whole(&bytes, is_head) {
            return Ok(bytes);
        }
        match stream.read(&mut room)? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&room[..count]),
        }
    }
}

/// Whether a response is complete, if its head states the length.
fn is_whole(bytes: &[u8], is_head: bool) -> bool {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    if head.lines().any(|line| line.starts_with("transfer-encoding:")) && !is_head {
        return bytes.ends_with(b"\r\n0\r\n\r\n");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let is_bodiless = is_head || head.starts_with("http/1.1 304") || head.starts_with("http/1.1 204");
    is_bodiless || length.is_some_and(|length| bytes.len() >= end + 4 + length)
}

fn read(bytes: &[u8], port: &str) -> Seen {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Seen::default() };
    let head = String::from_utf8_lossy(&bytes[..end]).replace(port, "PORT");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let fields = fields(lines);
    let is_chunked = head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked");
    let body = if is_chunked { without_chunks(&bytes[end + 4..]) } else { bytes[end + 4..].to_vec() };
    let coding = fields.get("content-encoding").and_then(|values| values.first()).map_or("", String::as_str);
    let body = String::from_utf8_lossy(&decoded(body, coding)).replace(port, "PORT");
    let echo = fields.contains_key("x-echo").then(|| {
        let mut lines = body.lines();
        let backend = lines.next().unwrap_or_default().to_owned();
        (backend, lines.next().unwrap_or_default().to_owned(), self::fields(lines))
    });
    Seen { status, fields, echo }
}

/// The data of a chunked body.
fn without_chunks(mut body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some(end) = memchr::memchr(b'\n', body) {
        let line = String::from_utf8_lossy(&body[..end]);
        let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        let Some(chunk) = body.get(end + 1..end + 1 + size).filter(|chunk| !chunk.is_empty()) else { break };
        data.extend_from_slice(chunk);
        body = body.get(end + 3 + size..).unwrap_or_default();
    }
    data
}

/// The data of a compressed body; empty if it cannot be decoded.
fn decoded(body: Vec<u8>, coding: &str) -> Vec<u8> {
    let mut data = Vec::new();
    let result = match coding {
        "gzip" => MultiGzDecoder::new(&*body).read_to_end(&mut data),
        "deflate" => ZlibDecoder::new(&*body).read_to_end(&mut data),
        _ => return body,
    };
    result.map(|_| data).unwrap_or_default()
}

fn fields<'l>(lines: impl Iterator<Item = &'l str>) -> BTreeMap<String, Vec<String>> {
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = name.to_ascii_lowercase();
        if !OWN.contains(&name.as_str()) {
            fields.entry(name).or_default().push(value.trim().to_owned());
        }
    }
    fields
}

/// The kind of a difference.
pub(super) fn difference(haproxy: &Seen, sluice: &Seen) -> Option<String> {
    if haproxy.status != sluice.status {
        return Some(format!("status {} and {}", haproxy.status, sluice.status));
    }
    match (&haproxy.echo, &sluice.echo) {
        (Some(theirs), Some(ours)) => {
            if theirs.0 != ours.0 {
                return Some("backend".to_owned());
            }
            if theirs.1 != ours.1 {
                return Some("request line at the server".to_owned());
            }
            if let Some(name) = differing(&theirs.2, &ours.2) {
                return Some(format!("request field {name} at the server"));
            }
        }
        (None, None) => {}
        _ => return Some("one response is the server's, and one is not".to_owned()),
    }
    differing(&haproxy.fields, &sluice.fields).map(|name| format!("response field {name}"))
}

fn differing(one: &BTreeMap<String, Vec<String>>, other: &BTreeMap<String, Vec<String>>) -> Option<String> {
    one.keys().chain(other.keys()).find(|name| one.get(*name) != other.get(*name)).cloned()
}
