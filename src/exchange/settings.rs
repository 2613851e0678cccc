//! What of an exchange can be set.

use crate::health;
use crate::wire::forwarded::{self, Peer};
use crate::wire::limits::Limits;
use ipnet::IpNet;
use std::time::Duration;

/// Limits, times and habits of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a head may take from its first byte.
    pub head_timeout: Duration,
    /// How long opening a connection, or waiting for one, may take.
    pub connect_timeout: Duration,
    /// How long a backend may take to begin its answer once it has the whole request.
    pub response_timeout: Duration,
    /// How long either side may stop in the middle of a body.
    pub body_timeout: Duration,
    /// How long a response without a length may be silent once it has begun; `None` for ever. Elsewhere
    /// [`Settings::body_timeout`] holds.
    pub stream_timeout: Option<Duration>,
    /// How long a tunnel may be idle; `None` for ever.
    pub tunnel_timeout: Option<Duration>,
    /// The greatest size of a head, of a request or an answer.
    pub max_head_bytes: usize,
    /// The greatest size of a request's body; `None` for any.
    pub max_body_bytes: Option<u64>,
    /// How much else one message may bring.
    pub limits: Limits,
    /// How many bytes a second a side has to send of a body, or take of an answer, that is waited for; 0 for none. It is
    /// measured over [`Settings::body_timeout`] of waiting at a time.
    pub min_body_rate: u64,
    /// Whether clients may keep their connections.
    pub keep_alive: KeepAlive,
    /// How often a request may be tried again on another backend.
    pub retry_limit: u32,
    /// The fate of a request whose client leaves before its response has begun (`server.onClientAbort`).
    pub on_client_abort: OnClientAbort,
    /// The pseudonym in `Via` of responses; `None` to add none.
    pub via: Option<Box<str>>,
    /// The pseudonym in `Via` of requests, which no other node has: a request that has it already is refused. `None` to
    /// add none.
    pub node_via: Option<Box<str>>,
    /// Whether each request has an `X-Request-Id`: the one that a trusted proxy has set, or one that is made here.
    pub request_id: bool,
    /// Whether each request has an `X-Request-Start`: the one that a trusted proxy has set, or one that is made here.
    pub request_start: bool,
    /// How forwarded headers are made, and who is believed.
    pub forwarded: forwarded::Policy,
    /// The networks whose clients may ask for `X-Debug` headers.
    pub debug_networks: Vec<IpNet>,
    /// Whether, and how, clients that come without encryption are sent to where there is some.
    pub redirect: Redirect,
    /// When a backend is marked dead.
    pub health: health::Settings,
}

impl Settings {
    /// Whether this client may ask for `X-Debug` headers.
    pub(super) fn may_debug(&self, peer: &Peer) -> bool {
        self.debug_networks.iter().any(|network| network.contains(&peer.address))
    }
}

/// The fate of a request whose client ends its side, or the connection, while its backend is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnClientAbort {
    /// The request ends, and its connection to the backend is closed (nginx: `proxy_ignore_client_abort off`).
    Close,
    /// The backend finishes, and a client that has only ended its side gets the response. The request is neither tried again
    /// nor started from the queue.
    Ignore,
}

/// Which clients may keep their connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// All.
    Always,
    /// Those without encryption: when idle, they can go to another process.
    Plain,
    /// None.
    Never,
}

/// Where clients that come without encryption are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Whether they are, at frontends that say nothing else.
    pub for_all: bool,
    /// The port at which encrypted connections are accepted, as clients see it.
    pub port: u16,
}
