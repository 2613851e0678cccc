//! Conversion between records and plaintext, for both roles of a session: runs rustls until it needs input or has
//! nothing to send.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus, WriteTraffic};
use std::fmt;
use std::io::{self, IoSlice};

/// The greatest length of a record on the wire (RFC 5246 section 6.2.3, which allows more than RFC 8446).
pub(super) const RECORD_BYTES: usize = 5 + 16_384 + 2_048;

/// The greatest plaintext length of a record.
pub(super) const FRAGMENT_BYTES: usize = 16_384;

/// The greatest number of bytes that encryption adds to a record: header, nonce, type, tag.
const OVERHEAD_BYTES: usize = 5 + 8 + 1 + 16;

/// The greatest number of bytes of one read.
const READ_BYTES: usize = 128 * 1024;

/// Bytes of plaintext encrypted for one write: one read and its framing. Records that the socket does not accept have
/// to be kept.
const WRITE_BYTES: usize = 144 * 1024;

/// The greatest number of bytes of a session's own messages (tickets, key updates) that leave together with data. More
/// are sent alone.
pub(super) const OWN_BYTES: usize = 16 * 1024;

/// A worker's buffers for decryption and encryption.
pub struct TlsScratch {
    pub(super) incoming: Box<[u8]>,
    outgoing: Box<[u8]>,
    /// Number of bytes of `outgoing` to be sent.
    used: usize,
    /// Small slices of a message, joined to one record.
    gathered: Vec<u8>,
}

impl Default for TlsScratch {
    fn default() -> Self {
        const RECORDS: usize = 64;
        Self {
            incoming: vec![0; READ_BYTES + RECORD_BYTES].into_boxed_slice(),
            outgoing: vec![0; OWN_BYTES + WRITE_BYTES + RECORDS * OVERHEAD_BYTES].into_boxed_slice(),
            used: 0,
            gathered: Vec::new(),
        }
    }
}

impl TlsScratch {
    /// The bytes to send.
    pub(super) fn records(&self) -> &[u8] {
        &self.outgoing[..self.used]
    }

    /// Begins with the session's own messages.
    fn load(&mut self, own: &mut Vec<u8>) {
        self.outgoing[..own.len()].copy_from_slice(own);
        self.used = own.len();
        *own = Vec::new();
    }
}

impl fmt::Debug for TlsScratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bench")
    }
}

/// Either role of a session. rustls has the same methods for both, but no common trait.
pub(super) trait Party {
    type Data;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Whether the next call of [`Party::process`] has bytes to send, and so reads no input.
    fn has_to_send(&self) -> bool;
}

impl Party for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn has_to_send(&self) -> bool {
        self.wants_write()
    }
}

impl Party for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn has_to_send(&self) -> bool {
        self.wants_write()
    }
}

/// The destination of plaintext.
pub(super) struct Taken<'a> {
    pub(super) room: &'a mut [u8],
    pub(super) used: usize,
    /// Plaintext beyond the size of the room.
    pub(super) rest: &'a mut Vec<u8>,
    /// The peer has sent `close_notify`.
    pub(super) ended: bool,
}

impl Taken<'_> {
    fn take(&mut self, plain: &[u8]) {
        let fits = plain.len().min(self.room.len() - self.used);
        self.room[self.used..self.used + fits].copy_from_slice(&plain[..fits]);
        self.used += fits;
        self.rest.extend_from_slice(&plain[fits..]);
    }
}

/// Processes all complete records of `input`. Returns the number of input bytes that are done.
pub(super) fn drive<P: Party>(
    party: &mut P,
    input: &mut [u8],
    taken: &mut Taken<'_>,
    outgoing: &mut Vec<u8>,
) -> Result<usize, rustls::Error> {
    let mut at = 0;
    loop {
        let UnbufferedStatus { mut discard, state } = party.process(&mut input[at..]);
        let (mut more, mut is_traffic) = (true, false);
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                is_traffic = true;
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    taken.take(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => put(outgoing, |room| data.encode(room))?,
            // The bytes are in `outgoing`, which is sent later.
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => taken.ended = true,
            Ok(_) => more = false,
            Err(error) => {
                put_alert(party, &mut input[at..], outgoing);
                return Err(error);
            }
        }
        at += discard;
        // Traffic is read once the handshake is complete: nothing of it is left to process.
        let is_done = is_traffic && at == input.len() && !party.has_to_send();
        if is_done || !more {
            return Ok(at);
        }
    }
}

