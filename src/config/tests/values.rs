//! Tests of every setting: its default, and its effect.

use super::*;
use crate::base::clock::Moment;
use crate::base::node_mark::node_mark;
use crate::cluster::TenantSettings;
use crate::health;
use crate::shaper::{QueueLimits, Spec};
use crate::wire::forwarded;
use crate::wire::limits::Limits;
use crate::worker::HeaderUse;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn supervision_defaults() -> Supervision {
    Supervision {
        cache_bytes: None,
        cache_disk: None,
        memory_limit: None,
        memory_check_interval: seconds(1),
        memory_upgrade: false,
        watchdog: seconds(10),
        lame_duck: Duration::ZERO,
        upgrade_timeout: seconds(60),
    }
}

fn admin_defaults() -> crate::admin::Settings {
    let bind = Some("127.0.0.1:9100".parse().expect("an address"));
    crate::admin::Settings { bind, director_prefix: Some("/x0/director".into()), ..crate::admin::Settings::off() }
}

fn worker_defaults() -> worker::Settings {
    worker::Settings {
        idle_timeout: seconds(30),
        max_connections: 100_000,
        max_buffer_bytes: 128 << 20,
        max_requests: None,
        unknown_host_limit: None,
        drain_timeout: seconds(120),
        tunnel_drain: None,
        proxies: std::collections::BTreeMap::new(),
        liveness: crate::net::liveness::Liveness::default(),
    }
}

fn defaults() -> Settings {
    Settings {
        exchange: exchange::Settings {
            head_timeout: seconds(30),
            connect_timeout: seconds(30),
            response_timeout: seconds(30),
            body_timeout: seconds(30),
            stream_timeout: Some(seconds(3600)),
            tunnel_timeout: Some(seconds(3600)),
            max_head_bytes: 65_536,
            max_body_bytes: None,
            limits: Limits::default(),
            min_body_rate: 240,
            keep_alive: exchange::KeepAlive::Always,
            retry_limit: 3,
            on_client_abort: exchange::OnClientAbort::Close,
            via: Some("sluice".into()),
            node_via: Some(format!("sluice-{}", node_mark()).into()),
            request_id: false,
            request_start: false,
            forwarded: forwarded::Policy { trusted: vec![], mode: forwarded::Mode::Append },
            debug_networks: vec![],
            redirect: exchange::Redirect { for_all: false, port: 443 },
            health: health::Settings { dead_ttl: seconds(30), dead_on_500: true, checker_until: Moment::ZERO },
        },
        upstream: upstream::Settings {
            max_sockets: 100,
            max_queue: 1024,
            idle_timeout: seconds(60),
            receive_buffer: 2 * 1024 * 1024,
        },
        route: route::Settings { capacity: 100_000, ttl: seconds(10), unknown_capacity: 10_000 },
        directory: directory::Settings {
            source: directory::Source::File("config/routes.json".into()),
            dns_refresh: seconds(30),
            dns_servers: None,
            state_dir: None,
        },
        haproxy: Vec::new(),
        page: page::Settings::default(),
        admin: admin_defaults(),
        access_log: access_log::Target::Off,
        access_log_format: access_log::Format::Hipache,
        access_log_sample: 1,
        max_per_address: None,
        tenants: None,
        cookie_secret: None,
        worker: worker_defaults(),
        debug: false,
        log_format: LogFormat::Text,
        workers: None,
        max_connections: None,
        pid_file: None,
        supervision: supervision_defaults(),
        cpus: None,
        pin: true,
        defer_accept: true,
        on_demand_ports: 1024..=65_535,
        listeners: vec![([127, 0, 0, 1], 80).into()],
        tls: None,
        backend_tls: TlsToBackends::default(),
        user: None,
        has_default_user: false,
        group: None,
    }
}

/// A row: members of the text, and the resulting change of the defaults.
type Row = (Value, fn(&mut Settings));

fn check(table: Vec<Row>) {
    for (members, change) in table {
        let mut expected = defaults();
        change(&mut expected);
        assert_eq!(settings_of(&with(&members)), expected, "{members}");
    }
}

/// The same for members of `server`.
fn check_server(table: Vec<Row>) {
    check(table.into_iter().map(|(members, change)| (json!({"server": members}), change)).collect());
}

