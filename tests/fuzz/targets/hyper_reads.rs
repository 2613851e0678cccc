//! hyper as the other reader: its server and its client over a connection in memory, played to the end by hand.

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// So many turns in which no byte moves mean that none will.
const PATIENCE: u32 = 4;

/// A message as hyper has read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Method and target, or the status.
    pub(crate) first: String,
    /// Names in lower case, by name and in their order.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) data: Vec<u8>,
    /// The body came to its end.
    pub(crate) is_complete: bool,
}

/// What hyper has made of everything that was sent to it.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) messages: Vec<Seen>,
    /// It said that it would read no further.
    pub(crate) closes: bool,
}

/// Has hyper's server read these bytes as requests, which it all answers.
pub(crate) fn requests(bytes: &[u8]) -> Verdict {
    let (wire, messages) = (Wire::new(bytes, b"", false), Rc::new(RefCell::new(Vec::new())));
    let log = Rc::clone(&messages);
    let response = move |request: Request<Incoming>| {
        let log = Rc::clone(&log);
        async move {
            let (head, body) = request.into_parts();
            let first = format!("{} {}", head.method, head.uri);
            let place = log.borrow().len();
            log.borrow_mut().push(Seen { first, fields: fields(&head.headers), ..Seen::default() });
            let (data, is_complete) = whole(body).await;
            let mut log = log.borrow_mut();
            (log[place].data, log[place].is_complete) = (data, is_complete);
            Ok::<_, Infallible>(Response::new(Nothing))
        }
    };
    let mut server = hyper::server::conn::http1::Builder::new();
    server.auto_date_header(false).max_headers(200);
    play(server.serve_connection(wire.clone(), service_fn(response)), &wire);
    let said = wire.said();
    let messages = messages.take();
    Verdict { closes: said.contains("connection: close") || said.contains("HTTP/1.0 "), messages }
}

/// Has hyper's client read these bytes as the answer to a request of this method, and those `behind` as the answer to
/// the next one on the same connection, if it gets that far.
pub(crate) fn responses(method: &str, bytes: &[u8], behind: &[u8]) -> Verdict {
    let wire = Wire::new(bytes, behind, behind.is_empty());
    let mut messages = Vec::new();
    let exchange = async {
        let mut client = hyper::client::conn::http1::Builder::new();
        let handshake = client.max_headers(200).handshake::<_, Nothing>(wire.clone()).await;
        let Ok((mut sender, connection)) = handshake else { return };
        let talk = async {
            for (method, target) in [(method, "/first"), ("GET", "/second")] {
                let request = Request::builder().method(method).uri(target).header("host", "a").body(Nothing);
                if sender.ready().await.is_err() {
                    return;
                }
                let Ok(response) = sender.send_request(request.expect("a good request")).await else { return };
                let (head, body) = response.into_parts();
                let (data, is_complete) = whole(body).await;
                let first = head.status.as_str().to_owned();
                messages.push(Seen { first, fields: fields(&head.headers), data, is_complete });
                if !is_complete {
                    return;
                }
            }
        };
        let (mut talk, mut connection) = (pin!(talk), pin!(connection));
        let mut is_over = false;
        std::future::poll_fn(|context| {
            is_over = is_over || connection.as_mut().poll(context).is_ready();
            talk.as_mut().poll(context)
        })
        .await;
    };
    play(exchange, &wire);
    let closes = !wire.said().contains("/second");
    Verdict { messages, closes }
}

fn fields(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

/// The data of a body, and whether it came to its end.
async fn whole(body: Incoming) -> (Vec<u8>, bool) {
    let (mut body, mut data) = (pin!(body), Vec::new());
    loop {
        match std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
            None => return (data, true),
            Some(Err(_)) => return (data, false),
            Some(Ok(frame)) => data.extend_from_slice(frame.data_ref().map_or(&[], |bytes| bytes)),
        }
    }
}

/// Polls until it is done, or does not get any further: everything is in memory, so there is nothing to wait for.
fn play(future: impl Future, wire: &Wire) {
    let (mut future, mut context) = (pin!(future), Context::from_waker(Waker::noop()));
    let (mut moved, mut idle) = (wire.moved(), 0);
    while idle < PATIENCE && future.as_mut().poll(&mut context).is_pending() {
        idle = if wire.moved() == moved { idle + 1 } else { 0 };
        moved = wire.moved();
    }
}

/// A body of nothing.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

/// A connection in memory.
#[derive(Clone)]
struct Wire(Rc<RefCell<Inside>>);

struct Inside {
    input: Vec<u8>,
    at: usize,
    /// What comes once the second request was sent.
    behind: Vec<u8>,
    /// The last byte is followed by the end.
    ends: bool,
    output: Vec<u8>,
}

impl Wire {
    fn new(input: &[u8], behind: &[u8], ends: bool) -> Self {
        let (input, behind) = (input.to_vec(), behind.to_vec());
        Self(Rc::new(RefCell::new(Inside { input, at: 0, behind, ends, output: Vec::new() })))
    }

    fn moved(&self) -> (usize, usize) {
        let inside = self.0.borrow();
        (inside.at, inside.output.len())
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.0.borrow().output).into_owned()
    }
}

impl Read for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, mut room: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut inside = self.0.borrow_mut();
        let inside = &mut *inside;
        if inside.at == inside.input.len() && inside.output.windows(7).any(|window| window == b"/second") {
            inside.input.append(&mut inside.behind);
        }
        if inside.at == inside.input.len() && !inside.ends {
            return Poll::Pending;
        }
        let rest = &inside.input[inside.at..];
        let part = &rest[..rest.len().min(room.remaining())];
        room.put_slice(part);
        inside.at += part.len();
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
