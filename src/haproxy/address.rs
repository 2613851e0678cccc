//! Addresses of `bind` and `server` (configuration.txt section 2.9).

use super::environment::Environment;
use super::model::{BindAddress, HostPort};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The greatest number of ports in one range.
const MAX_RANGE: u16 = 1000;

/// Why an address is not usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AddressProblem {
    /// It is malformed.
    Wrong(String),
    /// sluice does not support addresses of this kind.
    Unsupported(String),
}

use AddressProblem::{Unsupported, Wrong};

/// Replaces `$NAME` and `${NAME}`, which addresses may contain outside of quotes too.
pub(super) fn expand(text: &str, environment: &Environment<'_>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, after) = match after.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            Some((name, after)) => (name, after),
            None => {
                let len = after.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap_or(after.len());
                after.split_at(len)
            }
        };
        expanded.push_str(environment.variable(name).unwrap_or_default());
        rest = after;
    }
    expanded + rest
}

/// Parses one expanded address of `bind`.
pub(super) fn bind(text: &str) -> Result<BindAddress, AddressProblem> {
    let (family, rest) = match text.split_once('@') {
        Some((family, rest)) => (family, rest),
        None if text.starts_with('/') => ("unix", text),
        None => ("", text),
    };
    let family = family.strip_prefix("stream+").unwrap_or(family);
    match family {
        "unix" | "uxst" => return Ok(BindAddress::Unix(rest.to_owned())),
        "abns" | "abnsz" => return Ok(BindAddress::Abstract(rest.to_owned())),
        "fd" => {
            let number = rest.parse().map_err(|_| Wrong(format!("{rest:?} is no number of a descriptor")))?;
            return Ok(BindAddress::Descriptor(number));
        }
        "" | "ip" | "ipv4" | "ipv6" | "tcp" | "tcp4" | "tcp6" => {}
        _ if family.starts_with("quic") => return Err(Unsupported(format!("{text}: sluice does not listen for QUIC"))),
        "sockpair" | "udp" | "udp4" | "udp6" | "mptcp" | "mptcp4" | "mptcp6" | "rhttp" => {
            return Err(Unsupported(format!("{text}: sluice does not listen on addresses of this kind")));
        }
        other => return Err(Wrong(format!("{other}@ is no kind of address"))),
    }
    let (host, ports) = rest
        .rsplit_once(':')
        .ok_or_else(|| Wrong(format!("{text:?} has no port; write it after a colon, such as *:80")))?;
    let (first, last) = match ports.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(ports)?, port(ports)?),
    };
    if last < first || last - first >= MAX_RANGE {
        return Err(Wrong(format!("{ports} is no range of up to {MAX_RANGE} ports")));
    }
    let dual_stack = None;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let ip = match host {
        "" | "*" if family.ends_with('6') => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        "" | "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        host => match host.parse() {
            Ok(ip) => ip,
            Err(_) if is_host(host) => return Ok(BindAddress::Name { host: host.to_owned(), first, last }),
            Err(_) => return Err(Wrong(format!("{host:?} is neither an address nor a host name"))),
        },
    };
    Ok(BindAddress::Inet { ip, first, last, dual_stack })
}

fn port(text: &str) -> Result<u16, AddressProblem> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| Wrong(format!("{text:?} is no port; expected 1 to 65535")))
}

fn is_host(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(is_good)
}

