//! One TLS session over one socket: a read, a write, and the protocol's own messages.

use super::super::socket::{Received, Socket};
use super::client::TlsClientTarget;
use super::fault::{Fault, HELLO_BYTES};
use super::names;
use super::records::{self, OWN_BYTES, RECORD_BYTES, Taken, TlsScratch};
use crate::base::buffer::BufferUsage;
use rustls::client::UnbufferedClientConnection;
use rustls::server::{Acceptor, UnbufferedServerConnection};
use rustls::{CommonState, ExtractedSecrets, HandshakeKind, ServerConfig};
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// Alert "unrecognized_name" (RFC 6066 section 3), fatal, in a record of its own.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A session from its first byte to its last.
#[derive(Debug)]
pub struct Session {
    stage: Stage,
    /// Received bytes of an incomplete record. It owns memory only while it holds bytes, as the next two do.
    incoming: Vec<u8>,
    /// Plaintext beyond the reader's room.
    plain: Vec<u8>,
    /// Records for the peer that were not sent yet.
    outgoing: Vec<u8>,
    /// Bytes of plaintext in `outgoing` that were not yet reported to the writer as sent.
    plaintext_unreported: usize,
    /// The usage of `outgoing` as last reported.
    counted: BufferUsage,
    marks: SessionFlags,
}

#[derive(Clone, Copy, Debug, Default)]
struct SessionFlags {
    /// `incoming` can be processed without another read.
    unprocessed: bool,
    /// The peer has sent `close_notify`, and the reader was notified.
    ended: bool,
    end_told: bool,
    /// A `close_notify` was sent.
    closed: bool,
    /// The socket is to be shut down once all records are sent.
    closing: bool,
    /// The stream was cut, so no `close_notify` may be sent.
    cut: bool,
}

enum Stage {
    /// A server session without a complete hello.
    Hello(Box<Acceptor>),
    /// A server session whose client has sent a hello for this server name.
    Asked(Option<Box<str>>),
    Server(Box<UnbufferedServerConnection>),
    Client {
        connection: Box<UnbufferedClientConnection>,
        begun: bool,
    },
    Failed(Fault),
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello(_) => f.write_str("Hello"),
            Self::Asked(name) => write!(f, "Asked({name:?})"),
            Self::Server(_) => f.write_str("Server"),
            Self::Client { .. } => f.write_str("Client"),
            Self::Failed(fault) => write!(f, "Failed({fault})"),
        }
    }
}

impl Session {
    pub(super) fn for_client() -> Self {
        Self::new(Stage::Hello(Box::default()))
    }

    pub(super) fn for_backend(to: &TlsClientTarget) -> io::Result<Self> {
        let connection = to.connection().map_err(io::Error::other)?;
        Ok(Self::new(Stage::Client { connection: Box::new(connection), begun: false }))
    }

    fn new(stage: Stage) -> Self {
        Self {
            stage,
            incoming: Vec::new(),
            plain: Vec::new(),
            outgoing: Vec::new(),
            plaintext_unreported: 0,
            counted: BufferUsage::default(),
            marks: SessionFlags::default(),
        }
    }

    pub(super) fn fault(&self) -> Option<&Fault> {
        match &self.stage {
            Stage::Failed(fault) => Some(fault),
            _ => None,
        }
    }

    pub(super) fn kept(&self) -> BufferUsage {
        self.counted
    }

