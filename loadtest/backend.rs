//! A backend for tests under load: its answers are made as the path says.
//!
//! * `/bytes/N`: a body of N bytes with `Content-Length`.
//! * `/chunked/COUNT/SIZE`: COUNT chunks of SIZE bytes.
//! * `/after/MILLISECONDS`: a body of 140 bytes, but not sooner.
//! * anything else: a body of 140 bytes.
//!
//! Bodies of requests are read and dropped. One thread a connection: it must be right, not fast.

use clap::Parser;
use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

const MAX_CONNECTIONS: usize = 4096;
const MAX_HEAD_BYTES: u64 = 64 * 1024;
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
const DEFAULT_BODY_BYTES: usize = 140;
const THREAD_STACK_BYTES: usize = 128 * 1024;

/// Answers requests as their path says.
#[derive(Parser)]
struct Args {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// The value of the header `X-Backend` in every answer.
    #[arg(long, default_value = "backend")]
    name: String,
}

/// What a request's head says, as far as an answer needs it.
#[derive(Default)]
struct Request {
    path: String,
    wants_body: bool,
    close: bool,
    content_length: u64,
    chunked: bool,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let name: Arc<str> = args.name.into();
    let open = Arc::new(AtomicUsize::new(0));
    for client in TcpListener::bind(args.listen)?.incoming() {
        let client = client?;
        if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (name, open) = (Arc::clone(&name), Arc::clone(&open));
        std::thread::Builder::new().stack_size(THREAD_STACK_BYTES).spawn(move || {
            // A client that goes away in the middle is nothing to report: proxies under test do that.
            let _ = serve(&client, &name);
            open.fetch_sub(1, Ordering::Relaxed);
        })?;
    }
    Ok(())
}

fn serve(client: &TcpStream, name: &str) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut input = BufReader::new(client);
    while let Some(request) = read_request(&mut input)? {
        // One write an answer: a backend that is killed has sent all of it or nothing.
        let (head, body) = response(&request, name)?;
        let mut parts = [IoSlice::new(&head), IoSlice::new(&body)];
        let (mut output, mut left) = (client, &mut parts[..]);
        while !left.is_empty() {
            let sent = output.write_vectored(left)?;
            IoSlice::advance_slices(&mut left, sent);
        }
        if request.close {
            break;
        }
    }
    Ok(())
}

/// Reads a head and drops the body. `None` is the end of the connection between two requests.
fn read_request(input: &mut BufReader<&TcpStream>) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    loop {
        let line_start = head.len();
        input.take(MAX_HEAD_BYTES - line_start as u64).read_until(b'\n', &mut head)?;
        match &head[line_start..] {
            [] if head.is_empty() => return Ok(None),
            b"\r\n" => break,
            [.., b'\n'] => {}
            _ => return Err(invalid("reading a request's head: it ends in the middle or is too large")),
        }
    }
    let request = parse_head(&head)?;
    if request.chunked {
        drop_chunks(input)?;
    } else {
        io::copy(&mut input.take(request.content_length), &mut io::sink())?;
    }
    Ok(Some(request))
}

fn parse_head(head: &[u8]) -> io::Result<Request> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let status = parsed.parse(head).map_err(|error| invalid(&format!("parsing a request's head: {error}")))?;
    let (true, Some(path)) = (status.is_complete(), parsed.path) else {
        return Err(invalid("parsing a request's head: it is not complete"));
    };
    let mut request = Request {
        path: path.to_owned(),
        wants_body: parsed.method != Some("HEAD"),
        close: parsed.version == Some(0),
        ..Request::default()
    };
    for header in parsed.headers {
        let value = str::from_utf8(header.value).unwrap_or("").trim();
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => {
                request.content_length = value.parse().map_err(|_| invalid("Content-Length is not a number"))?;
            }
            "transfer-encoding" => request.chunked = true,
            "connection" => request.close |= value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    Ok(request)
}

fn drop_chunks(input: &mut BufReader<&TcpStream>) -> io::Result<()> {
    loop {
        let size = read_line(input)?;
        let size = size.split(';').next().unwrap_or("").trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| invalid("reading a chunk: its size is not a number"))?;
        if size == 0 {
            break;
        }
        io::copy(&mut input.take(size), &mut io::sink())?;
        read_line(input)?;
    }
    while !read_line(input)?.is_empty() {}
    Ok(())
}

fn read_line(input: &mut BufReader<&TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    input.take(MAX_HEAD_BYTES).read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(invalid("reading a line of a body: it does not end")),
    }
}

/// Head and body.
#[expect(clippy::disallowed_methods, reason = "a late answer is what is asked for")]
fn response(request: &Request, name: &str) -> io::Result<(Vec<u8>, Cow<'static, [u8]>)> {
    let mut parts = request.path.trim_start_matches('/').split('/');
    let kind = parts.next().unwrap_or("");
    let mut number =
        || parts.next().and_then(|part| part.parse::<usize>().ok()).ok_or(invalid("a path lacks a number"));
    let (framing, body) = match kind {
        "chunked" => {
            let (count, size) = (number()?, number()?);
            ("Transfer-Encoding: chunked".to_owned(), chunks(count, size)?)
        }
        "bytes" => fixed_body(number()?)?,
        "after" => {
            thread::sleep(Duration::from_millis(number()? as u64));
            fixed_body(DEFAULT_BODY_BYTES)?
        }
        _ => fixed_body(DEFAULT_BODY_BYTES)?,
    };
    let close = if request.close { "Connection: close\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nX-Backend: {name}\r\n{close}{framing}\r\n\r\n"
    );
    Ok((head.into_bytes(), if request.wants_body { body } else { Cow::default() }))
}

fn fixed_body(length: usize) -> io::Result<(String, Cow<'static, [u8]>)> {
    Ok((format!("Content-Length: {length}"), Cow::Borrowed(bounded_bytes(length)?)))
}

fn chunks(count: usize, size: usize) -> io::Result<Cow<'static, [u8]>> {
    bounded_bytes(count.saturating_mul(size))?;
    let mut body = Vec::new();
    for _ in 0..count {
        body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        body.extend_from_slice(bounded_bytes(size)?);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    Ok(Cow::Owned(body))
}

/// Many slow readers of large bodies share these bytes.
fn bounded_bytes(length: usize) -> io::Result<&'static [u8]> {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| vec![b'x'; MAX_BODY_BYTES]);
    BYTES.get(..length).ok_or_else(|| invalid("the path asks for too large a body"))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
