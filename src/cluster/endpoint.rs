//! The endpoint of a backend: its identity for pools, name resolution and health.

use crate::wire::proxy_protocol;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An address that requests are sent to, and the start of its connections. Two list entries with the same endpoint
/// share connections, whatever their other parts are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: Box<str>,
    port: u16,
    is_secure: bool,
    proxy_header: Option<proxy_protocol::Version>,
    server_name: Option<Box<str>>,
    is_unverified: bool,
    authorities: Option<Box<str>>,
}

impl Endpoint {
    pub(super) fn new(host: &str, port: u16, is_secure: bool) -> Self {
        Self {
            host: host.to_ascii_lowercase().into(),
            port,
            is_secure,
            proxy_header: None,
            server_name: None,
            is_unverified: false,
            authorities: None,
        }
    }

    pub(super) fn set_proxy_header(&mut self, version: proxy_protocol::Version) {
        self.proxy_header = Some(version);
    }

    pub(super) fn set_server_name(&mut self, name: &str) {
        self.server_name = Some(name.to_ascii_lowercase().into());
    }

    pub(super) fn set_unverified(&mut self) {
        self.is_unverified = true;
    }

    pub(super) fn set_authorities(&mut self, path: &str) {
        self.authorities = Some(path.into());
    }

    /// The file of the authorities, one of which has to vouch for the backend's certificate; `None` for those of the node.
    pub fn authorities(&self) -> Option<&str> {
        self.authorities.as_deref()
    }

    /// Whether any certificate is accepted (`verify=none`).
    pub fn is_unverified(&self) -> bool {
        self.is_unverified
    }

    /// The name or address in lower case, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; the scheme's default if the entry has none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether connections use TLS (`https://`).
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// The version of the PROXY header at the start of each connection. Such a connection belongs to one client.
    pub fn proxy_header(&self) -> Option<proxy_protocol::Version> {
        self.proxy_header
    }

    /// The name in the TLS handshake (SNI), which the certificate has to cover: the attribute `sni`, otherwise the
    /// host.
    pub fn server_name(&self) -> &str {
        self.server_name.as_deref().unwrap_or(&self.host)
    }

    /// The socket address, if the host is an address.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl fmt::Display for Endpoint {
    /// A URL such as `http://10.0.0.1:80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        match self.host.parse::<Ipv6Addr>() {
            Ok(address) => write!(f, "{scheme}://[{address}]:{}", self.port),
            Err(_) => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}
