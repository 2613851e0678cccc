//! `http` and `https`: where the node listens.

use super::raw::{Field, Section};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const DEFAULT_PORT: u16 = 80;

/// The addresses of `http`, the old keys of `server` included.
pub(super) fn read_http(root: &Section<'_>, server: &Section<'_>) -> Vec<SocketAddr> {
    let http = root.field("http").section();
    let port = http.field("port").or_old(server.old_field("port"), "http.port");
    let port = read_port(&port).unwrap_or(DEFAULT_PORT);
    let bind = http.field("bind");
    let old_binds = [server.old_field("address"), server.old_field("address6")];
    for old in &old_binds {
        old.warn_old("http.bind", bind.is_set());
    }
    let items = bind.items().or_else(|| {
        let items: Vec<_> = old_binds.iter().filter_map(Field::items).flatten().collect();
        (!items.is_empty()).then_some(items)
    });
    let Some(items) = items else {
        return vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)];
    };
    if items.is_empty() {
        bind.refuse("at least one address");
    }
    let mut seen = HashSet::new();
    let mut listeners = Vec::new();
    for item in &items {
        let Some((address, section)) = read_bind(item, port) else { continue };
        for key in ["key", "cert", "ca"] {
            if let Some(section) = &section {
                section.field(key).warn_no_effect("connections of http are not encrypted");
            }
        }
        if seen.insert(address) {
            listeners.push(address);
        } else {
            item.refuse_because(&format!("{address} once more"), "every address and port only once");
        }
    }
    listeners
}

/// An address of `https.bind`, and what is particular to it.
pub(super) struct Bind<'a> {
    pub(super) address: SocketAddr,
    pub(super) section: Option<Section<'a>>,
    pub(super) field: Field<'a>,
}

/// The addresses of a section of its own; `None` where there are none, unless there is a `default_port`.
pub(super) fn read_binds<'a>(section: &Section<'a>, common_port: u16, default_port: bool) -> Option<Vec<Bind<'a>>> {
    let port = read_port(&section.field("port")).unwrap_or(common_port);
    let bind = section.field("bind");
    let Some(items) = bind.items() else {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        return default_port.then(|| vec![Bind { address, section: None, field: bind }]);
    };
    let mut seen = HashSet::new();
    let mut binds = Vec::new();
    for item in items {
        let Some((address, section)) = read_bind(&item, port) else { continue };
        if !seen.insert(address) {
            item.refuse_because(&format!("{address} once more"), "every address and port only once");
        }
        binds.push(Bind { address, section, field: item });
    }
    Some(binds).filter(|binds| !binds.is_empty())
}

/// An item of `bind`: an address, or an object of an address and what is particular to it.
fn read_bind<'a>(item: &Field<'a>, common_port: u16) -> Option<(SocketAddr, Option<Section<'a>>)> {
    if !item.value()?.is_object() {
        let address = read_address(item, "an IP address, or an object of address and port")?;
        return Some((SocketAddr::new(address, common_port), None));
    }
    let section = item.clone().section();
    let port = section.field("port");
    let port = if port.is_set() { read_port(&port) } else { Some(common_port) };
    let address = section.field("address");
    if !address.is_set() {
        address.refuse("an IP address");
    }
    Some((SocketAddr::new(read_address(&address, "an IP address")?, port?), Some(section)))
}

fn read_address(field: &Field<'_>, expected: &'static str) -> Option<IpAddr> {
    field.read(expected, |value| value.as_str()?.parse().ok())
}

fn read_port(field: &Field<'_>) -> Option<u16> {
    field.whole(1..=u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
}
