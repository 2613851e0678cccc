//! The content of a configuration, typed. It is immutable once parsed, and independent of how it is served.

mod bind;
mod policy;
mod proxy;
mod server;

pub use bind::{Bind, BindAddress, ClientVerify};
pub use policy::{
    Balance, Compression, CookieMode, ErrorResponse, ErrorSource, ForwardedFor, HashType, HealthCheck, HttpCheckStep,
    LogTarget, Persistence, Reuse, Stats, StatsAuth, StickRule, StickTable, Timeouts, UserCredential,
};
pub use proxy::{Capture, Captures, Flag, Mode, Proxy, ProxyKind};
pub use server::{HostPort, OnError, Server, ServerName, Template};

use super::rules::Format;
use std::collections::BTreeMap;
use std::time::Duration;

/// All sections of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The sections `global`, merged.
    pub global: Global,
    /// `frontend`, `listen` and `backend` in order, including inherited `defaults`.
    pub proxies: Vec<Proxy>,
    /// Users and groups for `http_auth`.
    pub userlists: Vec<Userlist>,
    /// DNS servers.
    pub resolvers: Vec<Resolvers>,
    /// Stores of certificates by alias.
    pub crt_stores: Vec<CrtStore>,
    /// Groups of error responses.
    pub http_errors: Vec<HttpErrors>,
}

impl Model {
    /// The backend (or `listen`) with this name: the target of `use_backend` and `default_backend`.
    pub fn backend(&self, name: &str) -> Option<&Proxy> {
        self.proxies.iter().find(|proxy| proxy.name == name && proxy.kind != ProxyKind::Frontend)
    }

    /// The user list with this name.
    pub fn userlist(&self, name: &str) -> Option<&Userlist> {
        self.userlists.iter().find(|userlist| userlist.name == name)
    }
}

/// The section `global`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Global {
    /// `maxconn`: the greatest number of client connections of the process.
    pub maxconn: Option<u64>,
    /// `nbthread`.
    pub nbthread: Option<u64>,
    /// `cpu-map` lines: threads, processors.
    pub cpu_map: Vec<(String, String)>,
    /// `user` or `uid`.
    pub user: Option<String>,
    /// `group` or `gid`.
    pub group: Option<String>,
    /// `chroot`.
    pub chroot: Option<String>,
    /// `crt-base`: the folder of relative certificates.
    pub crt_base: Option<String>,
    /// `key-base`: the folder of relative keys.
    pub key_base: Option<String>,
    /// `ca-base`: the folder of relative authorities and revocation lists.
    pub ca_base: Option<String>,
    /// `ssl-default-bind-*`: name without the prefix, and value.
    pub tls_bind_defaults: BTreeMap<String, String>,
    /// `ssl-default-server-*`: name without the prefix, and value.
    pub tls_server_defaults: BTreeMap<String, String>,
    /// `ssl-server-verify`: whether certificates of servers are not verified unless `verify` is set.
    pub skips_server_verify: bool,
    /// `log` lines.
    pub logs: Vec<LogTarget>,
    /// `hard-stop-after`: the time for which old connections may last at the end.
    pub hard_stop_after: Option<Duration>,
    /// `set-var` and `set-var-fmt`: variables of the process, and what they are at the start.
    pub process_variables: Vec<(String, Format)>,
    /// `spread-checks`: the variation of check intervals in percent.
    pub spread_checks: u64,
}

/// A section `userlist`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Userlist {
    /// Its name.
    pub name: String,
    /// The users.
    pub users: Vec<UserCredential>,
    /// Groups, and the users named on a `group` line.
    pub groups: Vec<(String, Vec<String>)>,
}

/// A section `resolvers`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolvers {
    /// Its name.
    pub name: String,
    /// Names and addresses of the servers.
    pub nameservers: Vec<(String, String)>,
    /// `parse-resolv-conf`.
    pub uses_resolv_conf: bool,
    /// `hold`, `timeout` and other times by name.
    pub times: BTreeMap<String, Duration>,
    /// `resolve_retries`.
    pub retries: Option<u64>,
}

/// A section `crt-store`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrtStore {
    /// Its name; empty for the unnamed store.
    pub name: String,
    /// `crt-base` of the store.
    pub crt_base: Option<String>,
    /// `key-base` of the store.
    pub key_base: Option<String>,
    /// `load` lines.
    pub certificates: Vec<StoredCertificate>,
}

/// A line `load` of a `crt-store`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredCertificate {
    /// The file of the certificate.
    pub crt: String,
    /// The file of the key, unless it is in the same file.
    pub key: Option<String>,
    /// The name for `@store/alias`.
    pub alias: Option<String>,
}

/// A section `http-errors`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpErrors {
    /// Its name.
    pub name: String,
    /// Its `errorfile` lines.
    pub errors: Vec<ErrorResponse>,
}
