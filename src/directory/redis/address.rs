//! The address of a server of a cluster.

use std::fmt;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) host: Box<str>,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

impl Address {
    /// Parses `host:port`, as in redirections; an empty host is that of `asked`.
    pub(super) fn parse(text: &str, asked: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() { &*asked.host } else { host.trim_matches(['[', ']']) };
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some(Self { host: host.into(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_redirections() {
        let asked = Address { host: "10.0.0.1".into(), port: 7000 };
        for (text, expected) in [
            ("10.0.0.2:7001", Some("10.0.0.2:7001")),
            (":7001", Some("10.0.0.1:7001")),
            ("::1:7001", Some("[::1]:7001")),
            ("host:0", None),
            ("host", None),
        ] {
            let found = Address::parse(text, &asked).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
