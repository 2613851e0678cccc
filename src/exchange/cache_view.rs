//! A request in the form that the object cache reads.

use super::request::Request;
use crate::cache::fields::Fields;
use crate::cache::request::CacheRequest;
use crate::cluster::Route;
use crate::wire::MAX_FIELDS;
use crate::wire::body::BodyLength;
use crate::wire::host::split_port;
use std::mem::MaybeUninit;

/// Parses the head of a request for the cache. `None` if it has more lines than nearly all heads have.
pub(super) fn with_view<T>(request: &Request, route: &Route, read: impl FnOnce(&CacheRequest<'_>) -> T) -> Option<T> {
    let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(request.head(), &mut room) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return None,
    }
    let fields = Fields(parsed.headers);
    let port = port(fields, request.is_secure());
    Some(read(&CacheRequest { port, fields, ..view_without_fields(request, route) }))
}

/// The same without fields, and with the port of the scheme: for where neither matters.
pub(super) fn view_without_fields<'a>(request: &'a Request, route: &'a Route) -> CacheRequest<'a> {
    let is_https = request.is_secure();
    CacheRequest {
        frontend: &route.cluster.key,
        app: route.cluster.app(),
        method: request.method(),
        is_https,
        host: request.host().as_bytes(),
        port: port(Fields::default(), is_https),
        target: request.target(),
        has_body: request.body() != BodyLength::None,
        is_trusted: request.is_trusted(),
        fields: Fields::default(),
    }
}

/// The port in `Host`, or the default port of the scheme.
fn port(fields: Fields<'_>, is_https: bool) -> u16 {
    let stated = fields.first("host").and_then(|host| std::str::from_utf8(split_port(host).1?).ok()?.parse().ok());
    stated.unwrap_or(if is_https { 443 } else { 80 })
}
