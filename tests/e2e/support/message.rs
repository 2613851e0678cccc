//! HTTP/1.1 messages as the tests read them: strictly, and keeping every byte.

use std::fmt;
use std::io::{ErrorKind, Read};

/// A head, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The first line.
    pub(crate) start: String,
    /// Names as they were written, and values, in order.
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    fn parse(wire: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(wire).map_err(|_| "a head that is not UTF-8".to_owned())?;
        let text = text.strip_suffix("\r\n\r\n").ok_or("a head without an end")?;
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(parse_field).collect::<Result<_, _>>()?;
        Ok(Self { start, fields })
    }

    /// The value of the first field of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The values of all fields of this name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The names as they were written.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The target of a request.
    pub(crate) fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The status of an answer.
    pub(crate) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// Whether a list field has this element.
    pub(crate) fn lists(&self, name: &str, element: &str) -> bool {
        self.all(name).iter().flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(element))
    }

    /// How the body of this request ends.
    pub(crate) fn request_framing(&self) -> Framing {
        self.stated_framing().unwrap_or(Framing::None)
    }

    /// How the body of this answer to `method` ends.
    pub(crate) fn response_framing(&self, method: &str) -> Framing {
        match self.status() {
            100..=199 | 204 | 304 => Framing::None,
            _ if method == "HEAD" => Framing::None,
            _ => self.stated_framing().unwrap_or(Framing::UntilClose),
        }
    }

    fn stated_framing(&self) -> Option<Framing> {
        let stated = [self.all("content-length").len(), self.all("transfer-encoding").len()];
        assert!(stated.iter().sum::<usize>() <= 1, "the length is stated more than once in {self}");
        if self.lists("transfer-encoding", "chunked") {
            return Some(Framing::Chunked);
        }
        let length = self.get("content-length")?.parse();
        Some(Framing::Length(length.unwrap_or_else(|_| panic!("a Content-Length that is no number in {self}"))))
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.start)?;
        self.fields.iter().try_for_each(|(name, value)| writeln!(f, "{name}: {value}"))
    }
}

fn parse_field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or_else(|| format!("no colon in the line {line:?}"))?;
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// After this many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// Names and values after the last chunk.
pub(crate) type Trailers = Vec<(String, String)>;

/// Why reading ended before the message did.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What happened.
    pub(crate) how: How,
    /// What had come of the part (head, body) that is not complete.
    pub(crate) received: Vec<u8>,
}

/// What happened to a connection that was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// The peer closed it.
    Closed,
    /// The peer, or something on the way, reset it.
    Reset,
    /// Nothing came for too long.
    TimedOut,
    /// What came is no HTTP.
    Malformed(String),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.received[..self.received.len().min(2000)];
        write!(f, "{:?} after {} bytes: \"{}\"", self.how, self.received.len(), shown.escape_ascii())
    }
}

/// Bytes that were read, and those of them that no message has taken yet.
#[derive(Default)]
pub(crate) struct Inlet {
    buffer: Vec<u8>,
    taken: usize,
    tape: Option<Vec<u8>>,
}

impl Inlet {
    /// From here on, keeps a copy of all that is taken.
    pub(crate) fn start_tape(&mut self) {
        self.tape = Some(Vec::new());
    }

    /// What was taken since the tape was started.
    pub(crate) fn end_tape(&mut self) -> Vec<u8> {
        self.tape.take().unwrap_or_default()
    }

    /// Reads a head.
    pub(crate) fn head(&mut self, from: &mut dyn Read) -> Result<Head, Ended> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.pending()[searched..], b"\r\n\r\n") {
                let wire = self.take(searched + at + 4);
                return Head::parse(&wire).map_err(|fault| Ended { how: How::Malformed(fault), received: wire });
            }
            searched = self.pending().len().saturating_sub(3);
            self.fill(from).map_err(|how| Ended { how, received: self.pending().to_vec() })?;
        }
    }

    /// Reads a body and gives its content to `sink`, piece by piece.
    pub(crate) fn body(
        &mut self,
        from: &mut dyn Read,
        framing: Framing,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<Trailers, How> {
        match framing {
            Framing::None => Ok(Trailers::new()),
            Framing::Length(length) => self.exactly(from, length, sink).map(|()| Trailers::new()),
            Framing::Chunked => self.chunks(from, sink),
            Framing::UntilClose => match self.exactly(from, u64::MAX, sink) {
                Err(How::Closed) => Ok(Trailers::new()),
                Err(how) => Err(how),
                Ok(()) => unreachable!("nobody sends 2^64 bytes"),
            },
        }
    }

    /// Reads this many bytes.
    pub(crate) fn exactly(
        &mut self,
        from: &mut dyn Read,
        mut missing: u64,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<(), How> {
        while missing > 0 {
            if self.pending().is_empty() {
                self.fill(from)?;
            }
            let here = usize::try_from(missing).unwrap_or(usize::MAX).min(self.pending().len());
            sink(&self.take(here));
            missing -= here as u64;
        }
        Ok(())
    }

    fn chunks(&mut self, from: &mut dyn Read, sink: &mut dyn FnMut(&[u8])) -> Result<Trailers, How> {
        loop {
            let line = self.line(from)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| How::Malformed(format!("chunk size {line:?}")))?;
            if size == 0 {
                break;
            }
            self.exactly(from, size, sink)?;
            match self.line(from)?.as_str() {
                "" => {}
                rest => return Err(How::Malformed(format!("{rest:?} after a chunk"))),
            }
        }
        let mut trailers = Trailers::new();
        loop {
            match self.line(from)?.as_str() {
                "" => return Ok(trailers),
                line => trailers.push(parse_field(line).map_err(How::Malformed)?),
            }
        }
    }

    fn line(&mut self, from: &mut dyn Read) -> Result<String, How> {
        loop {
            if let Some(at) = find(self.pending(), b"\r\n") {
                let line = self.take(at + 2);
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill(from)?;
        }
    }

    fn pending(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let bytes = self.buffer[self.taken..self.taken + length].to_vec();
        self.taken += length;
        if let Some(tape) = &mut self.tape {
            tape.extend_from_slice(&bytes);
        }
        bytes
    }

    fn fill(&mut self, from: &mut dyn Read) -> Result<(), How> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let mut piece = vec![0; 64 * 1024];
        loop {
            match from.read(&mut piece) {
                Ok(0) => return Err(How::Closed),
                Ok(length) => {
                    self.buffer.extend_from_slice(&piece[..length]);
                    return Ok(());
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Err(How::TimedOut),
                    _ => return Err(How::Reset),
                },
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