#[test]
fn what_is_left_out_or_null_has_its_default() {
    check(vec![
        (json!({}), |_| {}),
        (json!({"server": null, "http": null, "https": null, "user": null, "group": null}), |_| {}),
        (json!({"server": {"lruCache": null, "staticDir": null, "accessLog": null, "cpus": null}}), |_| {}),
        (json!({"server": {"lruCache": {"size": null}}, "http": {"port": null, "bind": null}}), |_| {}),
    ]);
}

#[test]
fn times() {
    check_server(vec![
        (json!({"tcpTimeout": 5}), |all| {
            for timeout in [
                &mut all.exchange.connect_timeout,
                &mut all.exchange.head_timeout,
                &mut all.exchange.response_timeout,
                &mut all.exchange.body_timeout,
                &mut all.worker.idle_timeout,
            ] {
                *timeout = seconds(5);
            }
        }),
        (json!({"connectTimeout": 0.25}), |all| all.exchange.connect_timeout = Duration::from_millis(250)),
        (json!({"headTimeout": 1}), |all| all.exchange.head_timeout = seconds(1)),
        (json!({"idleTimeout": 1}), |all| all.worker.idle_timeout = seconds(1)),
        (json!({"responseTimeout": 1}), |all| all.exchange.response_timeout = seconds(1)),
        (json!({"bodyTimeout": 31_536_000}), |all| all.exchange.body_timeout = seconds(31_536_000)),
        (json!({"streamTimeout": 0}), |all| all.exchange.stream_timeout = None),
        (json!({"streamTimeout": 5}), |all| all.exchange.stream_timeout = Some(seconds(5))),
        (json!({"tunnelTimeout": 0}), |all| all.exchange.tunnel_timeout = None),
        (json!({"tunnelTimeout": 1.5}), |all| all.exchange.tunnel_timeout = Some(Duration::from_millis(1500))),
        (json!({"upstreamIdleTimeout": 1}), |all| all.upstream.idle_timeout = seconds(1)),
        (json!({"tunnelDrain": 0}), |all| all.worker.tunnel_drain = Some(Duration::ZERO)),
        (json!({"memoryLimit": "300MB"}), |all| all.supervision.memory_limit = Some(300 << 20)),
        (json!({"cacheBytes": "128MB"}), |all| all.supervision.cache_bytes = Some(128 << 20)),
        (json!({"cacheDisk": {"path": "/var/cache/sluice", "bytes": "2GB"}}), |all| {
            all.supervision.cache_disk =
                Some(crate::disk::Settings { path: "/var/cache/sluice".into(), bytes: 2 << 30 });
        }),
        (json!({"cacheDisk": {"path": false}}), |_| {}),
        (json!({"cacheBytes": 0}), |all| all.supervision.cache_bytes = Some(0)),
        (json!({"memoryLimit": 0}), |all| all.supervision.memory_limit = Some(0)),
        (json!({"memoryCheckInterval": 2}), |all| all.supervision.memory_check_interval = seconds(2)),
        (json!({"memoryUpgrade": true}), |all| all.supervision.memory_upgrade = true),
        (json!({"watchdog": 3}), |all| all.supervision.watchdog = seconds(3)),
        (json!({"drainTimeout": 0}), |all| all.worker.drain_timeout = Duration::ZERO),
        (json!({"tcpKeepAlive": 0}), |all| all.worker.liveness.keep_alive = None),
        (json!({"tcpUserTimeout": 7}), |all| all.worker.liveness.user_timeout = Some(seconds(7))),
        (json!({"dnsRefresh": 1}), |all| all.directory.dns_refresh = seconds(1)),
        (json!({"dnsServers": "system"}), |all| all.directory.dns_servers = Some(directory::DnsServers::System)),
        (json!({"dnsServers": ["192.0.2.53", "[2001:db8::53]:5353"]}), |all| {
            let servers = ["192.0.2.53:53", "[2001:db8::53]:5353"].map(|text| text.parse().expect("an address"));
            all.directory.dns_servers = Some(directory::DnsServers::These(servers.to_vec()));
        }),
        (json!({"deadBackendTTL": 1}), |all| all.exchange.health.dead_ttl = seconds(1)),
        (json!({"lruCache": {"ttl": 0.001}}), |all| all.route.ttl = Duration::from_millis(1)),
    ]);
}

