//! Messages as peers send them: made at random, remembered in parts, so that what arrives can be compared.

use super::dice::Dice;

pub(crate) type Fields = Vec<(String, String)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Sized,
    Chunked,
    UntilClose,
}

/// A body, and how it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub(crate) framing: Framing,
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Fields,
    /// What is wrong with the coding, if anything.
    pub(crate) flaw: Option<Flaw>,
}

/// A coding error in a chunked body. The body never comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Size,
    Trailers,
}

/// How large things are in one scenario: with large bodies go large reads, so that each ends in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) largest_body: usize,
    pub(crate) smallest_read: usize,
    pub(crate) largest_read: usize,
}

impl Scale {
    pub(crate) fn random(rng: &mut Dice) -> Self {
        match rng.u32(..20) {
            0..9 => Self { largest_body: 300, smallest_read: 1, largest_read: 64 },
            9..18 => Self { largest_body: 8_000, smallest_read: 20, largest_read: 3_000 },
            _ => Self { largest_body: 200_000, smallest_read: 1_000, largest_read: 64 * 1024 },
        }
    }

    pub(crate) fn read_size(self, rng: &mut Dice) -> usize {
        rng.usize(self.smallest_read..=self.largest_read)
    }

    fn body_size(self, rng: &mut Dice) -> usize {
        match rng.u32(..6) {
            0 => rng.usize(..4),
            1 => self.largest_body,
            _ => rng.usize(..self.largest_body),
        }
    }
}

impl Body {
    pub(crate) fn random(framing: Framing, scale: Scale, rng: &mut Dice) -> Self {
        let size = if framing == Framing::None { 0 } else { scale.body_size(rng) };
        let data = rng.content(size);
        let has_trailers = framing == Framing::Chunked && rng.u8(..4) == 0;
        let trailers = if has_trailers { fields("X-E2E-Trailer", rng) } else { Fields::new() };
        Self { framing, data, trailers, flaw: None }
    }

    /// Writes the fields that tell the length.
    pub(crate) fn put_fields(&self, out: &mut Vec<u8>, rng: &mut Dice) {
        match self.framing {
            Framing::None | Framing::UntilClose => {}
            Framing::Sized => put(out, &format!("{}: {}\r\n", case("Content-Length", rng), self.data.len())),
            Framing::Chunked => {
                let coding = case("chunked", rng);
                put(out, &format!("{}: {coding}\r\n", case("Transfer-Encoding", rng)));
            }
        }
    }

    pub(crate) fn encode(&self, rng: &mut Dice) -> Vec<u8> {
        if self.framing != Framing::Chunked {
            return self.data.clone();
        }
        let mut out = Vec::new();
        let mut rest = self.data.as_slice();
        let largest_chunk = 1 + rng.usize(..=self.data.len());
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(rng.usize(1..=largest_chunk.min(rest.len())));
            let size = match rng.u8(..4) {
                0 => format!("{:X}", chunk.len()),
                1 => format!("00{:x}", chunk.len()),
                _ => format!("{:x}", chunk.len()),
            };
            let extension = ["", ";name=value", " ; q=\"a;b\"", ";x"][rng.usize(..4)];
            put(&mut out, &format!("{size}{extension}\r\n"));
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
            rest = after;
        }
        match self.flaw {
            None => {
                put(&mut out, "0\r\n");
                put_all(&mut out, &self.trailers);
                put(&mut out, "\r\n");
            }
            Some(Flaw::Size) => put(&mut out, "5x\r\nhello\r\n0\r\n\r\n"),
            Some(Flaw::Trailers) => put(&mut out, "0\r\nno colon\r\n\r\n"),
        }
        out
    }
}

/// Fields with names of this prefix, of random case and value.
pub(crate) fn fields(prefix: &str, rng: &mut Dice) -> Fields {
    (0..rng.usize(..4)).map(|at| (case(&format!("{prefix}-{at}"), rng), value(rng))).collect()
}

fn value(rng: &mut Dice) -> String {
    ["", "1", "a, b", "quoted \"text\"; q=0.5", "x: y", "close"][rng.usize(..6)].to_owned()
}

/// The same text in another case.
pub(crate) fn case(text: &str, rng: &mut Dice) -> String {
    match rng.u8(..4) {
        0 => text.to_ascii_lowercase(),
        1 => text.to_ascii_uppercase(),
        _ => text.to_owned(),
    }
}

pub(crate) fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn put_all(out: &mut Vec<u8>, fields: &Fields) {
    fields.iter().for_each(|(name, value)| put(out, &format!("{name}: {value}\r\n")));
}