/// Parses the expanded address of a server.
pub(super) fn server(text: &str) -> Result<HostPort, AddressProblem> {
    let (family, rest) = match text.split_once('@') {
        Some((family, rest)) => (family, rest),
        None if text.starts_with('/') => ("unix", text),
        None => ("", text),
    };
    match family {
        "unix" | "uxst" => return Ok(HostPort { host: rest.to_owned(), is_unix: true, ..HostPort::default() }),
        "" | "ip" | "ipv4" | "ipv6" | "tcp" | "tcp4" | "tcp6" | "stream+ip" | "stream+ipv4" | "stream+ipv6" => {}
        other => return Err(Unsupported(format!("{other}@: sluice connects over TCP only"))),
    }
    let (host, ports) = match rest.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        Some((host, ports)) => (host, ports.strip_prefix(':')),
        None => match rest.rsplit_once(':') {
            Some((host, ports)) => (host, Some(ports)),
            None => (rest, None),
        },
    };
    let host = match host {
        "" | "*" | "0.0.0.0" | "::" => "",
        host if host.parse::<IpAddr>().is_ok() || is_host(host) => host,
        host => return Err(Wrong(format!("{host:?} is neither an address nor a host name"))),
    };
    let mut address = HostPort { host: host.to_owned(), ..HostPort::default() };
    match ports.filter(|ports| !ports.is_empty()) {
        None => {}
        Some(ports) if ports.starts_with(['+', '-']) => {
            let offset = ports.parse::<i32>().ok().filter(|offset| offset.abs() < 65536);
            address.port_offset = Some(offset.ok_or_else(|| Wrong(format!("{ports:?} is no offset of a port")))?);
        }
        // 0 is equivalent to no port.
        Some("0") => {}
        Some(ports) => address.port = Some(port(ports)?),
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inet(ip: &str, first: u16, last: u16) -> Result<BindAddress, &'static str> {
        Ok(BindAddress::Inet { ip: ip.parse().expect("an address"), first, last, dual_stack: None })
    }

    #[test]
    fn addresses_of_listeners() {
        let table = [
            ("*:80", inet("0.0.0.0", 80, 80)),
            (":80", inet("0.0.0.0", 80, 80)),
            (":::80", inet("::", 80, 80)),
            ("[::1]:80", inet("::1", 80, 80)),
            ("::1:80", inet("::1", 80, 80)),
            ("ipv6@:443", inet("::", 443, 443)),
            ("ipv4@10.0.0.1:8000-8010", inet("10.0.0.1", 8000, 8010)),
            ("web:80", Ok(BindAddress::Name { host: "web".into(), first: 80, last: 80 })),
            ("/run/x.sock", Ok(BindAddress::Unix("/run/x.sock".into()))),
            ("unix@x.sock", Ok(BindAddress::Unix("x.sock".into()))),
            ("abns@x", Ok(BindAddress::Abstract("x".into()))),
            ("fd@3", Ok(BindAddress::Descriptor(3))),
            ("80", Err("no port")),
            ("*", Err("no port")),
            ("*:0", Err("no port; expected")),
            ("*:90-80", Err("range")),
            ("*:1-65535", Err("range")),
            ("a b:80", Err("neither")),
            ("quic4@:443", Err("QUIC")),
            ("what@:80", Err("no kind")),
        ];
        for (text, expected) in table {
            match (bind(text), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(Wrong(found) | Unsupported(found)), Err(expected)) => {
                    assert!(found.contains(expected), "{text}: {found}");
                }
                (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn addresses_of_servers() {
        let table = [
            ("10.0.0.1:80", Some(("10.0.0.1", Some(80), None))),
            ("web", Some(("web", None, None))),
            ("[::1]:80", Some(("::1", Some(80), None))),
            ("::1:80", Some(("::1", Some(80), None))),
            ("[::1]", Some(("::1", None, None))),
            ("web:+10", Some(("web", None, Some(10)))),
            ("web:-10", Some(("web", None, Some(-10)))),
            ("0.0.0.0:80", Some(("", Some(80), None))),
            ("ipv4@web:80", Some(("web", Some(80), None))),
            ("web:x", None),
            ("a b:80", None),
            ("quic4@web:443", None),
        ];
        for (text, expected) in table {
            let expected = expected.map(|(host, port, port_offset)| HostPort {
                host: host.into(),
                is_unix: false,
                port,
                port_offset,
            });
            assert_eq!(server(text).ok(), expected, "{text}");
        }
        for (text, path) in [("unix@/run/x", "/run/x"), ("/run/x", "/run/x"), ("unix@x", "x")] {
            let expected = HostPort { host: path.into(), is_unix: true, ..HostPort::default() };
            assert_eq!(server(text), Ok(expected), "{text}");
        }
        let environment = Environment::new([("PORT".into(), "81".into())], &|_| Err("none".into()));
        for (text, expected) in [("a:$PORT", "a:81"), ("${PORT}:80", "81:80"), ("$X:$", ":"), ("a", "a")] {
            assert_eq!(expand(text, &environment), expected);
        }
    }
}
