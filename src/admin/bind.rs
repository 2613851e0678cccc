//! The listening address of the service.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The prefix of the path of a UNIX socket.
const UNIX: &str = "unix:";

/// An address, or a UNIX socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// An address with its port.
    Address(SocketAddr),
    /// A socket at this absolute path (`unix:/PATH`): its mode and owner control access.
    Unix(PathBuf),
}

/// The accepted values.
pub const EXPECTED: &str = "an address with a port such as 127.0.0.1:9100, or unix:/PATH";

impl Bind {
    /// The address; `None` for a UNIX socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether it is reachable from this machine only.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Address(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Bind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix(UNIX) {
            let is_path = path.starts_with('/') && !path.ends_with('/');
            return is_path.then(|| Self::Unix(path.into())).ok_or(EXPECTED);
        }
        let address = text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
        address.map(Self::Address).ok_or(EXPECTED)
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_paths_are_read_and_shown_alike() {
        for (text, is_local) in [
            ("127.0.0.1:9100", true),
            ("[::1]:1", true),
            ("10.0.0.1:9100", false),
            ("unix:/run/sluice/admin.sock", true),
        ] {
            let bind: Bind = text.parse().expect(text);
            assert_eq!((bind.to_string().as_str(), bind.is_local()), (text, is_local));
        }
        for text in ["", "127.0.0.1", "127.0.0.1:0", "unix:", "unix:admin.sock", "unix:/run/", "localhost:80"] {
            assert_eq!(text.parse::<Bind>(), Err(EXPECTED), "{text}");
        }
    }
}
