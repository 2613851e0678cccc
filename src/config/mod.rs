//! The configuration: a JSON text in the form of Hipache's, converted to settings for every room.
//!
//! Reading continues after a fault, so that one run reports all of them. An absent setting, or `null`, has its default.
//! Older names are accepted, with a warning that names the new one.

mod admin;
mod changes;
mod cpus;
mod driver;
mod https;
mod listen;
mod old_redis;
mod openssl;
mod raw;
mod renamed;
mod report;
mod server;
mod shown;
mod supervision;
mod table;
mod tenants;
mod unknown;

#[cfg(test)]
mod tests;

pub use changes::Origin;
pub use cpus::{CpuList, CpuListFault};
pub use driver::{HaproxyFile, read_password_file};
pub use https::{Tls, TlsListener, TlsToBackends};
pub use report::{Failure, Fault, Warning};
pub use server::{LogFormat, WORKERS};
pub use supervision::Supervision;
pub use table::{help, sample};

use crate::base::secret::Secret;
use crate::cluster::TenantSettings;
use crate::{access_log, directory, exchange, page, route, upstream, worker};
use listen::Proxies;
use raw::{Field, Section};
use report::Report;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The account of a process that was started as root, by default.
const DEFAULT_ACCOUNT: &str = "www-data";

/// All settings, in the form in which they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Limits, timeouts and modes of exchanges.
    pub exchange: exchange::Settings,
    /// Connections to backends.
    pub upstream: upstream::Settings,
    /// The cache of routes.
    pub route: route::Settings,
    /// The source of routes.
    pub directory: directory::Settings,
    /// HAProxy files, which have their own listeners.
    pub haproxy: Vec<HaproxyFile>,
    /// Error pages.
    pub page: page::Settings,
    /// The admin service.
    pub admin: crate::admin::Settings,
    /// The destination of the access log.
    pub access_log: access_log::Target,
    /// The format of its lines (`server.accessLogFormat`).
    pub access_log_format: access_log::Format,
    /// One of this many requests is logged, besides failed ones (`server.accessLogSample`).
    pub access_log_sample: u64,
    /// Settings of a worker.
    pub worker: worker::Settings,
    /// The greatest number of client connections of one address (`server.maxConnectionsPerAddress`); `None` for no
    /// limit.
    pub max_per_address: Option<NonZeroU32>,
    /// The tenants that share this node; `None` where it is not shared (`server.tenants`).
    pub tenants: Option<TenantSettings>,
    /// The secret of session cookies (`server.cookieSecret`).
    pub cookie_secret: Option<Secret>,
    /// Whether the log is verbose (`server.debug`).
    pub debug: bool,
    /// The form of the program's own log (`server.logFormat`).
    pub log_format: LogFormat,
    /// The number of workers; `None` for one a core.
    pub workers: Option<usize>,
    /// The greatest number of client connections of a worker, as written; `None` derives it from the limit of open
    /// files (`server.maxConnections`).
    pub max_connections: Option<usize>,
    /// The file for the process id (`server.pidFile`).
    pub pid_file: Option<PathBuf>,
    /// Supervision of workers.
    pub supervision: Supervision,
    /// The processors to which workers are pinned, in this order; `None` for all.
    pub cpus: Option<Vec<usize>>,
    /// Whether workers are pinned.
    pub pin: bool,
    /// Whether the kernel delivers a new connection only with its first bytes (`server.deferAccept`).
    pub defer_accept: bool,
    /// The ports that on-demand clusters may use (`server.onDemandPorts`); an empty range allows none.
    pub on_demand_ports: RangeInclusive<u16>,
    /// The listening addresses, without duplicates. Empty if all listeners belong to HAProxy files.
    pub listeners: Vec<SocketAddr>,
    /// TLS listeners; `None` without any.
    pub tls: Option<Tls>,
    /// Connections to backends of `https://`.
    pub backend_tls: TlsToBackends,
    /// The user to switch to after binding, by name or number; `None` exactly if [`Overrides::is_root`] is not set.
    pub user: Option<String>,
    /// Whether the configuration names neither user nor group, so that another account will do if there is no
    /// `www-data`.
    pub has_default_user: bool,
    /// The group to switch to, by name or number; `None` for the user's own, or without a user.
    pub group: Option<String>,
}

/// Settings from the command line and the process, besides the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The number of workers, instead of `server.workers`.
    pub workers: Option<usize>,
    /// The processors, instead of `server.cpus`.
    pub cpus: Option<CpuList>,
    /// Disables pinning, whatever `server.pin` says.
    pub no_pin: bool,
    /// Whether the process runs as root, and so has to switch to another user.
    pub is_root: bool,
    /// Whether it replaces a process that has switched already.
    pub is_successor: bool,
    /// The password of every Redis of `driver` without one of its own.
    pub redis_password: Option<Secret>,
    /// The password of all sentinels of `driver` without one of their own.
    pub sentinel_password: Option<Secret>,
    /// HAProxy files, besides those of `driver`.
    pub haproxy: Vec<HaproxyFile>,
}

/// The file to read: the requested one, otherwise `config/config.json`, or `config/config_x.json` for the flavor `x`.
pub fn path(asked_for: Option<PathBuf>, flavor: Option<&OsStr>) -> PathBuf {
    asked_for.unwrap_or_else(|| {
        let mut name = OsString::from("config");
        if let Some(flavor) = flavor.filter(|flavor| !flavor.is_empty()) {
            name.push("_");
            name.push(flavor);
        }
        name.push(".json");
        Path::new("config").join(name)
    })
}

