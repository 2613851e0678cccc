//! Frames of RFC 6455, section 5.2. Messages of more than one frame are not made here and refused.

/// The greatest payload that is taken.
pub(crate) const MAX_PAYLOAD_BYTES: u64 = 16 * 1024 * 1024;

pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

/// A frame at the start of a buffer.
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) mask: Option<[u8; 4]>,
    /// Where its payload starts and where the frame ends.
    pub(crate) payload: std::ops::Range<usize>,
}

/// The frame at the start of `bytes`; `None` while it is incomplete.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Frame>, &'static str> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    if first & !0x0f != FINAL {
        return Err("a frame that is not a whole message, or with reserved bits");
    }
    let (length, mut at) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|slice| <[u8; 8]>::try_from(slice).ok()) {
            Some(length) => (u64::from_be_bytes(length), 10),
            None => return Ok(None),
        },
        length => (u64::from(length), 2),
    };
    if length > MAX_PAYLOAD_BYTES {
        return Err("a frame that is too large");
    }
    let mut mask = None;
    if second & MASKED != 0 {
        mask = bytes.get(at..at + 4).and_then(|slice| slice.try_into().ok());
        if mask.is_none() {
            return Ok(None);
        }
        at += 4;
    }
    let end = at + length as usize;
    Ok((bytes.len() >= end).then_some(Frame { opcode: first & 0x0f, mask, payload: at..end }))
}

/// Appends a frame. The payload is masked when there is a mask, as everything must be that a client sends.
pub(crate) fn append(out: &mut Vec<u8>, opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) {
    let masked = if mask.is_some() { MASKED } else { 0 };
    out.push(FINAL | opcode);
    match payload.len() {
        length @ 0..126 => out.push(masked | length as u8),
        length @ 126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(mask.as_ref().map_or(&[], |mask| &mask[..]));
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask);
    }
}

/// Masks or unmasks: it is the same.
pub(crate) fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}
