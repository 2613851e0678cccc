//! `server`: settings of all rooms.

use super::cpus::{CpuList, HIGHEST};
use super::raw::{Field, Section};
use super::tenants;
use crate::base::clock::Moment;
use crate::base::node_mark::node_mark;
use crate::base::secret::Secret;
use crate::cluster::TenantSettings;
use crate::directory::DnsServers;
use crate::net::liveness::Liveness;
use crate::wire::limits::Limits;
use crate::wire::{MOST_FIELDS, forwarded, is_token};
use crate::{access_log, exchange, health, page, route, upstream, worker};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// The allowed number of workers.
pub const WORKERS: RangeInclusive<u64> = 1..=1024;

/// How large a head may be allowed to be. Below the least one, browsers' ordinary requests fail; above the greatest,
/// heads no longer fit the buffers that they are read with.
/// What the buffers of a worker may take: less than a few slow clients hold would be of no use.
const BUFFER_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;
const HEAD_BYTES: RangeInclusive<u64> = 1024..=65_536;

const COUNT: RangeInclusive<u64> = 1..=10_000_000;

/// The form of the program's own log (`server.logFormat`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line of text for each event.
    #[default]
    Text,
    /// A JSON object on a line of its own for each event.
    Json,
}

impl LogFormat {
    /// The form of this name, `text` or `json`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Timeouts; for most of them `tcpTimeout` is the common default.
#[derive(Debug)]
struct Times {
    connect: Duration,
    head: Duration,
    idle: Duration,
    response: Duration,
    body: Duration,
    stream: Option<Duration>,
    tunnel: Option<Duration>,
    upstream_idle: Duration,
    graceful: Duration,
    dns_refresh: Duration,
    dead: Duration,
    route: Duration,
}

/// The content of `server`, sorted by room.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) exchange: exchange::Settings,
    pub(super) upstream: upstream::Settings,
    pub(super) route: route::Settings,
    pub(super) worker: worker::Settings,
    pub(super) max_per_address: Option<NonZeroU32>,
    pub(super) tenants: Option<TenantSettings>,
    pub(super) cookie_secret: Option<Secret>,
    pub(super) page: page::Settings,
    pub(super) access_log: access_log::Target,
    pub(super) access_log_format: access_log::Format,
    pub(super) access_log_sample: u64,
    pub(super) dns_refresh: Duration,
    pub(super) dns_servers: Option<DnsServers>,
    pub(super) unknown_rate: u32,
    pub(super) resync_hold: Duration,
    pub(super) snapshot: Option<PathBuf>,
    pub(super) keeps_certificates: bool,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) max_connections: Option<usize>,
    pub(super) debug: bool,
    pub(super) log_format: LogFormat,
    pub(super) workers: Option<usize>,
    pub(super) cpus: Option<Vec<usize>>,
    pub(super) pin: bool,
    pub(super) defer_accept: bool,
    pub(super) on_demand_ports: RangeInclusive<u16>,
}

pub(super) fn read(server: &Section<'_>) -> Server {
    let lru_cache = server.field("lruCache").section();
    let times = read_times(server, &lru_cache);
    let max_connections = server.field("maxConnections").count(COUNT);
    Server {
        upstream: upstream::Settings {
            max_sockets: server.field("maxSockets").count(1..=65_535).unwrap_or(100),
            max_queue: server.field("maxQueue").count(0..=1_000_000).unwrap_or(1024),
            idle_timeout: times.upstream_idle,
            receive_buffer: server.field("upstreamReceiveBuffer").count(0..=1 << 30).unwrap_or(2 * 1024 * 1024),
        },
        route: route::Settings {
            capacity: lru_cache.field("size").count(COUNT).unwrap_or(100_000),
            ttl: times.route,
            unknown_capacity: lru_cache.field("unknownSize").count(COUNT).unwrap_or(10_000),
        },
        worker: worker::Settings {
            idle_timeout: times.idle,
            max_connections: max_connections.unwrap_or(worker::DEFAULT_MAX_CONNECTIONS),
            max_buffer_bytes: server.field("maxBufferBytes").count(BUFFER_BYTES).unwrap_or(128 << 20),
            unknown_host_limit: None,
            max_requests: read_limit(&server.field("maxRequestsPerConnection")),
            drain_timeout: times.graceful,
            tunnel_drain: server.field("tunnelDrain").seconds_or_zero(),
            // `http` and `https` set it for their addresses.
            proxies: BTreeMap::new(),
            liveness: read_liveness(server),
        },
        max_per_address: read_limit(&server.field("maxConnectionsPerAddress")),
        tenants: tenants::read(&server.field("tenants")),
        cookie_secret: server.field("cookieSecret").secret().map(Into::into),
        page: page::Settings {
            static_dir: server.field("staticDir").text().map(Into::into),
            unknown_host_status: read_unknown_host_status(&server.field("unknownHostStatus")),
        },
        access_log: read_access_log(&server.field("accessLog")),
        access_log_format: read_access_log_format(&server.field("accessLogFormat")),
        access_log_sample: server.field("accessLogSample").whole(1..=1_000_000).unwrap_or(1),
        dns_refresh: times.dns_refresh,
        dns_servers: read_dns_servers(&server.field("dnsServers")),
        unknown_rate: server
            .field("unknownHostRate")
            .count(COUNT)
            .and_then(|rate| rate.try_into().ok())
            .unwrap_or(1000),
        resync_hold: server.field("resyncHold").seconds_or_zero().unwrap_or(Duration::from_secs(300)),
        snapshot: read_path(&server.field("snapshot")),
        keeps_certificates: server.field("snapshotCertificates").flag().unwrap_or(true),
        pid_file: read_path(&server.field("pidFile")),
        state_dir: read_path(&server.field("stateDir")),
        max_connections,
        debug: server.field("debug").flag().unwrap_or(false),
        log_format: read_log_format(&server.field("logFormat")),
        workers: server.field("workers").count(WORKERS),
        cpus: read_cpus(&server.field("cpus")),
        pin: server.field("pin").flag().unwrap_or(true),
        defer_accept: server.field("deferAccept").flag().unwrap_or(true),
        on_demand_ports: read_ports(&server.field("onDemandPorts")),
        exchange: read_exchange(server, &times),
    }
}

