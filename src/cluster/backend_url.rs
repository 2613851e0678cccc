//! A list entry: the URL of a backend as written, its endpoint and its attributes.

use super::attributes::{AttributeError, Attributes};
use super::endpoint::Endpoint;
use crate::base::secret::redact_url;
use crate::wire::proxy_protocol;
use std::fmt;
use std::net::Ipv6Addr;

/// An entry of a list of backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendUrl {
    text: Box<str>,
    endpoint: Endpoint,
    attributes: Attributes,
    errors: Box<[AttributeError]>,
}

impl BackendUrl {
    /// Parses `http://host[:port][/…]`, or the same with `https`. A path is allowed and ignored, as in Hipache.
    /// Attributes follow behind `#`, joined by `&`, such as `#capacity=4&role=backup&proxy=v2`; the query is read for
    /// those that x0d's documents put there (`?capacity=4&backup&disable`). Other words are ignored: other readers of
    /// the list may use them. Leading and trailing white space is dropped, since `redis-cli -x` leaves a newline at the
    /// end of an item.
    ///
    /// An invalid attribute is not an error here: see [`BackendUrl::attribute_errors`].
    pub fn parse(text: &str) -> Result<Self, BackendUrlError> {
        let text = text.trim_ascii();
        // The text goes unchanged into responses and logs.
        if text.contains(char::is_control) {
            return Err(BackendUrlError::ControlCharacter);
        }
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
        let is_address = host.parse::<Ipv6Addr>().is_ok();
        if !(is_host_name(host) || is_address) {
            return Err(BackendUrlError::BadHost);
        }
        let mut endpoint = Endpoint::new(host, port, is_secure);
        let (before_fragment, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let query = before_fragment.split_once('?').map_or("", |(_, query)| query);
        read_connection_words(&mut endpoint, fragment)?;
        let (attributes, errors) = Attributes::read(query, fragment);
        Ok(Self { text: text.into(), endpoint, attributes, errors: errors.into() })
    }

    /// The text as written, without leading and trailing white space.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scheme, host and port as they are written, without what follows: the name of a backend in the locks of
    /// hipache-hchecker.
    pub fn without_attributes(&self) -> &str {
        without_attributes(&self.text)
    }

    /// Where the backend is reached.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The attributes; an absent or invalid one has its default.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Attributes with an invalid value. Each of them keeps its earlier value.
    pub fn attribute_errors(&self) -> &[AttributeError] {
        &self.errors
    }

    /// The attributes; an invalid one has its value in `before`.
    pub fn attributes_after(&self, before: Option<&Attributes>) -> Attributes {
        let mut attributes = self.attributes.clone();
        if let Some(before) = before {
            self.errors.iter().for_each(|error| error.keep(&mut attributes, before));
        }
        attributes
    }
}

/// Reads the attributes that make connections differ, and so belong to the endpoint.
fn read_connection_words(endpoint: &mut Endpoint, fragment: &str) -> Result<(), BackendUrlError> {
    for word in fragment.split('&') {
        match word.split_once('=') {
            Some(("proxy", "v1")) => endpoint.set_proxy_header(proxy_protocol::Version::V1),
            Some(("proxy", "v2")) => endpoint.set_proxy_header(proxy_protocol::Version::V2),
            Some(("proxy", _)) => return Err(BackendUrlError::BadProxyVersion),
            Some(("sni", name)) if is_host_name(name) => endpoint.set_server_name(name),
            Some(("sni", _)) => return Err(BackendUrlError::BadServerName),
            Some(("verify", "none") | ("insecure", "true")) => endpoint.set_unverified(),
            Some(("insecure", "false")) => {}
            Some(("verify" | "insecure", _)) => return Err(BackendUrlError::BadVerification),
            Some(("ca", path)) if path.starts_with('/') => endpoint.set_authorities(path),
            Some(("ca", _)) => return Err(BackendUrlError::BadAuthorities),
            None if word == "insecure" => endpoint.set_unverified(),
            _ => {}
        }
    }
    Ok(())
}

fn is_host_name(host: &str) -> bool {
    let is_plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    !host.is_empty() && host.len() <= 253 && is_plain
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

/// The part of a list entry before its path, query and attributes.
pub fn without_attributes(entry: &str) -> &str {
    let start = entry.find("://").map_or(0, |at| at + 3);
    let end = entry.get(start..).and_then(|rest| rest.find(['/', '?', '#'])).map_or(entry.len(), |at| start + at);
    entry.get(..end).unwrap_or(entry)
}

impl fmt::Display for BackendUrl {
    /// Without the query, which may hold a password; for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact_url(&self.text))
    }
}

/// Why an entry cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendUrlError {
    /// No `://`.
    NoScheme,
    /// A control character, such as the end of a line.
    ControlCharacter,
    /// A scheme other than `http` and `https`.
    UnknownScheme,
    /// A user name or password.
    UserInfo,
    /// Neither a name nor an address.
    BadHost,
    /// Not a number from 1 to 65535.
    BadPort,
    /// `#proxy=` with a version other than `v1` and `v2`.
    BadProxyVersion,
    /// `#sni=` without a host name.
    BadServerName,
    /// `#verify=` and not `none`, or `#insecure=` and neither `true` nor `false`.
    BadVerification,
    /// `#ca=` and no absolute path.
    BadAuthorities,
}

