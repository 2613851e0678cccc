//! Limits of a message.

/// Limits of one message, besides the sizes of its head and of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The greatest number of lines in a head; at most [`MOST_FIELDS`](super::MOST_FIELDS).
    pub fields: usize,
    /// The greatest length of a request target, in bytes.
    pub uri_bytes: usize,
    /// Bytes that chunk extensions may have beyond the number of data bytes before them. So a body of nothing but
    /// extensions hits the limit, and an ordinary one of any length does not.
    pub extension_bytes: usize,
    /// The greatest size of a trailer section, in bytes.
    pub trailer_bytes: usize,
    /// The greatest number of informational responses to one request. More than a few have no use.
    pub informational_responses: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fields: super::MAX_FIELDS,
            uri_bytes: 16 * 1024,
            extension_bytes: 4 * 1024,
            trailer_bytes: 16 * 1024,
            informational_responses: 64,
        }
    }
}