#[test]
fn limits() {
    check_server(vec![
        (json!({"maxSockets": 1}), |all| all.upstream.max_sockets = 1),
        (json!({"maxSockets": 1e3}), |all| all.upstream.max_sockets = 1000),
        (json!({"upstreamReceiveBuffer": 0}), |all| all.upstream.receive_buffer = 0),
        (json!({"maxQueue": 0}), |all| all.upstream.max_queue = 0),
        (json!({"retryOnError": 0}), |all| all.exchange.retry_limit = 0),
        (json!({"lruCache": {"size": 7}}), |all| all.route.capacity = 7),
        (json!({"lruCache": {"unknownSize": 7}}), |all| all.route.unknown_capacity = 7),
        (json!({"maxHeadBytes": 1024}), |all| all.exchange.max_head_bytes = 1024),
        (json!({"maxBodyBytes": 0}), |all| all.exchange.max_body_bytes = None),
        (json!({"maxBodyBytes": 8}), |all| all.exchange.max_body_bytes = Some(8)),
        (json!({"maxConnections": 50}), |all| {
            all.max_connections = Some(50);
            all.worker.max_connections = 50;
        }),
        (json!({"pidFile": "/run/sluice.pid"}), |all| all.pid_file = Some("/run/sluice.pid".into())),
        (json!({"pidFile": false}), |_| {}),
        (json!({"stateDir": "/var/lib/sluice"}), |all| all.directory.state_dir = Some("/var/lib/sluice".into())),
        (json!({"onDemandPorts": "8000-8999"}), |all| all.on_demand_ports = 8000..=8999),
        (json!({"onDemandPorts": false}), |all| all.on_demand_ports = RangeInclusive::new(1, 0)),
        (json!({"maxHeaders": 9}), |all| all.exchange.limits.fields = 9),
        (json!({"maxUriBytes": 99}), |all| all.exchange.limits.uri_bytes = 99),
        (json!({"maxChunkExtensionBytes": 0}), |all| all.exchange.limits.extension_bytes = 0),
        (json!({"maxTrailerBytes": 0}), |all| all.exchange.limits.trailer_bytes = 0),
        (json!({"maxInformationalResponses": 0}), |all| all.exchange.limits.informational_responses = 0),
        (json!({"minBodyRate": 0}), |all| all.exchange.min_body_rate = 0),
        (json!({"requestId": true}), |all| all.exchange.request_id = true),
        (json!({"lameDuck": 5}), |all| all.supervision.lame_duck = seconds(5)),
        (json!({"accessLogFormat": "combined"}), |all| all.access_log_format = access_log::Format::Combined),
        (json!({"accessLogFormat": "json"}), |all| all.access_log_format = access_log::Format::Json),
        (json!({"accessLogFormat": "$status"}), |all| {
            let template = access_log::Template::parse("$status").expect("a template");
            all.access_log_format = access_log::Format::Template(template);
        }),
        (json!({"upgradeTimeout": 5}), |all| all.supervision.upgrade_timeout = seconds(5)),
        (json!({"maxRequestsPerConnection": 0}), |_| {}),
        (json!({"maxBufferBytes": 1_048_576}), |all| all.worker.max_buffer_bytes = 1 << 20),
        (json!({"maxRequestsPerConnection": 9}), |all| all.worker.max_requests = NonZeroU32::new(9)),
        (json!({"maxConnectionsPerAddress": 0}), |_| {}),
        (json!({"cookieSecret": "geheim"}), |all| all.cookie_secret = Some("geheim".into())),
        (json!({"tenants": {"enabled": false, "requests": 7}}), |_| {}),
        (json!({"tenants": {"enabled": true, "requests": 7, "buckets": {"a": "5 %"}, "queueLimit": 3}}), |all| {
            all.tenants = Some(TenantSettings {
                requests: NonZeroU32::new(7),
                buckets: Arc::new(Spec::parse(r#"{"a": "5 %"}"#).expect("shares")),
                queue: QueueLimits { limit: 3, timeout: Duration::from_secs(30) },
            });
        }),
        (json!({"maxConnectionsPerAddress": 9}), |all| all.max_per_address = NonZeroU32::new(9)),
        (json!({"workers": 2}), |all| all.workers = Some(2)),
    ]);
}

#[test]
fn habits() {
    check_server(vec![
        (json!({"debug": true}), |all| all.debug = true),
        (json!({"logFormat": "json"}), |all| all.log_format = LogFormat::Json),
        (json!({"pin": false}), |all| all.pin = false),
        (json!({"deferAccept": false}), |all| all.defer_accept = false),
        (json!({"cpus": "0-2,8"}), |all| all.cpus = Some(vec![0, 1, 2, 8])),
        (json!({"cpus": [3, 1]}), |all| all.cpus = Some(vec![3, 1])),
        (json!({"httpKeepAlive": false}), |all| all.exchange.keep_alive = exchange::KeepAlive::Never),
        (json!({"deadBackendOn500": false}), |all| all.exchange.health.dead_on_500 = false),
        (json!({"accessLog": false}), |_| {}),
        (json!({"accessLog": ""}), |_| {}),
        (json!({"accessLog": "-"}), |all| all.access_log = access_log::Target::Stdout),
        (json!({"accessLog": "syslog:"}), |all| {
            all.access_log = access_log::Target::Syslog("/dev/log".into());
        }),
        (json!({"accessLog": "journald:/a"}), |all| all.access_log = access_log::Target::Journald("/a".into())),
        (json!({"accessLogSample": 100}), |all| all.access_log_sample = 100),
        (json!({"requestStart": true}), |all| all.exchange.request_start = true),
        (json!({"accessLog": "a.log"}), |all| all.access_log = access_log::Target::File("a.log".into())),
        (json!({"staticDir": "static"}), |all| all.page.static_dir = Some("static".into())),
        (json!({"via": "edge-1"}), |all| {
            all.exchange.via = Some("edge-1".into());
            all.exchange.node_via = Some(format!("edge-1-{}", node_mark()).into());
        }),
        (json!({"via": ""}), |all| (all.exchange.via, all.exchange.node_via) = (None, None)),
        (json!({"via": false}), |all| (all.exchange.via, all.exchange.node_via) = (None, None)),
        (json!({"onClientAbort": "close"}), |_| {}),
        (json!({"unknownHostStatus": 400}), |_| {}),
        (json!({"unknownHostStatus": 421}), |all| all.page.unknown_host_status = 421),
        (json!({"onClientAbort": "ignore"}), |all| all.exchange.on_client_abort = exchange::OnClientAbort::Ignore),
        (json!({"forwardedMode": "append"}), |_| {}),
        (json!({"forwardedMode": "replace"}), |all| all.exchange.forwarded.mode = forwarded::Mode::Replace),
        (json!({"trustedNetworks": ["10.1.2.3/8", "::1", "192.168.0.1"]}), |all| {
            let networks = ["10.0.0.0/8", "::1/128", "192.168.0.1/32"];
            all.exchange.forwarded.trusted = networks.map(|network| network.parse().expect("a network")).into();
        }),
        (json!({"debugNetworks": []}), |_| {}),
        (json!({"debugNetworks": "127.0.0.1"}), |all| {
            all.exchange.debug_networks = vec!["127.0.0.1/32".parse().expect("a network")];
        }),
    ]);
}

#[test]
fn listeners() {
    check(vec![
        (json!({"http": {"port": 8080}}), |all| all.listeners = vec![([127, 0, 0, 1], 8080).into()]),
        (json!({"http": {"bind": "0.0.0.0"}}), |all| all.listeners = vec![([0, 0, 0, 0], 80).into()]),
        (json!({"http": {"bind": ["10.0.0.1", "::1"], "port": 81}}), |all| {
            all.listeners = vec![([10, 0, 0, 1], 81).into(), ([0, 0, 0, 0, 0, 0, 0, 1], 81).into()];
        }),
        (json!({"http": {"bind": {"address": "10.0.0.1", "port": 82}}}), |all| {
            all.listeners = vec![([10, 0, 0, 1], 82).into()];
        }),
        (json!({"http": {"bind": [{"address": "10.0.0.1", "port": 82}, {"address": "10.0.0.1"}]}}), |all| {
            all.listeners = vec![([10, 0, 0, 1], 82).into(), ([10, 0, 0, 1], 80).into()];
        }),
    ]);
}

#[test]
fn proxies_with_a_proxy_header() {
    /// An address, and the networks trusted there.
    type Door = (&'static str, &'static [&'static str]);
    let proxies = |rows: &[Door]| {
        let row = |(address, networks): &Door| {
            let networks = networks.iter().map(|text| {
                let (text, header) = match text.split_once(' ') {
                    Some((text, "allowed")) => (text, HeaderUse::Allowed),
                    Some((text, _)) => (text, HeaderUse::Ignored),
                    None => (*text, HeaderUse::Required),
                };
                (text.parse().expect("a network"), header)
            });
            (address.parse().expect("an address"), networks.collect())
        };
        rows.iter().map(row).collect()
    };
    let table: [(Value, &[Door]); 6] = [
        (json!({"http": {"proxyProtocol": "10.0.0.0/8"}}), &[("127.0.0.1:80", &["10.0.0.0/8"])]),
        (
            json!({"http": {"bind": {"address": "::1", "proxyProtocol": true}}}),
            &[("[::1]:80", &["192.0.2.0/24", "::1/128"])],
        ),
        (
            json!({"http": {"proxyProtocol": true, "bind": ["::2", {"address": "::1", "proxyProtocol": false}]}}),
            &[("[::2]:80", &["192.0.2.0/24", "::1/128"])],
        ),
        (
            json!({"https": {"bind": ["::2", {"address": "::1", "proxyProtocol": ["10.0.0.1"]}]}}),
            &[("[::1]:443", &["10.0.0.1/32"])],
        ),
        (json!({"http": {"proxyProtocol": false}}), &[]),
        (
            json!({"http": {"proxyProtocol": {
                "required": "10.0.0.0/8", "allowed": ["10.1.0.0/16"], "ignored": ["::1", "10.2.0.0/16"],
            }}}),
            &[("127.0.0.1:80", &["10.0.0.0/8", "10.1.0.0/16 allowed", "::1/128 ignored", "10.2.0.0/16 ignored"])],
        ),
    ];
    for (members, expected) in table {
        let mut members = members;
        members["server"] = json!({"trustedNetworks": ["192.0.2.0/24", "::1"]});
        assert_eq!(settings_of(&with(&members)).worker.proxies, proxies(expected), "{members}");
    }
}

#[test]
fn drivers() {
    use directory::Source::File;
    check(vec![
        (json!({"driver": "file:r.json"}), |all| all.directory.source = File("config/r.json".into())),
        (json!({"driver": ["file:/r.json"]}), |all| all.directory.source = File("/r.json".into())),
    ]);
    let bare = from_text(r#"{"driver": "file:r.json"}"#, Path::new("c.json"), &Overrides::default());
    assert_eq!(bare.expect("settings").0.directory.source, File("r.json".into()));
}

#[test]
fn a_byte_order_mark_is_no_fault() {
    let text = "\u{feff}{\"driver\": \"file:routes.json\"}";
    let loaded = from_text(text, Path::new("config/config.json"), &Overrides::default());
    assert_eq!(loaded, Ok((defaults(), vec![])));
}

#[test]
fn root_becomes_someone_else() {
    let table = [
        (json!({}), Some("www-data"), Some("www-data")),
        (json!({"user": "web"}), Some("web"), None),
        (json!({"user": "root"}), Some("root"), None),
        (json!({"user": 0, "group": 33}), Some("0"), Some("33")),
        (json!({"group": "web"}), Some("www-data"), Some("web")),
    ];
    for (members, user, group) in table {
        let overrides = Overrides { is_root: true, ..Overrides::default() };
        let text = with(&members).to_string();
        let (settings, warnings) = from_text(&text, Path::new("c.json"), &overrides).expect("settings");
        assert_eq!((settings.user.as_deref(), settings.group.as_deref()), (user, group), "{members}");
        assert_eq!(warnings, [], "{members}");
    }
}

#[test]
fn the_command_line_overrides() {
    let text = with(&json!({"server": {"workers": 2, "cpus": "0-1"}})).to_string();
    let file = Path::new("config/config.json");
    let cpus = Some("3".parse().expect("a list"));
    let overrides = Overrides { workers: Some(5), cpus, no_pin: true, is_root: false, ..Overrides::default() };
    let (settings, _) = from_text(&text, file, &overrides).expect("settings");
    let expected = Settings { workers: Some(5), cpus: Some(vec![3]), pin: false, ..defaults() };
    assert_eq!(settings, expected);
}

#[test]
fn the_file_to_read() {
    let table = [
        (None, None, "config/config.json"),
        (None, Some(""), "config/config.json"),
        (None, Some("dev"), "config/config_dev.json"),
        (Some("a.json"), None, "a.json"),
        (Some("a.json"), Some("dev"), "a.json"),
    ];
    for (asked_for, flavor, expected) in table {
        let found = path(asked_for.map(Into::into), flavor.map(OsStr::new));
        assert_eq!(found, Path::new(expected), "{asked_for:?} {flavor:?}");
    }
}
