//! A backend: the server behind one URL, shared by all frontends that name it and by all cores.

use crate::base::clock::Moment;
use crate::base::secret::redact_url;
use crate::wire::proxy_protocol;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The identity of a [`Backend`] within the process. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u64);

/// A server that requests are forwarded to.
#[derive(Debug)]
pub struct Backend {
    id: BackendId,
    url: BackendUrl,
    /// Read when a connection is opened only: there the request waits anyhow, so a lock does no harm.
    addresses: Mutex<Addresses>,
    /// The addresses that took no notice of a connection, and until when each comes last.
    silent: Mutex<Vec<(SocketAddr, Moment)>>,
    /// How many connections were opened, here and there: the next one begins with the next address.
    turn: AtomicUsize,
    /// The lists it stands in.
    memberships: AtomicUsize,
}

/// Where a backend can be reached, as far as known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// The name is being looked up for the first time.
    Pending,
    /// The addresses in the order of preference; never empty.
    Known(Arc<[SocketAddr]>),
    /// The name was never found.
    NotFound,
}

impl Backend {
    /// A backend of this URL. An address is known at once, a name is [`Addresses::Pending`].
    pub fn new(id: BackendId, url: BackendUrl) -> Self {
        let addresses = match url.address() {
            Some(address) => Addresses::Known(Arc::new([address])),
            None => Addresses::Pending,
        };
        Self {
            id,
            url,
            addresses: Mutex::new(addresses),
            silent: Mutex::default(),
            turn: AtomicUsize::new(0),
            memberships: AtomicUsize::new(0),
        }
    }

    /// Whether no list names this backend any more: then its connections are of no further use.
    pub fn is_unreferenced(&self) -> bool {
        self.memberships.load(Ordering::Acquire) == 0
    }

    pub(super) fn join(&self) {
        self.memberships.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn leave(&self) {
        let before = self.memberships.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "{} left more lists than it had joined", self.url);
    }

    /// The identity within this process.
    pub fn id(&self) -> BackendId {
        self.id
    }

    /// The URL.
    pub fn url(&self) -> &BackendUrl {
        &self.url
    }

    /// Where to connect to.
    pub fn addresses(&self) -> Addresses {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where to connect to now, in the order of trying: of several addresses each has its turn to be the first, and those
    /// that took no notice lately come last.
    pub fn next_addresses(&self, now: Moment) -> Addresses {
        let addresses = self.addresses();
        let Addresses::Known(known) = &addresses else { return addresses };
        if known.len() < 2 {
            return addresses;
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % known.len();
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|(_, until)| *until > now);
        let is_silent = |address: &SocketAddr| silent.iter().any(|(silent, _)| silent == address);
        let (before, from) = known.split_at(first);
        let in_turn = || from.iter().chain(before).copied();
        let well = in_turn().filter(|address| !is_silent(address));
        Addresses::Known(well.chain(in_turn().filter(is_silent)).collect())
    }

    /// Notes that an address took no notice of a connection: until then it comes last. Whether that is news.
    pub fn note_silent(&self, address: SocketAddr, until: Moment) -> bool {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        match silent.iter_mut().find(|(known, _)| *known == address) {
            Some((_, known)) => {
                *known = until;
                false
            }
            None => {
                silent.push((address, until));
                true
            }
        }
    }

    /// Says what the resolver found. A failure never overwrites addresses that are known (fail static).
    /// Returns whether anything changed.
    pub fn set_addresses(&self, found: Addresses) -> bool {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = matches!((&*addresses, &found), (Addresses::Known(_), Addresses::NotFound | Addresses::Pending));
        let changed = !keep && *addresses != found;
        if changed {
            *addresses = found;
        }
        changed
    }
}

/// The URL of a backend, as it stands in a list, and what was read from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendUrl {
    text: Box<str>,
    host: Box<str>,
    port: u16,
    is_secure: bool,
    proxy_header: Option<proxy_protocol::Version>,
}

