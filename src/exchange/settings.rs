//! Settings of exchanges.

pub use crate::cluster::OnClientAbort;
use crate::health;
use crate::wire::forwarded::{self, Peer};
use crate::wire::limits::Limits;
use ipnet::IpNet;
use std::time::Duration;

/// Limits, timeouts and modes of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Limit of a head, from its first byte.
    pub head_timeout: Duration,
    /// Limit of opening a connection, or of the wait for one.
    pub connect_timeout: Duration,
    /// Limit until a backend begins its response, once it has the whole request.
    pub response_timeout: Duration,
    /// Limit of a pause of either side in the middle of a body.
    pub body_timeout: Duration,
    /// Limit of the silence of a response without a length, once it has begun; `None` for no limit. Other responses
    /// have [`Settings::body_timeout`].
    pub stream_timeout: Option<Duration>,
    /// Idle limit of a tunnel; `None` for no limit.
    pub tunnel_timeout: Option<Duration>,
    /// The greatest size of a head of a request or a response, in bytes.
    pub max_head_bytes: usize,
    /// The greatest size of a request's body in bytes; `None` for any.
    pub max_body_bytes: Option<u64>,
    /// Further limits of one message.
    pub limits: Limits,
    /// Bytes a second that a side has to send of a body, or read of a response, while it is waited for; 0 for none. It
    /// is measured over windows of [`Settings::body_timeout`] of waiting.
    pub min_body_rate: u64,
    /// Which clients may keep their connections.
    pub keep_alive: KeepAlive,
    /// The greatest number of retries of a request on other backends.
    pub retry_limit: u32,
    /// What happens to a request whose client leaves before its response has begun (`server.onClientAbort`).
    pub on_client_abort: OnClientAbort,
    /// The pseudonym in `Via` of responses; `None` adds none.
    pub via: Option<Box<str>>,
    /// The pseudonym in `Via` of requests, unique to this node: a request that already has it is refused. `None` adds
    /// none.
    pub node_via: Option<Box<str>>,
    /// Whether each request gets an `X-Request-Id`: the one set by a trusted proxy, or a new one.
    pub request_id: bool,
    /// Whether each request gets an `X-Request-Start`: the one set by a trusted proxy, or a new one.
    pub request_start: bool,
    /// Forwarded headers and trusted networks.
    pub forwarded: forwarded::Policy,
    /// Networks whose clients may request `X-Debug` headers.
    pub debug_networks: Vec<IpNet>,
    /// Redirection of plaintext clients to TLS.
    pub redirect: Redirect,
    /// Rules of dead marks.
    pub health: health::Settings,
}

impl Settings {
    /// Whether this client may request `X-Debug` headers.
    pub(super) fn may_debug(&self, peer: &Peer) -> bool {
        self.debug_networks.iter().any(|network| network.contains(&peer.address))
    }
}

/// Which clients may keep their connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// All.
    Always,
    /// Plaintext ones: they can move to another process when idle.
    Plain,
    /// None.
    Never,
}

/// Redirection of plaintext clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Whether it is on, unless a frontend has its own setting.
    pub for_all: bool,
    /// The TLS port, as clients see it.
    pub port: u16,
}
