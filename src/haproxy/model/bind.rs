//! The `bind` line.

use super::super::position::Position;
use std::net::IpAddr;

/// A `bind` line: the addresses, and their common parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bind {
    /// Its position.
    pub at: Position,
    /// The addresses.
    pub addresses: Vec<BindAddress>,
    /// `name`.
    pub name: Option<String>,
    /// `ssl`: clients speak TLS.
    pub is_tls: bool,
    /// `crt` words: files or folders, or `@store/alias`.
    pub certificates: Vec<String>,
    /// `crt-list` words: files of certificates with filters.
    pub certificate_lists: Vec<String>,
    /// `strict-sni`: no default certificate.
    pub strict_sni: bool,
    /// `alpn`, in order.
    pub alpn: Vec<String>,
    /// `ciphers` of TLS up to 1.2, in OpenSSL's words.
    pub ciphers: Option<String>,
    /// `ciphersuites` of TLS 1.3.
    pub ciphersuites: Option<String>,
    /// The lowest version of TLS, such as `TLSv1.2`.
    pub tls_min: Option<String>,
    /// The highest version of TLS.
    pub tls_max: Option<String>,
    /// `ca-file`: the authorities of client certificates.
    pub ca_file: Option<String>,
    /// `crl-file`: revoked client certificates.
    pub crl_file: Option<String>,
    /// `verify`.
    pub verify: ClientVerify,
    /// `accept-proxy`: connections begin with a PROXY header.
    pub accept_proxy: bool,
    /// `defer-accept`.
    pub defer_accept: bool,
    /// `maxconn` of this listener.
    pub maxconn: Option<u64>,
    /// `backlog`.
    pub backlog: Option<u64>,
    /// `interface`.
    pub interface: Option<String>,
    /// `mode` of a UNIX socket, octal.
    pub unix_mode: Option<u32>,
    /// `user` or `uid` of a UNIX socket.
    pub unix_user: Option<String>,
    /// `group` or `gid` of a UNIX socket.
    pub unix_group: Option<String>,
}

/// A listening address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindAddress {
    /// An address and a range of ports, both ends included.
    Inet {
        /// The address; `*` is 0.0.0.0.
        ip: IpAddr,
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
        /// Whether an IPv6 wildcard accepts IPv4 too: `v4v6`, `v6only`, or the system's default.
        dual_stack: Option<bool>,
    },
    /// A host name that is resolved at the start, and the ports.
    Name {
        /// The name.
        host: String,
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
    },
    /// The path of a UNIX socket.
    Unix(String),
    /// A name in Linux' abstract namespace.
    Abstract(String),
    /// An inherited descriptor.
    Descriptor(u32),
}

/// Verification of client certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientVerify {
    /// They are not requested.
    #[default]
    None,
    /// They are requested; a certificate that is sent has to be valid.
    Optional,
    /// A valid one is required.
    Required,
}