fn read_times(server: &Section<'_>, lru_cache: &Section<'_>) -> Times {
    let seconds = |key, default| server.field(key).seconds().unwrap_or(default);
    let common = seconds("tcpTimeout", Duration::from_secs(30));
    let stream = server.field("streamTimeout").seconds_or_zero().unwrap_or(Duration::from_secs(3600));
    let tunnel = server.field("tunnelTimeout").seconds_or_zero().unwrap_or(Duration::from_secs(3600));
    Times {
        connect: seconds("connectTimeout", common),
        head: seconds("headTimeout", common),
        idle: seconds("idleTimeout", common),
        response: seconds("responseTimeout", common),
        body: seconds("bodyTimeout", common),
        stream: (!stream.is_zero()).then_some(stream),
        tunnel: (!tunnel.is_zero()).then_some(tunnel),
        upstream_idle: seconds("upstreamIdleTimeout", Duration::from_secs(60)),
        graceful: server.field("drainTimeout").seconds_or_zero().unwrap_or(Duration::from_secs(120)),
        dns_refresh: seconds("dnsRefresh", Duration::from_secs(30)),
        dead: seconds("deadBackendTTL", Duration::from_secs(30)),
        route: lru_cache.field("ttl").seconds().unwrap_or(Duration::from_secs(10)),
    }
}

fn read_exchange(server: &Section<'_>, times: &Times) -> exchange::Settings {
    let via = read_via(&server.field("via"));
    exchange::Settings {
        head_timeout: times.head,
        connect_timeout: times.connect,
        response_timeout: times.response,
        body_timeout: times.body,
        stream_timeout: times.stream,
        tunnel_timeout: times.tunnel,
        max_head_bytes: server.field("maxHeadBytes").count(HEAD_BYTES).unwrap_or(65_536),
        max_body_bytes: server.field("maxBodyBytes").whole(0..=1 << 53).filter(|bytes| *bytes > 0),
        limits: read_limits(server),
        min_body_rate: server.field("minBodyRate").whole(0..=1 << 30).unwrap_or(240),
        keep_alive: match server.field("httpKeepAlive").flag() {
            Some(false) => exchange::KeepAlive::Never,
            _ => exchange::KeepAlive::Always,
        },
        retry_limit: server.field("retryOnError").whole(0..=100).and_then(|times| times.try_into().ok()).unwrap_or(3),
        on_client_abort: read_on_client_abort(&server.field("onClientAbort")).unwrap_or(exchange::OnClientAbort::Close),
        node_via: via.as_ref().map(|name| format!("{name}-{}", node_mark()).into()),
        via,
        request_id: server.field("requestId").flag().unwrap_or(false),
        request_start: server.field("requestStart").flag().unwrap_or(false),
        forwarded: forwarded::Policy {
            trusted: read_networks(&server.field("trustedNetworks")).unwrap_or_default(),
            mode: read_mode(&server.field("forwardedMode")).unwrap_or(forwarded::Mode::Append),
        },
        debug_networks: read_debug_networks(&server.field("debugNetworks")),
        redirect: exchange::Redirect { for_all: false, port: 443 },
        health: health::Settings {
            dead_ttl: times.dead,
            dead_on_500: server.field("deadBackendOn500").flag().unwrap_or(true),
            checker_until: Moment::ZERO,
        },
    }
}