impl fmt::Display for BackendUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoScheme => "expected http://host:port or https://host:port",
            Self::ControlCharacter => "it contains a control character, such as a line break",
            Self::UnknownScheme => "expected the scheme http:// or https://",
            Self::UserInfo => "a user name or password is not supported here",
            Self::BadHost => "the host is neither a name nor an address (an IPv6 address stands in brackets)",
            Self::BadPort => "expected a port from 1 to 65535",
            Self::BadProxyVersion => "expected #proxy=v1 or #proxy=v2",
            Self::BadServerName => "expected a host name behind #sni=",
            Self::BadVerification => "expected #verify=none, #insecure, or neither",
            Self::BadAuthorities => "expected the absolute path of a file of certificates behind #ca=",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Role;

    #[test]
    fn urls() {
        type Row = (&'static str, Result<(&'static str, u16), BackendUrlError>);
        let table: &[Row] = &[
            ("http://10.0.0.1:80", Ok(("10.0.0.1", 80))),
            ("http://10.0.0.1", Ok(("10.0.0.1", 80))),
            ("HTTP://App.internal:8080/path?x", Ok(("app.internal", 8080))),
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
            ("http://a\nb", Err(BackendUrlError::ControlCharacter)),
            ("http://a/#x\r\nSet-Cookie: a=b", Err(BackendUrlError::ControlCharacter)),
            ("http://a/\u{0}", Err(BackendUrlError::ControlCharacter)),
            ("http://a/\u{85}", Err(BackendUrlError::ControlCharacter)),
            ("\n", Err(BackendUrlError::NoScheme)),
            ("http://a#proxy=v1", Ok(("a", 80))),
            ("http://a#proxy=v3", Err(BackendUrlError::BadProxyVersion)),
            ("http://a#proxy=", Err(BackendUrlError::BadProxyVersion)),
            ("http://a#weight=2&proxy=x", Err(BackendUrlError::BadProxyVersion)),
            ("https://a#sni=a b", Err(BackendUrlError::BadServerName)),
            ("https://a#insecure", Ok(("a", 443))),
            ("https://a#insecure=1", Err(BackendUrlError::BadVerification)),
            ("https://a#verify=all", Err(BackendUrlError::BadVerification)),
            ("https://a#ca=/etc/ssl/own.pem&weight=2", Ok(("a", 443))),
            ("https://a#ca=own.pem", Err(BackendUrlError::BadAuthorities)),
        ];
        for (text, expected) in table {
            let found = BackendUrl::parse(text);
            let found = found.as_ref().map(|url| (url.endpoint().host(), url.endpoint().port()));
            assert_eq!(found.map_err(|error| *error), *expected, "{text}");
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
            ("https://a:1/x?y#capacity=1&proxy=v2", Some(V2)),
        ];
        for (text, expected) in table {
            let url = BackendUrl::parse(text).expect("a good URL");
            assert_eq!(url.endpoint().proxy_header(), expected, "{text}");
        }
    }

    #[test]
    fn what_differs_in_attributes_alone_is_the_same_endpoint() {
        let endpoint = |text: &str| BackendUrl::parse(text).expect("a good URL").endpoint().clone();
        for same in ["http://A:80/x", "http://a#capacity=4", "http://a?backup#x", "http://a#weight=0"] {
            assert_eq!(endpoint("http://a"), endpoint(same), "{same}");
        }
        for other in ["http://a:81", "https://a:80", "http://b", "http://a#proxy=v1", "http://a#sni=b"] {
            assert_ne!(endpoint("http://a"), endpoint(other), "{other}");
        }
        assert_eq!(endpoint("http://[::1]:81").to_string(), "http://[::1]:81");
        assert_eq!(endpoint("https://a#sni=B.test").server_name(), "b.test");
    }

    #[test]
    fn a_wrong_attribute_keeps_what_held() {
        let before = BackendUrl::parse("http://a#capacity=4&role=standby").expect("a good URL");
        let url = BackendUrl::parse("http://a#capacity=many&weight=3").expect("a good URL");
        let errors: Vec<_> = url.attribute_errors().iter().map(ToString::to_string).collect();
        assert_eq!(errors, ["capacity is \"many\", expected a whole number from 0 (no limit) to 1000000"]);
        let after = url.attributes_after(Some(before.attributes()));
        assert_eq!((after.capacity, after.weight, after.role), (before.attributes().capacity, 3, Role::Active));
        assert_eq!(url.attributes_after(None).capacity, None);
    }
}
