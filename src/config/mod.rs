//! The configuration: a JSON text, as Hipache's users know it, to settings for every room.
//!
//! Reading goes on after a fault, so that one run names all of them; whatever is left out, or `null`, has its
//! default. Older names are understood, with a warning that tells the new one.

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
mod unknown;

#[cfg(test)]
mod tests;

pub use changes::Origin;
pub use cpus::{CpuList, CpuListFault};
pub use driver::{HaproxyFile, read_password_file};
pub use https::{Tls, TlsListener, TlsToBackends};
pub use report::{Failure, Fault, Warning};
pub use server::WORKERS;
pub use supervision::Supervision;
pub use table::{help, sample};

use crate::base::secret::Secret;
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

/// Who a process that was started as root becomes, unless told otherwise.
const DEFAULT_ACCOUNT: &str = "www-data";

/// Everything that can be set, in the form in which it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Limits, times and habits of an exchange.
    pub exchange: exchange::Settings,
    /// Connections to backends.
    pub upstream: upstream::Settings,
    /// The cache of routes.
    pub route: route::Settings,
    /// Where routes come from.
    pub directory: directory::Settings,
    /// HAProxy's files, which have listeners of their own.
    pub haproxy: Vec<HaproxyFile>,
    /// Error pages.
    pub page: page::Settings,
    /// The admin service.
    pub admin: crate::admin::Settings,
    /// The access log.
    pub access_log: access_log::Target,
    /// How its lines are written (`server.accessLogFormat`).
    pub access_log_format: access_log::Format,
    /// One of so many requests has a line, besides those that failed (`server.accessLogSample`).
    pub access_log_sample: u64,
    /// A core.
    pub worker: worker::Settings,
    /// The greatest number of client connections of one address (`server.maxConnectionsPerAddress`); `None` for any.
    pub max_per_address: Option<NonZeroU32>,
    /// What session cookies are made with (`server.cookieSecret`).
    pub cookie_secret: Option<Secret>,
    /// Whether the log is verbose (`server.debug`).
    pub debug: bool,
    /// The number of workers; `None` for one a core.
    pub workers: Option<usize>,
    /// The greatest number of client connections of a worker, as it was written; `None` for as many as there are open
    /// files for (`server.maxConnections`).
    pub max_connections: Option<usize>,
    /// Where the number of the process is written (`server.pidFile`).
    pub pid_file: Option<PathBuf>,
    /// How workers are looked after.
    pub supervision: Supervision,
    /// The processors to pin workers to, in this order; `None` for all.
    pub cpus: Option<Vec<usize>>,
    /// Whether workers are pinned.
    pub pin: bool,
    /// Whether the system hands out a new connection with its first bytes only (`server.deferAccept`).
    pub defer_accept: bool,
    /// The ports that clusters on demand may take (`server.onDemandPorts`); an empty range is none.
    pub on_demand_ports: RangeInclusive<u16>,
    /// Where to listen, none twice. Empty where all listeners are those of HAProxy's files.
    pub listeners: Vec<SocketAddr>,
    /// Encrypted connections; `None` where nobody listens for them.
    pub tls: Option<Tls>,
    /// Connections to backends of `https://`.
    pub backend_tls: TlsToBackends,
    /// The user to become once listening, by name or number; `None` exactly where [`Overrides::is_root`] is not set.
    pub user: Option<String>,
    /// Whether the configuration names neither user nor group, so that another account will do where there is no `www-data`.
    pub has_default_user: bool,
    /// The group to become a member of, by name or number; `None` for the user's own, or where there is no user.
    pub group: Option<String>,
}

/// What the command line and the process say besides the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The number of workers, instead of `server.workers`.
    pub workers: Option<usize>,
    /// The processors, instead of `server.cpus`.
    pub cpus: Option<CpuList>,
    /// Not to pin, whatever `server.pin` says.
    pub no_pin: bool,
    /// Whether the process runs as root, and so can and is to become another user.
    pub is_root: bool,
    /// Whether it takes the place of a process that has done so already.
    pub is_successor: bool,
    /// The password of every Redis of `driver` that has none of its own.
    pub redis_password: Option<Secret>,
    /// HAProxy's files, beside those of `driver`.
    pub haproxy: Vec<HaproxyFile>,
}

/// The file to read: the one asked for, else `config/config.json`, or `config/config_x.json` for the flavor `x`.
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

/// Reads the text. Of `file` only the name matters: for messages, and because relative paths of routes start at its
/// folder.
pub fn from_text(text: &str, file: &Path, overrides: &Overrides) -> Result<(Settings, Vec<Warning>), Failure> {
    let fail = |faults, warnings| Failure { file: file.into(), faults, warnings };
    // Some editors begin a file with a byte order mark, which is no JSON.
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

/// `None` only where a fault was reported.
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
    // Without a source of routes, nothing that came to these addresses would be served.
    let (listeners, tls) = if source == directory::Source::Nothing { (Vec::new(), None) } else { (listeners, tls) };
    server.worker.unknown_host_limit = matches!(source, directory::Source::Redis(_)).then_some(server.unknown_rate);
    Some(Settings {
        exchange: server.exchange,
        upstream: server.upstream,
        route: server.route,
        directory: directory::Settings { source, dns_refresh: server.dns_refresh, state_dir: server.state_dir },
        haproxy,
        page: server.page,
        admin: admin::read(root, folder),
        access_log: server.access_log,
        access_log_format: server.access_log_format,
        access_log_sample: server.access_log_sample,
        worker: server.worker,
        max_per_address: server.max_per_address,
        cookie_secret: server.cookie_secret,
        debug: server.debug,
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

/// As root: `www-data`, unless told otherwise. Whoever names only a user gets that user's own group.
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
