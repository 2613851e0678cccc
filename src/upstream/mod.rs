//! Connections to backends, a core's own.

use std::time::Duration;

/// What of the upstream connections can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The greatest number of connections of a core to one backend (`server.maxSockets`). Tunnels do not count.
    pub max_sockets: usize,
    /// The greatest number of requests of a core that wait for a connection to one backend.
    pub max_waiting: usize,
    /// How long a connection may be idle before it is closed.
    pub idle_timeout: Duration,
}