/// Reads the file.
pub fn load(file: &Path, overrides: &Overrides) -> Result<(Settings, Vec<Warning>), Failure> {
    match fs::read_to_string(file) {
        Ok(text) => from_text(&text, file, overrides),
        Err(error) => {
            let faults = vec![Fault::Unreadable { error: error.to_string() }];
            Err(Failure { file: file.into(), faults, warnings: Vec::new() })
        }
    }
}

/// Reads the text. Only the name of `file` is used: for messages, and as the start of relative paths.
pub fn from_text(text: &str, file: &Path, overrides: &Overrides) -> Result<(Settings, Vec<Warning>), Failure> {
    let fail = |faults, warnings| Failure { file: file.into(), faults, warnings };
    // Some editors begin a file with a byte order mark, which is not JSON.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value: Value = serde_json::from_str(text).map_err(|error| fail(vec![syntax_fault(&error)], Vec::new()))?;
    let report = Report::default();
    unknown::warn_of_duplicate_keys(text, &report);
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut settings = read(&Section::root(&value, &report), folder, overrides);
    unknown::warn_of_unknown_keys(&value, &report);
    if let Some(settings) = &mut settings {
        settings.admin.written.0 = shown::shown(&value, &report);
    }
    let (faults, warnings) = report.into_parts();
    match settings {
        Some(settings) if faults.is_empty() => Ok((settings, warnings)),
        _ => Err(fail(faults, warnings)),
    }
}

fn syntax_fault(error: &serde_json::Error) -> Fault {
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    let problem = message.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&message);
    Fault::Syntax { line, column, problem: problem.into() }
}

/// `None` only after a reported fault.
fn read(root: &Section<'_>, folder: &Path, overrides: &Overrides) -> Option<Settings> {
    let section = root.field("server").section();
    let mut server = server::read(&section);
    let mut proxies = Proxies::new(&server.exchange.forwarded.trusted);
    let listeners = listen::read_http(root, &section, &mut proxies);
    let tls = https::read(root, &section, &server.route, (folder, &listeners), &mut proxies);
    server.worker.proxies = proxies.into_map();
    if let Some(tls) = &tls {
        server.exchange.redirect = tls.redirect;
    }
    let (user, group) = read_user(root, overrides);
    let has_default_user = overrides.is_root && ["user", "group"].iter().all(|key| !root.field(key).is_set());
    let backend_tls = https::read_backend_tls(&section, folder);
    let (source, haproxy) = driver::read_source(root, folder, overrides, &server)?;
    // Without a source of routes, requests at these addresses could not be served.
    let (listeners, tls) = if source == directory::Source::Nothing { (Vec::new(), None) } else { (listeners, tls) };
    server.worker.unknown_host_limit = matches!(source, directory::Source::Redis(_)).then_some(server.unknown_rate);
    Some(Settings {
        exchange: server.exchange,
        upstream: server.upstream,
        route: server.route,
        directory: directory::Settings {
            source,
            dns_refresh: server.dns_refresh,
            dns_servers: server.dns_servers,
            state_dir: server.state_dir,
        },
        haproxy,
        page: server.page,
        admin: admin::read(root, folder),
        access_log: server.access_log,
        access_log_format: server.access_log_format,
        access_log_sample: server.access_log_sample,
        worker: server.worker,
        max_per_address: server.max_per_address,
        tenants: server.tenants,
        cookie_secret: server.cookie_secret,
        debug: server.debug,
        log_format: server.log_format,
        workers: overrides.workers.or(server.workers),
        max_connections: server.max_connections,
        pid_file: server.pid_file,
        supervision: supervision::read(&section),
        cpus: overrides.cpus.clone().map(CpuList::into_vec).or(server.cpus),
        pin: server.pin && !overrides.no_pin,
        defer_accept: server.defer_accept,
        on_demand_ports: server.on_demand_ports,
        listeners,
        tls,
        backend_tls,
        user,
        has_default_user,
        group,
    })
}

/// Applies to root: `www-data` by default. Without a group, the user's own group is used.
fn read_user(root: &Section<'_>, overrides: &Overrides) -> (Option<String>, Option<String>) {
    let [user, group] = ["user", "group"].map(|key| root.field(key));
    let names = [read_account(&user), read_account(&group)];
    if !overrides.is_root {
        for field in [user, group].iter().filter(|_| !overrides.is_successor) {
            field.warn_no_effect("only a process that is started as root can become another user");
        }
        return (None, None);
    }
    let group_default = (!user.is_set()).then_some(DEFAULT_ACCOUNT);
    let [user, group] = names;
    (user.or_else(|| Some(DEFAULT_ACCOUNT.into())), group.or_else(|| group_default.map(Into::into)))
}

fn read_account(field: &Field<'_>) -> Option<String> {
    field.read("a name, or the number of an account", |value| match value {
        Value::String(name) if !name.is_empty() => Some(name.clone()),
        Value::Number(number) => number.as_u64().filter(|id| *id < u64::from(u32::MAX)).map(|id| id.to_string()),
        _ => None,
    })
}