fn read_liveness(server: &Section<'_>) -> Liveness {
    let usual = Liveness::default();
    let read = |key, usual| match server.field(key).seconds_or_zero() {
        None => usual,
        some => some.filter(|time| !time.is_zero()),
    };
    Liveness {
        keep_alive: read("tcpKeepAlive", usual.keep_alive),
        user_timeout: read("tcpUserTimeout", usual.user_timeout),
    }
}

/// Reads a range of ports, possibly empty.
fn read_ports(field: &Field<'_>) -> RangeInclusive<u16> {
    #[expect(clippy::reversed_empty_ranges, reason = "no port is in it")]
    const NONE: RangeInclusive<u16> = 1..=0;
    let ports = field.read("ports such as \"1024-65535\", or false for none", |value| match (value.as_str(), value) {
        (_, serde_json::Value::Bool(false)) => Some(NONE),
        (Some(text), _) => {
            let (first, last) = text.split_once('-')?;
            let range = first.trim().parse::<u16>().ok()?..=last.trim().parse().ok()?;
            (*range.start() > 0 && !range.is_empty()).then_some(range)
        }
        _ => None,
    });
    ports.unwrap_or(1024..=u16::MAX)
}

/// Reads a limit; 0 means none.
fn read_limit(field: &Field<'_>) -> Option<NonZeroU32> {
    field.whole(0..=10_000_000).and_then(|limit| u32::try_from(limit).ok()).and_then(NonZeroU32::new)
}

fn read_limits(server: &Section<'_>) -> Limits {
    let usual = Limits::default();
    let bytes = |key, range, usual| server.field(key).count(range).unwrap_or(usual);
    Limits {
        fields: bytes("maxHeaders", 1..=MOST_FIELDS as u64, usual.fields),
        uri_bytes: bytes("maxUriBytes", 1..=65_536, usual.uri_bytes),
        extension_bytes: bytes("maxChunkExtensionBytes", 0..=65_536, usual.extension_bytes),
        trailer_bytes: bytes("maxTrailerBytes", 0..=65_536, usual.trailer_bytes),
        informational_responses: server
            .field("maxInformationalResponses")
            .whole(0..=1000)
            .and_then(|most| most.try_into().ok())
            .unwrap_or(usual.informational_responses),
    }
}

fn read_access_log(field: &Field<'_>) -> access_log::Target {
    use access_log::Target;
    const EXPECTED: &str = "a path, \"-\" for standard output, \"syslog:\", \"journald:\", or false";
    let target = field.read(EXPECTED, |value| match (value.as_str(), value) {
        (Some(""), _) | (_, serde_json::Value::Bool(false)) => Some(Target::Off),
        (Some("-"), _) => Some(Target::Stdout),
        (Some(text), _) => Some(Target::daemon(text).unwrap_or_else(|| Target::File(text.into()))),
        _ => None,
    });
    target.unwrap_or(Target::Off)
}

/// Reads the name of a format, or a template.
fn read_access_log_format(field: &Field<'_>) -> access_log::Format {
    use access_log::{Format, Template};
    const EXPECTED: &str = "\"hipache\", \"combined\", \"json\", or a template such as \"$client $status $total\"";
    match field.text() {
        None | Some("hipache") => Format::Hipache,
        Some("combined") => Format::Combined,
        Some("json") => Format::Json,
        Some(text) if !text.contains('$') => {
            field.refuse(EXPECTED);
            Format::Hipache
        }
        Some(text) => match Template::parse(text) {
            Ok(template) => Format::Template(template),
            Err(error) => {
                field.refuse_because(&error, EXPECTED);
                Format::Hipache
            }
        },
    }
}

/// Reads an optional path.
pub(super) fn read_path(field: &Field<'_>) -> Option<PathBuf> {
    let path = field.read("a path, or false for none", |value| match (value.as_str(), value) {
        (Some(""), _) | (_, serde_json::Value::Bool(false)) => Some(None),
        (Some(path), _) => Some(Some(path.into())),
        _ => None,
    });
    path.flatten()
}

/// Reads the list of processors, as a text or as a list of numbers.
fn read_cpus(field: &Field<'_>) -> Option<Vec<usize>> {
    const EXPECTED: &str = "a list of processors such as \"0-3,8\"";
    let value = field.value()?;
    let list = match value.as_str() {
        Some(text) => text.parse(),
        None if value.is_array() => {
            let items = field.items()?;
            let cpus: Vec<_> = items.iter().filter_map(|item| item.count(0..=HIGHEST as u64)).collect();
            if cpus.len() < items.len() {
                return None;
            }
            CpuList::new(cpus)
        }
        None => {
            field.refuse(EXPECTED);
            return None;
        }
    };
    list.map_err(|fault| field.refuse_because(&fault, EXPECTED)).map(CpuList::into_vec).ok()
}

