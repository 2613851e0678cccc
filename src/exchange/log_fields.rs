//! The facts about a request that the log needs, for a tunnel, whose request is over.

use crate::access_log::TEXT_LIMIT_BYTES;
use crate::base::slice_ext::SliceExt;
use crate::wire::request::Span;

/// Number of fields.
const FIELDS: usize = 7;

/// Host, method, target, `Referer`, `User-Agent`, the proxy chain and `X-Request-Id`, in memory of exactly that size:
/// tunnels may last long and be idle. Each takes a line, since a head contains no line feed in them. An absent field is
/// an empty line, and a long text is cut to the length that the log writes.
#[derive(Clone, Debug)]
pub(super) struct LogFields(Box<[u8]>);

impl LogFields {
    /// The fields with these texts, in this order.
    pub(super) fn new(texts: [&[u8]; FIELDS]) -> Self {
        // One byte more than fits, so the log sees that the text has to be cut.
        let texts = texts.map(|text| text.prefix(text.len().min(TEXT_LIMIT_BYTES + 1)));
        Self(texts.join(&b'\n').into())
    }

    /// The fields from the bytes of [`LogFields::into_bytes`] of another process.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// The fields for another process.
    pub(super) fn into_bytes(self) -> Box<[u8]> {
        self.0
    }

    /// All lines.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The positions of the fields in [`LogFields::bytes`]. A field that another process has left out is empty.
    pub(super) fn spans(&self) -> [Span; FIELDS] {
        let mut start = 0;
        let mut lines = self.0.split(|byte| *byte == b'\n').map(|line| {
            let span = Span::new(start, start + line.len());
            start = span.end() + 1;
            span
        });
        [(); FIELDS].map(|()| lines.next().unwrap_or_default())
    }

    /// The name of the host.
    pub(super) fn host(&self) -> &str {
        let [host, ..] = self.spans();
        std::str::from_utf8(host.of(&self.0)).unwrap_or_default()
    }
}