impl BackendUrl {
    /// Reads `http://host[:port][/…]`, or the same with `https`. A path is allowed and means nothing, as in Hipache. A
    /// fragment `#proxy=v1` or `#proxy=v2` says how the backend is told of its clients; any other means nothing: so it
    /// does to those who read the list for purposes of their own. White space around it is not part of it: `redis-cli -x`
    /// leaves a newline at the end of an item.
    pub fn parse(text: &str) -> Result<Self, BackendUrlError> {
        let text = text.trim_ascii();
        let scheme_end = text.find("://").ok_or(BackendUrlError::NoScheme)?;
        let (scheme, rest) = (&text[..scheme_end], &text[scheme_end + 3..]);
        let is_secure = scheme.eq_ignore_ascii_case("https");
        if !is_secure && !scheme.eq_ignore_ascii_case("http") {
            return Err(BackendUrlError::UnknownScheme);
        }
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        if authority.contains('@') {
            return Err(BackendUrlError::UserInfo);
        }
        let (host, port) = split_port(authority, if is_secure { 443 } else { 80 })?;
        let name_is_plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let is_address = host.parse::<Ipv6Addr>().is_ok();
        if host.is_empty() || host.len() > 253 || !(name_is_plain || is_address) {
            return Err(BackendUrlError::BadHost);
        }
        let fragment = rest.split_once('#').map_or("", |(_, fragment)| fragment);
        let proxy_header = match fragment.strip_prefix("proxy=") {
            None => None,
            Some("v1") => Some(proxy_protocol::Version::V1),
            Some("v2") => Some(proxy_protocol::Version::V2),
            Some(_) => return Err(BackendUrlError::BadProxyVersion),
        };
        Ok(Self { text: text.into(), host: host.into(), port, is_secure, proxy_header })
    }

    /// The URL exactly as it was written, without white space around it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; where none is written, that of the scheme.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the connections are encrypted.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// The version of the PROXY protocol in which the backend is told of each client. Such a connection is the client's,
    /// and no other's.
    pub fn proxy_header(&self) -> Option<proxy_protocol::Version> {
        self.proxy_header
    }

    /// The socket address, where the host is an address.
    fn address(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

fn split_port(authority: &str, default: u16) -> Result<(&str, u16), BackendUrlError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(BackendUrlError::BadHost)?;
            match after.strip_prefix(':') {
                None if after.is_empty() => (host, None),
                None => return Err(BackendUrlError::BadHost),
                port => (host, port),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        None => default,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse() {
            Ok(0) | Err(_) => return Err(BackendUrlError::BadPort),
            Ok(port) => port,
        },
        Some(_) => return Err(BackendUrlError::BadPort),
    };
    Ok((host, port))
}

impl fmt::Display for BackendUrl {
    /// For logs: without its query, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact_url(&self.text))
    }
}

/// What is wrong with the URL of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendUrlError {
    /// No `://`.
    NoScheme,
    /// Another scheme than `http` and `https`.
    UnknownScheme,
    /// A user name or password.
    UserInfo,
    /// Neither a name nor an address.
    BadHost,
    /// Not a number from 1 to 65535.
    BadPort,
    /// `#proxy=` and another version than `v1` and `v2`.
    BadProxyVersion,
}

