//! One end of a connection that never waits, for tests that turn the worker themselves.

use super::*;
use std::io::ErrorKind;

/// One end of a connection of the test: the bytes it has to send, and those it has received.
pub(super) struct End {
    pub(super) stream: TcpStream,
    pub(super) outbox: Vec<u8>,
    pub(super) inbox: Vec<u8>,
    pub(super) is_over: bool,
    /// Number of requests that have come by it.
    pub(super) served: usize,
}

impl End {
    pub(super) fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).expect("a socket that can be asked");
        stream.set_nodelay(true).expect("an option");
        Self { stream, outbox: Vec::new(), inbox: Vec::new(), is_over: false, served: 0 }
    }

    /// Sends as much as the socket takes.
    pub(super) fn send(&mut self) {
        let sent = self.stream.write(&self.outbox).unwrap_or(0);
        self.outbox.drain(..sent);
    }

    /// Sends pending bytes, and reads those that have come.
    pub(super) fn work(&mut self) {
        self.send();
        let mut room = [0; 65_536];
        while !self.is_over {
            match self.stream.read(&mut room) {
                Ok(count @ 1..) => self.inbox.extend_from_slice(&room[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => self.is_over = true,
            }
        }
    }

    /// Number of the request that is coming, once its line is here.
    pub(super) fn number(&self) -> Option<usize> {
        let line = self.inbox.split(|byte| *byte == b'\r').next().filter(|line| line.len() < self.inbox.len())?;
        Some(number(std::str::from_utf8(line).expect("a request line")))
    }

    /// Removes a message from the received bytes, if it is complete: its first line and its body.
    pub(super) fn take_message(&mut self) -> Option<(String, Vec<u8>)> {
        let head_len = self.inbox.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let (head, rest) = self.inbox.split_at(head_len);
        let head = std::str::from_utf8(head).expect("a head");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let (body, len) = match length {
            Some(length) => {
                let length = length.parse().expect("a length");
                (rest.get(..length)?.to_vec(), length)
            }
            None if head.contains("Transfer-Encoding: chunked") => unchunked(rest)?,
            None => (Vec::new(), 0),
        };
        let line = head.lines().next().unwrap_or_default().to_owned();
        self.inbox.drain(..head_len + len);
        Some((line, body))
    }
}

/// The number in a request line.
pub(super) fn number(line: &str) -> usize {
    line.split(['/', ' ']).nth(2).and_then(|number| number.parse().ok()).expect("a number")
}

/// The data of a complete chunked body, and its encoded length.
fn unchunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let digits = bytes.get(at..)?.windows(2).position(|end| end == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + digits]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        at += digits + 2;
        data.extend_from_slice(bytes.get(at..at + size)?);
        assert_eq!(bytes.get(at + size..at + size + 2)?, b"\r\n", "the end of a chunk");
        at += size + 2;
        if size == 0 {
            return Some((data, at));
        }
    }
}
