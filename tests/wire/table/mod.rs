//! *The* table: every class of message that some proxy and some server have read in two ways, and what becomes of it.
//!
//! `machine` plays each row against the exchange at every split of the input, `proxy` against the program with real
//! sockets; `docs/request-smuggling.md` explains each class, and `readme` compares the two.

mod chunks;
mod heads;
mod lengths;
mod meanings;
mod responses;

pub(crate) use responses::{Given, RESPONSES, Response, Then, To, Used};
use sluice::base::reason::FailureReason;

/// The classes of requests.
pub(crate) const REQUESTS: &[&[Class]] = &[heads::CLASSES, lengths::CLASSES, chunks::CLASSES, meanings::CLASSES];

/// Requests that are attacked, or mistaken, in the same way.
pub(crate) struct Class {
    /// As in `docs/request-smuggling.md`.
    pub(crate) name: &'static str,
    /// What comes in, and what becomes of it.
    pub(crate) rows: &'static [(&'static str, Fate)],
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It is refused, and no backend hears of it. Nothing behind it is read.
    Refused(FailureReason),
    /// It is refused in the middle of its body. Where the fault comes with the head, no backend hears of it; otherwise a
    /// backend gets less than a request, and then the end of the connection.
    Cut(FailureReason),
    /// It is passed on in exactly this form, and what stands behind it is the next request. `{f}` stands for the
    /// forwarded headers.
    Passed(&'static str),
    /// The same, but the connection ends with the answer.
    Last(&'static str),
    /// It is answered here with this status, and what stands behind it is the next request.
    Responded(u16),
}

/// A GET with these lines.
macro_rules! get {
    ($($lines:expr),*) => { concat!("GET / HTTP/1.1\r\nHost: a\r\n", $($lines, "\r\n",)* "\r\n") };
}

/// A POST with these lines and then this body.
macro_rules! post {
    ($($lines:expr),*; $body:expr) => { concat!("POST / HTTP/1.1\r\nHost: a\r\n", $($lines, "\r\n",)* "\r\n", $body) };
}

/// A GET with these lines as a backend gets it.
macro_rules! got {
    ($($lines:expr),*) => { $crate::table::Fate::Passed(concat!("GET / HTTP/1.1\r\nHost: a\r\n", $($lines, "\r\n",)* "{f}\r\n")) };
}

/// A POST with these lines and this body as a backend gets it.
macro_rules! sent {
    ($($lines:expr),*; $body:expr) => {
        $crate::table::Fate::Passed(concat!("POST / HTTP/1.1\r\nHost: a\r\n", $($lines, "\r\n",)* "{f}\r\n", $body))
    };
}

/// A chunked POST with this body.
macro_rules! chunked {
    ($body:expr) => { $crate::table::post!("Transfer-Encoding: chunked"; $body) };
}

pub(crate) use {chunked, get, got, post, sent};
