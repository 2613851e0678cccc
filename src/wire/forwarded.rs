//! The headers that tell a backend about its client (`X-Forwarded-For` and its kin).

use ipnet::IpNet;
use std::net::IpAddr;

/// Whom to believe, and what becomes of the values that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The networks of proxies in front of this one. What comes from elsewhere is always replaced.
    pub trusted: Vec<IpNet>,
    /// What becomes of values from a trusted network.
    pub mode: Mode,
}

/// What becomes of forwarded headers from a trusted network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `X-Forwarded-For` gets the peer's address at its end; the others are kept where they are present.
    Append,
    /// All are replaced by what this node sees itself.
    Replace,
}

impl Policy {
    /// Whether values from this peer are believed.
    pub fn believes(&self, peer: IpAddr) -> bool {
        self.mode == Mode::Append && self.trusted.iter().any(|network| network.contains(&peer))
    }
}
