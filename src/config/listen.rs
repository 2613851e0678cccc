//! `http` and `https`: listening addresses.

use super::raw::{Field, Section};
use super::server::read_networks;
use crate::worker::{HeaderUse, ProxyNetworks};
use ipnet::IpNet;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const DEFAULT_PORT: u16 = 80;

/// The addresses whose connections begin with a PROXY header, and the networks that may send one.
#[derive(Debug)]
pub(super) struct Proxies<'t> {
    /// `server.trustedNetworks`.
    trusted: &'t [IpNet],
    by_address: BTreeMap<SocketAddr, ProxyNetworks>,
}

impl<'t> Proxies<'t> {
    pub(super) fn new(trusted: &'t [IpNet]) -> Self {
        Self { trusted, by_address: BTreeMap::new() }
    }

    pub(super) fn into_map(self) -> BTreeMap<SocketAddr, ProxyNetworks> {
        self.by_address
    }

    /// The networks in a section: none if it disables the header, `None` if it does not mention it.
    fn read(&self, section: &Section<'_>) -> Option<Vec<(IpNet, HeaderUse)>> {
        let field = section.field("proxyProtocol");
        let all = |networks: Vec<IpNet>, header| networks.into_iter().map(move |network| (network, header));
        if field.value()?.is_object() {
            let uses = field.clone().section();
            let rows =
                [("required", HeaderUse::Required), ("allowed", HeaderUse::Allowed), ("ignored", HeaderUse::Ignored)];
            let read = |(key, header)| all(read_networks(&uses.field(key)).unwrap_or_default(), header);
            let networks: Vec<_> = rows.into_iter().flat_map(read).collect();
            if networks.is_empty() {
                field.refuse("networks in required, allowed or ignored");
            }
            return Some(networks);
        }
        let networks = match field.value()? {
            Value::Bool(false) => return Some(Vec::new()),
            Value::Bool(true) => self.trusted.to_vec(),
            Value::String(_) | Value::Array(_) => {
                let (networks, written) = (read_networks(&field)?, field.items()?.len());
                // Invalid items were reported already.
                if networks.len() < written {
                    return None;
                }
                networks
            }
            _ => {
                field.refuse("true, false, the networks of the proxies such as \"10.0.0.0/8\", or an object of required, allowed and ignored ones");
                return None;
            }
        };
        if networks.is_empty() {
            field.refuse("the networks of the proxies, here or in server.trustedNetworks");
        }
        Some(all(networks, HeaderUse::Required).collect())
    }

    /// Records the networks of an address, or the common ones.
    fn add(&mut self, address: SocketAddr, own: Option<&Section<'_>>, common: Option<&Vec<(IpNet, HeaderUse)>>) {
        let own = own.and_then(|section| self.read(section));
        if let Some(networks) = own.as_ref().or(common).filter(|networks| !networks.is_empty()) {
            self.by_address.insert(address, networks.as_slice().into());
        }
    }
}

/// The addresses of `http`, including the old keys of `server`.
pub(super) fn read_http(root: &Section<'_>, server: &Section<'_>, proxies: &mut Proxies<'_>) -> Vec<SocketAddr> {
    let http = root.field("http").section();
    let port = http.field("port").or_old(server.old_field("port"), "http.port");
    let port = read_port(&port).unwrap_or(DEFAULT_PORT);
    let common = proxies.read(&http);
    let bind = http.field("bind");
    let old_binds = [server.old_field("address"), server.old_field("address6")];
    for old in &old_binds {
        old.warn_old("http.bind", bind.is_set());
    }
    let items = bind.items().or_else(|| read_old_addresses(server));
    let Some(items) = items else {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        proxies.add(address, None, common.as_ref());
        return vec![address];
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
            proxies.add(address, section.as_ref(), common.as_ref());
            listeners.push(address);
        } else {
            item.refuse_because(&format!("{address} once more"), "every address and port only once");
        }
    }
    listeners
}

/// The addresses of the old keys; `None` if there are none.
fn read_old_addresses<'a>(server: &Section<'a>) -> Option<Vec<Field<'a>>> {
    let fields = [server.old_field("address"), server.old_field("address6")];
    let items: Vec<_> = fields.iter().filter_map(Field::items).flatten().collect();
    (!items.is_empty()).then_some(items)
}

/// An address of `https.bind`, and its own settings.
pub(super) struct Bind<'a> {
    pub(super) address: SocketAddr,
    pub(super) section: Option<Section<'a>>,
    pub(super) field: Field<'a>,
}

/// The addresses of `https`; `None` if there are none. Under its old name in `server`, it listens at the addresses of
/// `server.address` and `server.address6`, as in Hipache, or otherwise at 127.0.0.1. An address in `plain`, the
/// addresses of `http`, is refused.
pub(super) fn read_binds<'a>(
    section: &Section<'a>,
    common_port: u16,
    old_server: Option<&Section<'a>>,
    plain: &[SocketAddr],
    proxies: &mut Proxies<'_>,
) -> Option<Vec<Bind<'a>>> {
    let common = proxies.read(section);
    let port = read_port(&section.field("port")).unwrap_or(common_port);
    let bind = section.field("bind");
    let old_items = || old_server.and_then(read_old_addresses);
    let Some(items) = bind.items().or_else(old_items) else {
        old_server?;
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        proxies.add(address, None, common.as_ref());
        return Some(vec![Bind { address, section: None, field: bind }]);
    };
    let mut seen = HashSet::new();
    let mut binds = Vec::new();
    for item in items {
        let Some((address, section)) = read_bind(&item, port) else { continue };
        if !seen.insert(address) {
            item.refuse_because(&format!("{address} once more"), "every address and port only once");
        }
        if plain.contains(&address) {
            let reason = format!("{address}, which http has too");
            item.refuse_because(&reason, "an address and port that http does not have");
        }
        proxies.add(address, section.as_ref(), common.as_ref());
        binds.push(Bind { address, section, field: item });
    }
    Some(binds).filter(|binds| !binds.is_empty())
}

/// Reads an item of `bind`: an address, or an object of an address and its own settings.
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
