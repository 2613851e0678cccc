//! The decision about a message, and the time and chance at which it is made.

/// The decision about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is forwarded.
    Forward,
    /// This node responds ([`super::Workspace::take_reply`]).
    Respond,
    /// The same, and the request counts as denied.
    Deny,
    /// No rule selects a backend.
    NoBackend,
    /// The connection is closed without a response.
    Close,
    /// The response is the statistics page ([`super::Evaluation::statistics_page`]).
    Statistics,
    /// The response is this node's metrics.
    Metrics,
}

/// The time, and a random number.
#[derive(Clone, Copy, Debug)]
pub struct Dice {
    /// Seconds since 1970.
    pub unix_seconds: i64,
    /// Milliseconds of that second.
    pub subsec_millis: u16,
    /// A random number.
    pub random: u32,
    /// Milliseconds since the start of the process.
    pub now: u64,
}
