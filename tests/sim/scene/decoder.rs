//! A reader of HTTP/1.1 of the test's own: byte by byte, without a line of `wire`. It accepts the canonical form alone
//! that a proxy should send: what is sloppy here is a fault there.

/// One message, as far as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// The request line or the status line.
    pub(crate) first: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) is_complete: bool,
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.first.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// All values of the fields with this name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1.as_str())
    }

    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1.as_str())
    }

    /// Whether `Connection` has this option.
    pub(crate) fn connection_has(&self, option: &str) -> bool {
        self.all("connection").flat_map(|value| value.split(',')).any(|it| it.trim().eq_ignore_ascii_case(option))
    }

    /// The fields whose names begin so, whatever their case.
    pub(crate) fn beginning(&self, prefix: &str) -> Vec<(String, String)> {
        let begins = |name: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        self.fields.iter().filter(|field| begins(&field.0)).cloned().collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response { to_head: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Head,
    Sized(usize),
    ChunkSize,
    ChunkData(usize),
    ChunkEnd,
    Trailers,
    UntilClose,
    Behind,
}

/// Reads one request, or the interim answers and the last one.
#[derive(Debug)]
pub(crate) struct Decoder {
    kind: Kind,
    at: At,
    line: Vec<u8>,
    /// All messages but the one under way.
    pub(crate) informational: Vec<Message>,
    pub(crate) last: Message,
    /// The head of [`Decoder::last`] is there.
    pub(crate) has_head: bool,
    /// What came behind the last message: another protocol, or too much.
    pub(crate) behind: Vec<u8>,
    /// All bytes so far.
    pub(crate) total: usize,
}

impl Decoder {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            at: At::Head,
            line: Vec::new(),
            informational: Vec::new(),
            last: Message::default(),
            has_head: false,
            behind: Vec::new(),
            total: 0,
        }
    }

    /// What is written from now on answers a HEAD, or not.
    pub(crate) fn set_to_head(&mut self, to_head: bool) {
        self.kind = Kind::Response { to_head };
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        self.total += bytes.len();
        while !bytes.is_empty() {
            let taken = match self.at {
                At::Sized(left) | At::ChunkData(left) => self.data(&bytes[..left.min(bytes.len())]),
                At::UntilClose => self.data(bytes),
                At::Behind => {
                    self.behind.extend_from_slice(bytes);
                    bytes.len()
                }
                At::Head | At::ChunkSize | At::ChunkEnd | At::Trailers => {
                    self.line.push(bytes[0]);
                    if self.line.ends_with(b"\n") {
                        self.end_of_line()?;
                    }
                    1
                }
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// The connection was closed in good order.
    pub(crate) fn close(&mut self) {
        if self.at == At::UntilClose {
            self.complete();
        }
    }

    fn data(&mut self, data: &[u8]) -> usize {
        self.last.data.extend_from_slice(data);
        match self.at {
            At::Sized(left) if left == data.len() => self.complete(),
            At::Sized(left) => self.at = At::Sized(left - data.len()),
            At::ChunkData(left) if left == data.len() => self.at = At::ChunkEnd,
            At::ChunkData(left) => self.at = At::ChunkData(left - data.len()),
            _ => {}
        }
        data.len()
    }

    fn complete(&mut self) {
        self.last.is_complete = true;
        self.at = At::Behind;
    }

    fn end_of_line(&mut self) -> Result<(), String> {
        let line = String::from_utf8(std::mem::take(&mut self.line)).map_err(|_| "a line that is no text")?;
        let line = line.strip_suffix("\r\n").ok_or_else(|| format!("a bare LF behind {line:?}"))?;
        if line.contains(['\r', '\n', '\0']) {
            return Err(format!("a control byte in {line:?}"));
        }
        match self.at {
            At::Head if line.is_empty() => self.end_of_head()?,
            At::Head if self.last.first.is_empty() => line.clone_into(&mut self.last.first),
            At::Head => self.last.fields.push(field(line)?),
            At::ChunkSize => {
                let size = usize::from_str_radix(line, 16).map_err(|_| format!("a chunk of {line:?}"))?;
                if line.starts_with(['+', '-']) || (line.len() > 1 && line.starts_with('0')) {
                    return Err(format!("a chunk of {line:?}"));
                }
                self.at = if size == 0 { At::Trailers } else { At::ChunkData(size) };
            }
            At::ChunkEnd if line.is_empty() => self.at = At::ChunkSize,
            At::Trailers if line.is_empty() => self.complete(),
            At::Trailers => self.last.trailers.push(field(line)?),
            _ => return Err(format!("a chunk with {line:?} behind its end")),
        }
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<(), String> {
        let lengths: Vec<_> = self.last.all("content-length").map(str::to_owned).collect();
        let codings: Vec<_> = self.last.all("transfer-encoding").map(str::to_owned).collect();
        let stated = match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => None,
            ([length], []) => Some(At::Sized(length.parse().map_err(|_| format!("a length of {length:?}"))?)),
            ([], [coding]) if coding == "chunked" => Some(At::ChunkSize),
            _ => return Err(format!("lengths {lengths:?} and codings {codings:?}")),
        };
        let status = self.last.status();
        let good_start = match self.kind {
            Kind::Request => self.last.first.ends_with(" HTTP/1.1"),
            Kind::Response { .. } => self.last.first.starts_with("HTTP/1.1 ") && status >= 100,
        };
        if !good_start {
            return Err(format!("a first line {:?}", self.last.first));
        }
        self.at = match self.kind {
            Kind::Request => stated.unwrap_or(At::Sized(0)),
            Kind::Response { .. } if (100..200).contains(&status) && status != 101 => {
                self.last.is_complete = true;
                self.informational.push(std::mem::take(&mut self.last));
                self.at = At::Head;
                return Ok(());
            }
            Kind::Response { to_head } if to_head || status == 101 || status == 204 || status == 304 => At::Sized(0),
            Kind::Response { .. } => stated.unwrap_or(At::UntilClose),
        };
        self.has_head = true;
        if self.at == At::Sized(0) {
            self.complete();
        }
        Ok(())
    }
}

fn field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(": ").ok_or_else(|| format!("a field {line:?}"))?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) || value.trim() != value {
        return Err(format!("a field {line:?}"));
    }
    Ok((name.to_owned(), value.to_owned()))
}
