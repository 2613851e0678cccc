//! How much of a message is read.

/// How much one message may bring, beside the size of its head and of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The greatest number of lines in a head, [`MOST_FIELDS`](super::MOST_FIELDS) at the most.
    pub fields: usize,
    /// The greatest length of a request's target, in bytes.
    pub uri_bytes: usize,
    /// How many bytes the extensions of chunks may have beyond those of the data before them: so a body of nothing but
    /// extensions comes to an end, and an ordinary one, however long, does not meet the limit.
    pub extension_bytes: usize,
    /// The greatest size of a trailer section, in bytes.
    pub trailer_bytes: usize,
    /// How many interim answers one request may get. More than a few have no use.
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
