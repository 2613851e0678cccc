//! One end of a connection with the proxy, as a socket shows it: bytes that come in pieces, and room that is small.

use super::decoder::{Decoder, Kind};
use super::dice::Dice;
use std::io::{self, ErrorKind, IoSlice};

#[derive(Debug)]
pub(crate) struct Peer {
    /// What it sends.
    pub(crate) source: Vec<u8>,
    /// How much of that it may send by now.
    pub(crate) gate: usize,
    /// How much of that was read.
    pub(crate) sent: usize,
    /// What was read and not consumed.
    pub(crate) unread: Vec<u8>,
    /// All of it was offered, and none wanted: more has to come first.
    pub(crate) is_waiting_for_more: bool,
    /// It has begun to do what its script says.
    pub(crate) has_started: bool,
    /// Its last byte is followed by the end.
    pub(crate) ends: bool,
    /// The connection is reset once all is sent.
    pub(crate) resets: bool,
    pub(crate) told_end: bool,
    /// Bytes that may be written to it before it has to be asked again.
    pub(crate) room: usize,
    /// Takes no more than this, in silence.
    pub(crate) takes: usize,
    /// Takes no more than this, with an error.
    pub(crate) dies_at: usize,
    /// A write has failed.
    pub(crate) is_write_closed: bool,
    /// The proxy has said to end the writing to it, or has done so.
    pub(crate) closing: bool,
    pub(crate) closed: bool,
    /// What has arrived there.
    pub(crate) seen: Decoder,
}

impl Peer {
    pub(crate) fn new(source: Vec<u8>, kind: Kind) -> Self {
        Self {
            gate: source.len(),
            source,
            sent: 0,
            unread: Vec::new(),
            is_waiting_for_more: false,
            has_started: true,
            ends: false,
            resets: false,
            told_end: false,
            room: 0,
            takes: usize::MAX,
            dies_at: usize::MAX,
            is_write_closed: false,
            closing: false,
            closed: false,
            seen: Decoder::new(kind),
        }
    }

    /// How many bytes can be read.
    pub(crate) fn readable(&self) -> usize {
        self.gate.min(self.source.len()).saturating_sub(self.sent)
    }

    pub(crate) fn has_sent_all(&self) -> bool {
        self.has_started && self.sent == self.source.len()
    }

    /// Reads up to `size` bytes behind those that are unread.
    pub(crate) fn read(&mut self, size: usize) {
        let size = size.min(self.readable());
        self.unread.extend_from_slice(&self.source[self.sent..self.sent + size]);
        self.sent += size;
        self.is_waiting_for_more &= size == 0;
    }

    pub(crate) fn can_take_more(&self) -> bool {
        self.seen.total < self.takes.min(self.dies_at) || (self.seen.total >= self.dies_at && !self.is_write_closed)
    }

    pub(crate) fn write(&mut self, slices: &[IoSlice<'_>], rng: &mut Dice) -> io::Result<usize> {
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        assert!(offered > 0, "a write of nothing");
        assert!(!self.closed, "{offered} bytes behind the end of the writing");
        if self.seen.total >= self.dies_at {
            self.is_write_closed = true;
            return Err(ErrorKind::BrokenPipe.into());
        }
        let limit = self.room.min(self.takes - self.seen.total).min(self.dies_at - self.seen.total);
        let taken = if offered > limit { limit } else { offered };
        // Now and then a socket is full although it has just said that it is not.
        let taken = if rng.u8(..20) == 0 { rng.usize(..=taken) } else { taken };
        self.room -= taken;
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut left = taken;
        for slice in slices {
            let part = left.min(slice.len());
            self.seen.push(&slice[..part]).unwrap_or_else(|fault| panic!("what was sent cannot be read: {fault}"));
            left -= part;
        }
        if taken < offered {
            self.room = 0;
        }
        Ok(taken)
    }
}
