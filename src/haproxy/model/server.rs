//! The lines `server`, `default-server` and `server-template`.

use super::super::position::Position;
use std::time::Duration;

/// A host or an address, with an optional port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPort {
    /// A name, an IPv4 or a bare IPv6 address, or the path of a UNIX socket. Empty stands for the destination of the
    /// client's connection.
    pub host: String,
    /// It is a UNIX socket.
    pub is_unix: bool,
    /// The port; by default the destination port of the client's connection.
    pub port: Option<u16>,
    /// `+N` or `-N`: the port is relative to the destination port of the client's connection.
    pub port_offset: Option<i32>,
}

/// The identity of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerName {
    /// Its name in the backend.
    pub name: String,
    /// Its position.
    pub at: Position,
}

/// `server-template`: the range of numbers that are appended to the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// The first number.
    pub first: u32,
    /// The last number.
    pub last: u32,
}

/// The reaction to an error of an observed server (`on-error`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// `fastinter`: checks become more frequent.
    #[default]
    FastInter,
    /// `fail-check`: the error counts as a failed check.
    FailCheck,
    /// `sudden-death`: one more failed check takes the server down.
    SuddenDeath,
    /// `mark-down`: the server is down at once.
    MarkDown,
}

/// A server; `default-server` has no name.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Its name and position.
    pub id: ServerName,
    /// `server-template`.
    pub template: Option<Template>,
    /// The address.
    pub address: HostPort,
    /// `check`: health checks run.
    pub is_checked: bool,
    /// `port`: the port of checks.
    pub check_port: Option<u16>,
    /// `addr`: the address of checks.
    pub check_address: Option<String>,
    /// `check-ssl`: checks use TLS; `no-check-ssl` is false. By default they follow `ssl`.
    pub check_tls: Option<bool>,
    /// `check-sni`.
    pub check_sni: Option<String>,
    /// `check-send-proxy`.
    pub check_send_proxy: bool,
    /// `inter`: the time between two checks. HAProxy's default is 2 s.
    pub inter: Duration,
    /// `fastinter`: the same while its state is changing.
    pub fast_inter: Option<Duration>,
    /// `downinter`: the same while it is down.
    pub down_inter: Option<Duration>,
    /// `rise`: the number of good checks until it is up. Default 2.
    pub rise: u32,
    /// `fall`: the number of bad checks until it is down. Default 3.
    pub fall: u32,
    /// `weight`, 0 to 256. Default 1.
    pub weight: u16,
    /// `backup`: used if all others are down.
    pub is_backup: bool,
    /// `maxconn`: the greatest number of connections at once; 0 for no limit.
    pub maxconn: u64,
    /// `minconn`: the limit at low load.
    pub minconn: u64,
    /// `maxqueue`: the greatest length of the queue; 0 for no limit.
    pub maxqueue: u64,
    /// `slowstart`.
    pub slow_start: Option<Duration>,
    /// `cookie`: its value in the persistence cookie.
    pub cookie: Option<String>,
    /// `ssl`: connections use TLS.
    pub is_tls: bool,
    /// `verify none` is false, `verify required` true. Default: required.
    pub verify: Option<bool>,
    /// `verifyhost`: the name in its certificate.
    pub verify_host: Option<String>,
    /// `ca-file`.
    pub ca_file: Option<String>,
    /// `crl-file`.
    pub crl_file: Option<String>,
    /// `crt`: the client certificate.
    pub certificate: Option<String>,
    /// `sni`: an expression for the server name.
    pub sni: Option<String>,
    /// `alpn`, in order.
    pub alpn: Vec<String>,
    /// `send-proxy` is 1, `send-proxy-v2` is 2.
    pub send_proxy: Option<u8>,
    /// `disabled`: it starts in maintenance.
    pub is_disabled: bool,
    /// `resolvers`: the section.
    pub resolvers: Option<String>,
    /// `init-addr`, in order.
    pub init_addr: Vec<String>,
    /// `resolve-prefer ipv4` is 4, `ipv6` is 6.
    pub resolve_prefer: Option<u8>,
    /// `redir`: GET and HEAD are redirected there, with the path appended.
    pub redir: Option<String>,
    /// `track`: it has the health of another server, given as `backend/server` or `server`.
    pub track: Option<String>,
    /// `observe layer4` is false, `observe layer7` true.
    pub observe_layer7: Option<bool>,
    /// `on-error`.
    pub on_error: OnError,
    /// `error-limit`: the number of errors until `on-error`. Default 10.
    pub error_limit: u32,
    /// `on-marked-down shutdown-sessions`.
    pub shutdown_when_down: bool,
    /// `pool-max-conn`: the greatest number of idle connections; negative for no limit.
    pub pool_max: Option<i64>,
    /// `pool-purge-delay`.
    pub pool_purge: Option<Duration>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            id: ServerName::default(),
            template: None,
            address: HostPort::default(),
            is_checked: false,
            check_port: None,
            check_address: None,
            check_tls: None,
            check_sni: None,
            check_send_proxy: false,
            inter: Duration::from_secs(2),
            fast_inter: None,
            down_inter: None,
            rise: 2,
            fall: 3,
            weight: 1,
            is_backup: false,
            maxconn: 0,
            minconn: 0,
            maxqueue: 0,
            slow_start: None,
            cookie: None,
            is_tls: false,
            verify: None,
            verify_host: None,
            ca_file: None,
            crl_file: None,
            certificate: None,
            sni: None,
            alpn: Vec::new(),
            send_proxy: None,
            is_disabled: false,
            resolvers: None,
            init_addr: Vec::new(),
            resolve_prefer: None,
            redir: None,
            track: None,
            observe_layer7: None,
            on_error: OnError::default(),
            error_limit: 10,
            shutdown_when_down: false,
            pool_max: None,
            pool_purge: None,
        }
    }
}