impl fmt::Display for BackendUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoScheme => "expected http://host:port or https://host:port",
            Self::UnknownScheme => "expected the scheme http:// or https://",
            Self::UserInfo => "a user name or password is not supported here",
            Self::BadHost => "the host is neither a name nor an address (an IPv6 address stands in brackets)",
            Self::BadPort => "expected a port from 1 to 65535",
            Self::BadProxyVersion => "expected #proxy=v1 or #proxy=v2",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        type Row = (&'static str, Result<(&'static str, u16), BackendUrlError>);
        let table: &[Row] = &[
            ("http://10.0.0.1:80", Ok(("10.0.0.1", 80))),
            ("http://10.0.0.1", Ok(("10.0.0.1", 80))),
            ("HTTP://app.internal:8080/path?x", Ok(("app.internal", 8080))),
            ("http://[::1]:81/", Ok(("::1", 81))),
            ("http://[::1]", Ok(("::1", 80))),
            ("10.0.0.1:80", Err(BackendUrlError::NoScheme)),
            ("https://a", Ok(("a", 443))),
            ("HTTPS://[::1]:8443", Ok(("::1", 8443))),
            ("ftp://a", Err(BackendUrlError::UnknownScheme)),
            ("http://u:p@a", Err(BackendUrlError::UserInfo)),
            ("http://", Err(BackendUrlError::BadHost)),
            ("http://a b", Err(BackendUrlError::BadHost)),
            ("http://[::1", Err(BackendUrlError::BadHost)),
            ("http://[::1]x", Err(BackendUrlError::BadHost)),
            ("http://::1", Err(BackendUrlError::BadPort)),
            ("http://a:0", Err(BackendUrlError::BadPort)),
            ("http://a:65536", Err(BackendUrlError::BadPort)),
            ("http://a:+1", Err(BackendUrlError::BadPort)),
            ("http://a:", Err(BackendUrlError::BadPort)),
            ("http://a/#x", Ok(("a", 80))),
            ("http://a:81\n", Ok(("a", 81))),
            (" http://a\r\n", Ok(("a", 80))),
            ("http://a\nb", Err(BackendUrlError::BadHost)),
            ("\n", Err(BackendUrlError::NoScheme)),
            ("http://a#proxy=v1", Ok(("a", 80))),
            ("http://a#proxy=v3", Err(BackendUrlError::BadProxyVersion)),
            ("http://a#proxy=", Err(BackendUrlError::BadProxyVersion)),
        ];
        for (text, expected) in table {
            let found = BackendUrl::parse(text);
            let found = found.as_ref().map(|url| (url.host(), url.port())).map_err(|fault| *fault);
            assert_eq!(found, *expected, "{text}");
        }
    }

    #[test]
    fn the_version_of_a_header_stands_in_the_fragment() {
        use proxy_protocol::Version::{V1, V2};
        let table = [
            ("http://a", None),
            ("http://a/?proxy=v1", None),
            ("http://a#proxy", None),
            ("http://a#proxy=v1", Some(V1)),
            ("https://a:1/x?y#proxy=v2", Some(V2)),
        ];
        for (text, expected) in table {
            assert_eq!(BackendUrl::parse(text).expect("a good URL").proxy_header(), expected, "{text}");
        }
    }

    #[test]
    fn each_address_has_its_turn_and_a_silent_one_comes_last() {
        let backend = Backend::new(BackendId(1), BackendUrl::parse("http://app.internal").expect("a good URL"));
        let all: Vec<SocketAddr> = (1..=3).map(|n| SocketAddr::from(([127, 0, 0, n], 80))).collect();
        backend.set_addresses(Addresses::Known(all.clone().into()));
        let now = Moment::ZERO + std::time::Duration::from_secs(1);
        let order = |now| match backend.next_addresses(now) {
            Addresses::Known(addresses) => {
                addresses.iter().map(|a| all.iter().position(|b| a == b).expect("known")).collect()
            }
            _ => Vec::new(),
        };
        let turns: Vec<Vec<usize>> = (0..4).map(|_| order(now)).collect();
        assert_eq!(turns, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
        let later = now + std::time::Duration::from_secs(60);
        assert!(backend.note_silent(all[1], later) && !backend.note_silent(all[1], later));
        assert_eq!((order(now), order(now), order(now)), (vec![2, 0, 1], vec![2, 0, 1], vec![0, 2, 1]));
        assert_eq!(order(later), [1, 2, 0]);
    }

    #[test]
    fn a_failed_lookup_keeps_what_is_known() {
        let url = BackendUrl::parse("http://app.internal").expect("a good URL");
        let backend = Backend::new(BackendId(1), url);
        assert_eq!(backend.addresses(), Addresses::Pending);
        let known = Addresses::Known(Arc::new([SocketAddr::from(([127, 0, 0, 1], 80))]));
        assert!(backend.set_addresses(known.clone()));
        assert!(!backend.set_addresses(Addresses::NotFound));
        assert_eq!(backend.addresses(), known);
    }
}
