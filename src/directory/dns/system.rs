//! What the system says of names: `/etc/resolv.conf` and `/etc/hosts`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const DNS_PORT: u16 = 53;

/// Servers and search domains beyond these are not used. Source: resolv.conf(5).
const MAX_SERVERS: usize = 3;
const MAX_SEARCH: usize = 32;

/// The system's settings of names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct System {
    pub(super) servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name of so many dots is tried as it is before the search domains.
    ndots: usize,
    /// The names of `/etc/hosts`.
    hosts: Vec<String>,
}

impl System {
    /// Reads the files anew: they are short, and may have changed. One that cannot be read is empty.
    pub(super) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&text("/etc/resolv.conf"), &text("/etc/hosts"))
    }

    fn parse(resolv_conf: &str, hosts: &str) -> Self {
        let mut system = Self { servers: Vec::new(), search: Vec::new(), ndots: 1, hosts: Vec::new() };
        for line in resolv_conf.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    system.servers.extend(address.map(|address| SocketAddr::new(address, DNS_PORT)));
                }
                // The last of them counts.
                Some("search" | "domain") => system.search = words.take(MAX_SEARCH).map(str::to_owned).collect(),
                Some("options") => {
                    let ndots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok()).next_back();
                    system.ndots = ndots.unwrap_or(system.ndots).min(15);
                }
                _ => {}
            }
        }
        system.servers.truncate(MAX_SERVERS);
        if system.servers.is_empty() {
            system.servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
        }
        let names = hosts.lines().flat_map(|line| {
            let line = line.split('#').next().unwrap_or_default();
            line.split_whitespace().skip(1)
        });
        system.hosts = names.map(str::to_ascii_lowercase).collect();
        system
    }

    /// Whether the system itself knows this host, in lower case.
    pub(super) fn has_host(&self, host: &str) -> bool {
        host == "localhost" || self.hosts.iter().any(|known| known == host)
    }

    /// The full names that a name may stand for, in the order of trying.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let mut names: Vec<_> =
            self.search.iter().map(|domain| format!("{name}.{}", domain.trim_end_matches('.'))).collect();
        let has_dots = name.matches('.').count() >= self.ndots;
        names.insert(if has_dots { 0 } else { names.len() }, name.to_owned());
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_system_are_read() {
        let text = "# made by hand\nnameserver 192.0.2.1\nnameserver 2001:db8::1 ; second\nnameserver nonsense\n\
            domain old.test\nsearch a.test b.test.\noptions rotate ndots:2 timeout:1\n";
        let system =
            System::parse(text, "127.0.0.1 localhost\n10.0.0.1 App.internal app # an alias\n\n#10.0.0.2 gone\n");
        let servers: Vec<_> = system.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53"]);
        assert_eq!(system.candidates("app"), ["app.a.test", "app.b.test", "app"]);
        assert_eq!(system.candidates("app.x"), ["app.x.a.test", "app.x.b.test", "app.x"]);
        assert_eq!(system.candidates("app.x.y"), ["app.x.y", "app.x.y.a.test", "app.x.y.b.test"]);
        assert_eq!(system.candidates("app."), ["app."]);
        for (host, is_known) in [("app.internal", true), ("app", true), ("gone", false), ("localhost", true)] {
            assert_eq!(system.has_host(host), is_known, "{host}");
        }
        let nothing = System::parse("", "");
        assert_eq!((nothing.servers.len(), nothing.candidates("a.b")), (1, vec!["a.b".to_owned()]));
        assert_eq!(nothing.candidates("a"), ["a"]);
    }
}
