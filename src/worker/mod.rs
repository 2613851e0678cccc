//! One core: accept, pump, the match that performs effects, mail, drain.

use std::time::Duration;

/// What of a worker can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a client's connection may be idle between two requests.
    pub idle_timeout: Duration,
    /// The greatest number of client connections of one worker.
    pub max_connections: usize,
    /// How long requests and tunnels may go on after the order to stop (`server.gracefulWait`).
    pub graceful_wait: Duration,
}