/// Lets rustls append to `outgoing`.
fn put(
    outgoing: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), rustls::Error> {
    let start = outgoing.len();
    loop {
        match encode(&mut outgoing[start..]) {
            Ok(count) => {
                outgoing.truncate(start + count);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                outgoing.resize(start + required_size, 0);
            }
            Err(EncodeError::AlreadyEncoded) => return Err(rustls::Error::General("a message was coded twice".into())),
        }
    }
}

/// Appends the alert of a failed session, behind its earlier messages; nothing follows it.
fn put_alert<P: Party>(party: &mut P, input: &mut [u8], outgoing: &mut Vec<u8>) {
    while party.has_to_send()
        && let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(mut data)), .. } = party.process(input)
    {
        // Without the alert the peer sees the end alone.
        if put(outgoing, |room| data.encode(room)).is_err() {
            return;
        }
    }
}

/// Appends pending messages of the session to `outgoing`, then calls `use_traffic` to encrypt data. It never waits for
/// input.
fn with_traffic<P: Party, T>(
    party: &mut P,
    incoming: &mut Vec<u8>,
    outgoing: &mut Vec<u8>,
    use_traffic: impl FnOnce(WriteTraffic<'_, P::Data>, &mut Vec<u8>) -> T,
) -> io::Result<T> {
    loop {
        // An incomplete record stays at its position.
        let UnbufferedStatus { discard, state } = party.process(incoming);
        match state.map_err(io::Error::other)? {
            ConnectionState::WriteTraffic(traffic) => return Ok(use_traffic(traffic, outgoing)),
            ConnectionState::EncodeTlsData(mut data) => {
                put(outgoing, |room| data.encode(room)).map_err(io::Error::other)?;
            }
            ConnectionState::TransmitTlsData(data) => data.done(),
            _ => return Err(io::ErrorKind::NotConnected.into()),
        }
        incoming.drain(..discard);
    }
}

/// Encrypts the next bytes of `slices`, from `at` on, and appends them to the scratch buffer. Returns their number.
pub(super) fn encrypt<P: Party>(
    party: &mut P,
    (incoming, outgoing): (&mut Vec<u8>, &mut Vec<u8>),
    (slices, at): (&[IoSlice<'_>], usize),
    tls_scratch: &mut TlsScratch,
) -> io::Result<usize> {
    with_traffic(party, incoming, outgoing, |mut traffic, outgoing| {
        tls_scratch.load(outgoing);
        let mut count = 0;
        while count < WRITE_BYTES {
            let piece = next_piece(slices, at + count, WRITE_BYTES - count, &mut tls_scratch.gathered);
            let room = &mut tls_scratch.outgoing[tls_scratch.used..];
            if piece.is_empty() || room.len() < piece.len() + piece.len().div_ceil(FRAGMENT_BYTES) * OVERHEAD_BYTES {
                break;
            }
            tls_scratch.used += traffic.encrypt(piece, room).map_err(io::Error::other)?;
            count += piece.len();
        }
        Ok(count)
    })?
}

pub(super) fn put_close_notify<P: Party>(party: &mut P, incoming: &mut Vec<u8>, outgoing: &mut Vec<u8>) {
    const ALERT_BYTES: usize = 2 + OVERHEAD_BYTES;
    // It fails if the session is already over, and then there is nothing to send.
    let _ = with_traffic(party, incoming, outgoing, |mut traffic, outgoing| {
        let start = outgoing.len();
        outgoing.resize(start + ALERT_BYTES, 0);
        let written = traffic.queue_close_notify(&mut outgoing[start..]).unwrap_or(0);
        outgoing.truncate(start + written);
    });
}

/// The bytes of `slices` from `at` on, at most `limit`; empty at the end. Slices that fit one record together are
/// joined, which costs a copy.
fn next_piece<'a>(slices: &'a [IoSlice<'_>], mut at: usize, limit: usize, gathered: &'a mut Vec<u8>) -> &'a [u8] {
    let mut rest = slices.iter().map(|slice| {
        let rest: &[u8] = &slice[at.min(slice.len())..];
        at -= slice.len() - rest.len();
        rest
    });
    let Some(first) = rest.by_ref().find(|rest| !rest.is_empty()) else { return &[] };
    let next = rest.next().unwrap_or_default();
    let record_limit = limit.min(FRAGMENT_BYTES);
    if next.is_empty() || first.len() + next.len() > record_limit {
        return &first[..first.len().min(limit)];
    }
    gathered.clear();
    gathered.extend_from_slice(first);
    gathered.extend_from_slice(next);
    for more in rest {
        if gathered.len() + more.len() > record_limit {
            break;
        }
        gathered.extend_from_slice(more);
    }
    gathered
}