/// A pseudonym is a token (RFC 9110 section 7.6.3).
fn read_via(field: &Field<'_>) -> Option<Box<str>> {
    let expected = "a name of letters, digits and !#$%&'*+-.^_`|~, or false to add no Via";
    let via = field.read(expected, |value| match (value.as_str(), value) {
        (Some(""), _) | (_, serde_json::Value::Bool(false)) => Some(None),
        (Some(name), _) if is_token(name.as_bytes()) => Some(Some(name.into())),
        _ => None,
    });
    via.unwrap_or_else(|| Some("sluice".into()))
}

fn read_mode(field: &Field<'_>) -> Option<forwarded::Mode> {
    field.read("\"append\" or \"replace\"", |value| match value.as_str()? {
        "append" => Some(forwarded::Mode::Append),
        "replace" => Some(forwarded::Mode::Replace),
        _ => None,
    })
}

fn read_log_format(field: &Field<'_>) -> LogFormat {
    field.read("\"text\" or \"json\"", |value| LogFormat::named(value.as_str()?)).unwrap_or_default()
}

/// `server.dnsServers`: the word `system`, or addresses with or without a port.
fn read_dns_servers(field: &Field<'_>) -> Option<DnsServers> {
    const EXPECTED: &str = "\"system\", or addresses such as \"192.0.2.53\" or \"[2001:db8::53]:5353\"";
    const PORT: u16 = 53;
    if field.value()?.as_str() == Some("system") {
        return Some(DnsServers::System);
    }
    let address = |text: &str| {
        let plain = || text.parse().ok().map(|address| SocketAddr::new(address, PORT));
        text.parse().ok().or_else(plain)
    };
    let items = field.items()?;
    if items.is_empty() {
        field.refuse(EXPECTED);
    }
    let servers: Vec<_> =
        items.iter().filter_map(|item| item.read(EXPECTED, |value| address(value.as_str()?))).collect();
    (!servers.is_empty()).then_some(DnsServers::These(servers))
}

fn read_on_client_abort(field: &Field<'_>) -> Option<exchange::OnClientAbort> {
    field.read("\"close\" or \"ignore\"", |value| match value.as_str()? {
        "close" => Some(exchange::OnClientAbort::Close),
        "ignore" => Some(exchange::OnClientAbort::Ignore),
        _ => None,
    })
}

/// The status of requests for hosts without a route.
fn read_unknown_host_status(field: &Field<'_>) -> u16 {
    let status = field.read("400, 404, 421 or 503", |value| {
        page::UNKNOWN_HOST_STATUSES.into_iter().find(|status| value.as_u64() == Some(u64::from(*status)))
    });
    status.unwrap_or_else(|| page::Settings::default().unknown_host_status)
}

/// Reads the networks whose clients may request `X-Debug` headers: none by default.
fn read_debug_networks(field: &Field<'_>) -> Vec<IpNet> {
    // No operator's network is larger than this.
    const OPEN_PREFIX: u8 = 7;
    let networks = read_networks(field).unwrap_or_default();
    if networks.iter().any(|network| network.prefix_len() <= OPEN_PREFIX) {
        field.warn_open("X-Debug tells any client the addresses of backends; name the networks of operators alone");
    }
    networks
}

pub(super) fn read_networks(field: &Field<'_>) -> Option<Vec<IpNet>> {
    let read = |item: Field<'_>| {
        item.read("an IP address, or a network such as \"10.0.0.0/8\"", |value| as_network(value.as_str()?))
    };
    Some(field.items()?.into_iter().filter_map(read).collect())
}

fn as_network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text.parse::<IpNet>().ok()?.trunc(),
    };
    // The address of an IPv4 peer never has its mapped form (::ffff:10.0.0.1).
    let mapped = match network {
        IpNet::V6(network) => network.addr().to_ipv4_mapped().zip(network.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    let plain = mapped.and_then(|(address, length)| IpNet::new(address.into(), length).ok());
    Some(plain.unwrap_or(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_mapped_addresses_is_that_of_the_addresses() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1/32")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("::ffff:10.0.0.1", Some("10.0.0.1/32")),
            ("::ffff:10.1.2.3/104", Some("10.0.0.0/8")),
            ("::ffff:0:0/96", Some("0.0.0.0/0")),
            ("::/0", Some("::/0")),
            ("fd00::1/8", Some("fd00::/8")),
            ("10.0.0.0/33", None),
        ] {
            assert_eq!(as_network(text).map(|network| network.to_string()).as_deref(), expected, "{text}");
        }
    }
}
