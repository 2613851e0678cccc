//! Frame boundaries of WebSocket (RFC 6455 section 5.2): what a proxy needs in order to add a close frame.

use serde::{Deserialize, Serialize};

/// A close frame of a server: "service restart" (1012).
pub const RESTART: [u8; 4] = [0x88, 2, 0x03, 0xf4];

/// A close frame of a server: "going away" (1001).
pub const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// One direction of a connection, byte by byte. It is serialised when its tunnel moves to another process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    /// Payload bytes left in the current frame; while its header is read, the payload length known so far.
    payload: u64,
    /// The first two bytes of the header.
    start: [u8; 2],
    /// Number of header bytes of the current frame read so far; 0 after the whole header.
    header_len: u8,
    /// The bytes are not valid frames, so no boundary is known.
    is_lost: bool,
    /// A close frame was seen: none may be added.
    is_closed: bool,
}

impl Frames {
    /// Tracks bytes up to the end of the current frame, or all. Returns how many.
    pub fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(byte) = bytes.get(at)
            && !self.is_lost
        {
            if self.payload > 0 && self.header_len == 0 {
                let step = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.payload -= step as u64;
                at += step;
            } else {
                self.read_header(*byte);
                at += 1;
            }
            if self.is_at_boundary() {
                return at;
            }
        }
        bytes.len()
    }

    fn read_header(&mut self, byte: u8) {
        let at = self.header_len;
        self.header_len += 1;
        match &mut self.start {
            [first, _] if at == 0 => return *first = byte,
            [_, second] if at == 1 => *second = byte,
            _ => {}
        }
        let [first, second] = self.start;
        let (opcode, short_len) = (first & 0x0f, second & 0x7f);
        let length_len = match short_len {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if at == 1 {
            self.payload = if length_len == 0 { u64::from(short_len) } else { 0 };
        } else if at < 2 + length_len {
            self.payload = self.payload << 8 | u64::from(byte);
        }
        // Opcodes 3 to 7 and 11 to 15 are reserved, and control frames have a short payload.
        self.is_lost |= matches!(opcode, 3..=7 | 11..=15) || (opcode >= 8 && length_len > 0);
        let mask_len = if second & 0x80 == 0 { 0 } else { 4 };
        if self.header_len < 2 + length_len + mask_len {
            return;
        }
        self.is_lost |= self.payload >> 63 != 0;
        self.is_closed |= opcode == 8;
        self.header_len = 0;
    }

    /// Whether a frame may begin here.
    pub fn is_at_boundary(&self) -> bool {
        !self.is_lost && self.payload == 0 && self.header_len == 0
    }

    /// Whether an own frame may be added here or at a later boundary.
    pub fn may_add(&self) -> bool {
        !self.is_lost && !self.is_closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ends of frames found in `bytes`, offered in pieces of `size` bytes.
    fn ends(bytes: &[u8], size: usize) -> (Vec<usize>, Frames) {
        let mut frames = Frames::default();
        let (mut ends, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let piece = &bytes[at..bytes.len().min(at + size)];
            at += frames.advance(piece);
            if frames.is_at_boundary() {
                ends.push(at);
            }
        }
        (ends, frames)
    }

    #[test]
    fn frames_end_where_they_say_however_they_are_cut() {
        let mut bytes = vec![0x81, 3, b'a', b'b', b'c', 0x89, 0];
        bytes.extend([0x02, 126, 0x01, 0x00]);
        bytes.extend([7; 256]);
        bytes.extend([0x80, 127, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2]);
        bytes.extend([0x81, 0x81, 1, 2, 3, 4, 9]);
        for size in [1, 2, 3, 7, 100, 1000] {
            let (ends, frames) = ends(&bytes, size);
            assert_eq!(ends, [5, 7, 267, 279, 286], "in pieces of {size}");
            assert!(frames.may_add());
        }
        assert!(!ends(&RESTART, 4).1.may_add(), "after a close frame comes nothing");
        for garbage in [&b"HTTP"[..], &[0x83, 0], &[0x88, 126, 0, 1], &[0x81, 127, 255, 0, 0, 0, 0, 0, 0, 0]] {
            let (_, frames) = ends(garbage, 1);
            assert!(!frames.may_add() || !frames.is_at_boundary(), "{garbage:?}");
        }
    }
}