    pub(super) fn recount(&mut self) -> BufferUsage {
        self.counted = BufferUsage::of(&self.outgoing);
        self.counted
    }

    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.stage, Stage::Client { begun: false, .. })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match self.common() {
            Some(common) => common.is_handshaking(),
            None => !matches!(self.stage, Stage::Failed(_)),
        }
    }

    pub(super) fn wanted_name(&self) -> Option<&str> {
        match &self.stage {
            Stage::Asked(name) => name.as_deref(),
            _ => None,
        }
    }

    pub(super) fn client_subject(&self) -> Option<Arc<String>> {
        names::subject(self.common()?.peer_certificates()?.first()?)
    }

    pub(super) fn is_resumed(&self) -> Option<bool> {
        self.common()?.handshake_kind().map(|kind| kind == HandshakeKind::Resumed)
    }

    pub(super) fn common(&self) -> Option<&CommonState> {
        match &self.stage {
            Stage::Server(connection) => Some(connection),
            Stage::Client { connection, .. } => Some(connection),
            Stage::Hello(_) | Stage::Asked(_) | Stage::Failed(_) => None,
        }
    }

    pub(super) fn is_readable(&self, socket: &Socket) -> bool {
        match &self.stage {
            // The next message is this node's.
            Stage::Asked(_) => false,
            _ if self.marks.ended && self.marks.end_told => socket.is_readable(),
            _ => socket.is_readable() || self.marks.unprocessed || self.marks.ended || !self.plain.is_empty(),
        }
    }

    /// Advances the handshake with a backend as far as possible.
    pub(super) fn shake_hands(&mut self, socket: &mut Socket, tls_scratch: &mut TlsScratch) -> Option<io::Result<()>> {
        if let Stage::Client { begun, .. } = &mut self.stage
            && !*begun
        {
            *begun = true;
            self.marks.unprocessed = true;
        }
        while self.is_handshaking() && (socket.is_readable() || self.marks.unprocessed) {
            match self.receive(socket, &mut [], tls_scratch) {
                Received::Broken | Received::End => return Some(Err(self.shake_fault())),
                Received::Bytes(_) | Received::Nothing | Received::Hello | Received::Plain(_) => {}
            }
        }
        (!self.is_handshaking()).then_some(Ok(()))
    }

    fn shake_fault(&self) -> io::Error {
        match self.fault() {
            Some(fault) => io::Error::new(io::ErrorKind::InvalidData, fault.to_string()),
            None => io::ErrorKind::ConnectionReset.into(),
        }
    }

    /// Continues after a client's hello, with the settings for its server name.
    pub(super) fn accept(&mut self, config: Arc<ServerConfig>) {
        debug_assert!(matches!(self.stage, Stage::Asked(_)), "there was no hello");
        self.stage = match UnbufferedServerConnection::new(config) {
            Ok(connection) => Stage::Server(Box::new(connection)),
            Err(error) => Stage::Failed(Fault::Protocol(error)),
        };
        self.marks.unprocessed = true;
    }

    pub(super) fn refuse(&mut self, socket: &mut Socket) {
        self.outgoing.extend_from_slice(&UNRECOGNIZED_NAME);
        self.push(socket);
        self.stage = Stage::Failed(Fault::Protocol(rustls::Error::NoCertificatesPresented));
    }

    /// Reads once, and processes all received bytes.
    #[inline(never)]
    pub(super) fn receive(&mut self, socket: &mut Socket, room: &mut [u8], tls_scratch: &mut TlsScratch) -> Received {
        if !self.plain.is_empty() {
            return Received::Bytes(self.take_plain(room));
        }
        if matches!(self.stage, Stage::Asked(_)) {
            return Received::Nothing;
        }
        if self.marks.ended {
            self.marks.end_told = true;
            return Received::End;
        }
        let held = self.incoming.len();
        let filled = if std::mem::take(&mut self.marks.unprocessed) {
            held
        } else {
            let limit = tls_scratch.incoming.len().min(held + room.len().max(RECORD_BYTES));
            match socket.receive(&mut tls_scratch.incoming[held..limit]) {
                Received::Bytes(count) => held + count,
                Received::End => return self.cut_short(),
                other => return other,
            }
        };
        tls_scratch.incoming[..held].copy_from_slice(&self.incoming);
        self.process(socket, &mut tls_scratch.incoming[..filled], room)
    }

    /// Handles the end of the socket's stream before the end of the session.
    fn cut_short(&mut self) -> Received {
        if matches!(self.stage, Stage::Hello(_)) && self.incoming.is_empty() {
            return Received::End;
        }
        self.stage = Stage::Failed(Fault::Truncated);
        Received::Broken
    }

    fn process(&mut self, socket: &mut Socket, input: &mut [u8], room: &mut [u8]) -> Received {
        if matches!(self.stage, Stage::Hello(_)) && is_plain(input) {
            // Bytes beyond the room may be dropped: only the first line of such a client is read.
            let count = input.len().min(room.len());
            room[..count].copy_from_slice(&input[..count]);
            return Received::Plain(count);
        }
        let mut taken = Taken { room, used: 0, rest: &mut self.plain, ended: false };
        let result = match &mut self.stage {
            Stage::Hello(_) => return self.listen(socket, input),
            Stage::Server(connection) => records::drive(&mut **connection, input, &mut taken, &mut self.outgoing),
            Stage::Client { connection, .. } => {
                records::drive(&mut **connection, input, &mut taken, &mut self.outgoing)
            }
            Stage::Asked(_) => return Received::Nothing,
            Stage::Failed(_) => return Received::Broken,
        };
        let Taken { used, ended, .. } = taken;
        self.marks.ended |= ended;
        match result {
            Ok(consumed) => {
                self.incoming.clear();
                match &input[consumed..] {
                    [] => self.incoming = Vec::new(),
                    rest => self.incoming.extend_from_slice(rest),
                }
                // A ticket after the handshake may leave together with the response that follows.
                if used == 0 {
                    self.push(socket);
                }
                match used {
                    0 if self.marks.ended => {
                        self.marks.end_told = true;
                        Received::End
                    }
                    0 => Received::Nothing,
                    used => Received::Bytes(used),
                }
            }
            Err(error) => {
                // The alert with the cause is still to be sent.
                self.push(socket);
                self.stage = Stage::Failed(Fault::Protocol(error));
                Received::Broken
            }
        }
    }

    /// Reads the server name from a client's hello. The hello is kept: the session that follows reads it too.
    fn listen(&mut self, socket: &mut Socket, input: &[u8]) -> Received {
        let Stage::Hello(acceptor) = &mut self.stage else { return Received::Nothing };
        let mut news = &input[self.incoming.len()..];
        while !news.is_empty() {
            // It fails if its own limit is reached.
            if !matches!(acceptor.read_tls(&mut news), Ok(1..)) {
                return self.fail(Fault::LongHello);
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(hello)) => {
                    let name = hello.client_hello().server_name().map(names::normal);
                    self.stage = Stage::Asked(name);
                    self.incoming = input.to_vec();
                    return Received::Hello;
                }
                Err((error, mut alert)) => {
                    // Writing to a `Vec` cannot fail.
                    let _ = alert.write_all(&mut self.outgoing);
                    self.push(socket);
                    return self.fail(Fault::Protocol(error));
                }
            }
        }
        if input.len() > HELLO_BYTES {
            return self.fail(Fault::LongHello);
        }
        self.incoming = input.to_vec();
        Received::Nothing
    }

    fn fail(&mut self, fault: Fault) -> Received {
        self.stage = Stage::Failed(fault);
        Received::Broken
    }

    fn take_plain(&mut self, room: &mut [u8]) -> usize {
        let count = room.len().min(self.plain.len());
        room[..count].copy_from_slice(&self.plain[..count]);
        self.plain.drain(..count);
        if self.plain.is_empty() {
            self.plain = Vec::new();
        }
        count
    }

    /// Whether the session is between two records, with nothing left to read or to send here.
    pub(super) fn is_between_records(&self) -> bool {
        let SessionFlags { unprocessed, ended, closed, closing, cut, .. } = self.marks;
        let is_empty = self.incoming.is_empty() && self.plain.is_empty() && self.outgoing.is_empty();
        let is_open = !(unprocessed || ended || closed || closing || cut);
        let has_nothing_to_send = self.common().is_some_and(|state| !state.wants_write());
        is_open && is_empty && self.plaintext_unreported == 0 && has_nothing_to_send
    }

    /// Whether this node is the client of the session.
    pub(super) fn is_client(&self) -> bool {
        matches!(self.stage, Stage::Client { .. })
    }

    /// Ends the session here and returns its keys.
    pub(super) fn into_secrets(self) -> io::Result<ExtractedSecrets> {
        let secrets = match self.stage {
            Stage::Server(connection) => connection.dangerous_into_kernel_connection().map(|(secrets, _)| secrets),
            Stage::Client { connection, .. } => {
                connection.dangerous_into_kernel_connection().map(|(secrets, _)| secrets)
            }
            Stage::Hello(_) | Stage::Asked(_) | Stage::Failed(_) => return Err(io::ErrorKind::NotConnected.into()),
        };
        secrets.map_err(io::Error::other)
    }

    /// Encrypts and writes. Records that the socket does not accept are kept. Their plaintext counts as not sent,
    /// except for the proportion that has left, so that a sender that waits for its bytes to leave gets the true
    /// number.
    #[inline(never)]
    pub(super) fn send(
        &mut self,
        socket: &mut Socket,
        slices: &[IoSlice<'_>],
        tls_scratch: &mut TlsScratch,
    ) -> io::Result<usize> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        debug_assert!(self.plaintext_unreported <= total, "what was not sent has to be offered again");
        let mut sent = 0;
        if self.plaintext_unreported > 0 {
            sent = self.send_unreported(socket)?;
            if self.plaintext_unreported > 0 {
                return Ok(sent);
            }
        }
        while sent < total {
            if self.outgoing.len() > OWN_BYTES / 2 {
                self.push(socket);
                if !self.outgoing.is_empty() {
                    return Ok(sent);
                }
            }
            let count = self.encrypt(slices, sent, tls_scratch)?;
            let records = tls_scratch.records();
            let written = write(socket, records)?;
            if written < records.len() {
                self.outgoing = records[written..].to_vec();
                return Ok(sent + self.share(count, written, records.len()));
            }
            sent += count;
        }
        Ok(sent)
    }

    fn send_unreported(&mut self, socket: &mut Socket) -> io::Result<usize> {
        let before = self.outgoing.len();
        let written = write(socket, &self.outgoing)?;
        if written == before {
            self.outgoing = Vec::new();
            return Ok(std::mem::take(&mut self.plaintext_unreported));
        }
        self.outgoing.drain(..written);
        Ok(self.share(self.plaintext_unreported, written, before))
    }

    /// The part of `count` unreported bytes that is sent when `written` of `length` bytes of records are. At least one
    /// byte stays unreported while a record is left.
    fn share(&mut self, count: usize, written: usize, length: usize) -> usize {
        let share = (count * written / length).min(count - 1);
        self.plaintext_unreported = count - share;
        share
    }

    fn encrypt(&mut self, slices: &[IoSlice<'_>], at: usize, tls_scratch: &mut TlsScratch) -> io::Result<usize> {
        let own = (&mut self.incoming, &mut self.outgoing);
        match &mut self.stage {
            Stage::Server(connection) => records::encrypt(&mut **connection, own, (slices, at), tls_scratch),
            Stage::Client { connection, .. } => records::encrypt(&mut **connection, own, (slices, at), tls_scratch),
            Stage::Hello(_) | Stage::Asked(_) | Stage::Failed(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The socket accepts bytes again.
    pub(super) fn writable(&mut self, socket: &mut Socket) {
        // Plaintext not yet reported is counted by the next write.
        if self.plaintext_unreported == 0 {
            self.push(socket);
        }
    }

    /// Sends pending records; those that the socket does not accept are kept.
    fn push(&mut self, socket: &mut Socket) {
        if !self.outgoing.is_empty() {
            match write(socket, &self.outgoing) {
                Ok(written) if written < self.outgoing.len() => drop(self.outgoing.drain(..written)),
                // If the connection is broken, the next read reports it.
                Ok(_) | Err(_) => self.outgoing = Vec::new(),
            }
        }
        if self.marks.closing && self.outgoing.is_empty() {
            self.marks.closing = false;
            socket.close_write();
        }
    }

    pub(super) fn close_write(&mut self, socket: &mut Socket) {
        self.send_close_notify();
        self.marks.closing = true;
        self.push(socket);
    }

    /// Whether the stream can end properly now.
    pub(super) fn may_end(&self) -> bool {
        !self.marks.cut && self.plaintext_unreported == 0 && !self.is_handshaking()
    }

    /// Sends `close_notify`, as far as possible now.
    pub(super) fn close_gracefully(&mut self, socket: &mut Socket) {
        if self.may_end() {
            self.send_close_notify();
            self.push(socket);
        }
    }

    pub(super) fn skip_close_notify(&mut self) {
        self.marks.cut = true;
    }

    fn send_close_notify(&mut self) {
        if std::mem::replace(&mut self.marks.closed, true) {
            return;
        }
        match &mut self.stage {
            Stage::Server(connection) => {
                records::put_close_notify(&mut **connection, &mut self.incoming, &mut self.outgoing)
            }
            Stage::Client { connection, .. } => {
                records::put_close_notify(&mut **connection, &mut self.incoming, &mut self.outgoing);
            }
            Stage::Hello(_) | Stage::Asked(_) | Stage::Failed(_) => {}
        }
    }
}

/// Whether a client's first bytes are an HTTP request: a method consists of letters, and neither a TLS record nor an
/// SSL 2 hello begins with one.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
}

fn write(socket: &mut Socket, bytes: &[u8]) -> io::Result<usize> {
    match socket.send(&[IoSlice::new(bytes)]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
