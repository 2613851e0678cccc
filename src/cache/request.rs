//! A request in the form that the cache reads.

use super::fields::Fields;
use crate::wire::forwarded::CLIENT_SUBJECT;

/// The part of a request that the cache reads.
#[derive(Clone, Copy, Debug)]
pub struct CacheRequest<'a> {
    /// The identity of the frontend. It is part of every key: a frontend never gets objects of another one.
    pub frontend: &'a str,
    /// The application of the frontend: the identifier in its list. A host that moves to another application loses its
    /// objects.
    pub app: &'a str,
    /// The method.
    pub method: &'a [u8],
    /// Whether the client's connection is encrypted.
    pub is_https: bool,
    /// The host name in lower case, without a port.
    pub host: &'a [u8],
    /// The port in `Host`, or the default port of the scheme.
    pub port: u16,
    /// The request target in origin form, as forwarded.
    pub target: &'a [u8],
    /// Whether the request has a body.
    pub has_body: bool,
    /// Whether the peer is a proxy whose forwarded headers are kept.
    pub is_trusted: bool,
    /// The fields of the head.
    pub fields: Fields<'a>,
}

#[cfg(test)]
impl<'a> CacheRequest<'a> {
    /// A plain GET for port 80, of the frontend `f` without an application.
    pub fn get(host: &'a str, target: &'a str, fields: &'a [httparse::Header<'a>]) -> Self {
        Self {
            frontend: "f",
            app: "",
            method: b"GET",
            is_https: false,
            host: host.as_bytes(),
            port: 80,
            target: target.as_bytes(),
            has_body: false,
            is_trusted: false,
            fields: Fields(fields),
        }
    }
}

impl CacheRequest<'_> {
    /// Whether the method is GET or HEAD, which share objects.
    pub fn is_retrieval(&self) -> bool {
        matches!(self.method, b"GET" | b"HEAD")
    }

    /// Whether the method is HEAD.
    pub fn is_head(&self) -> bool {
        self.method == b"HEAD"
    }

    /// Whether the request identifies its client. A certificate does that as `Authorization` does.
    pub fn is_personal(&self) -> bool {
        self.fields.has("authorization") || self.fields.has(CLIENT_SUBJECT)
    }

    /// The scheme.
    pub fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }

    /// Whether `Host` has the form used in the key: the name in lower case, and the port unless it is the scheme's.
    pub(super) fn has_plain_host(&self) -> bool {
        let is_default = self.port == if self.is_https { 443 } else { 80 };
        let is_plain = |stated: &[u8]| match stated.strip_prefix(self.host) {
            Some([]) => is_default,
            Some([b':', port @ ..]) => !is_default && *port == *itoa::Buffer::new().format(self.port).as_bytes(),
            _ => false,
        };
        self.fields.first("host").is_none_or(is_plain)
    }
}
