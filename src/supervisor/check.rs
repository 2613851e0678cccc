//! The steps of a start, tried without serving, for `sluice --dry`.

use super::affinity;
use super::privileges::Account;
use crate::access_log::Target;
use crate::admin::Bind;
use crate::config::Settings;
use crate::directory::{Source, read_routes, redis};
use crate::net::listener::Listener;
use crate::net::tls::{BackendTls, TlsServerContext};
use crate::page::Pages;
use nix::unistd::{AccessFlags, access};
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// The findings.
#[derive(Debug, Default)]
pub struct Findings {
    /// Faults that would prevent a start, one a line.
    pub faults: Vec<String>,
    /// Faults that would not prevent it, or that may be gone by the time of a start.
    pub warnings: Vec<String>,
}

impl Findings {
    fn fault(&mut self, problem: impl ToString) {
        self.faults.extend(problem.to_string().lines().map(str::to_owned));
    }

    fn warn(&mut self, problem: String) {
        self.warnings.push(problem);
    }
}

/// Tries the steps of a start in their order: processors, addresses, account, access log, routes, certificates, Redis.
/// As root it switches to the account for good, as a start does, to find files that the account cannot read.
pub fn check(settings: &Settings) -> Findings {
    let mut findings = Findings::default();
    if let Err(fault) = affinity::choose(settings) {
        findings.fault(fault);
    }
    let encrypted = settings.tls.iter().flat_map(|tls| &tls.listeners).map(|listener| listener.address);
    for address in settings.listeners.iter().copied().chain(encrypted) {
        check_address(address, &mut findings);
    }
    if let Some(Bind::Unix(path)) = &settings.admin.bind
        && let Err(error) = check_file(path)
    {
        findings.warn(format!("admin.bind: making {}: {error}; a start would have no admin service", path.display()));
    }
    check_log(&settings.access_log, &mut findings);
    for (path, name) in [(&settings.pid_file, "server.pidFile"), (snapshot(settings), "server.snapshot")] {
        if let Some(path) = path
            && let Err(error) = check_file(path)
        {
            findings.fault(format!("{name}: writing {}: {error}", path.display()));
        }
    }
    if let Err(fault) = Account::find(settings).and_then(Account::take_on) {
        findings.fault(fault);
    }
    match &settings.directory.source {
        Source::File(path) => {
            if let Err(error) = read_routes(path) {
                findings.fault(error);
            }
        }
        Source::Redis(settings) => check_redis(settings, &mut findings),
        Source::Nothing => {}
    }
    match super::haproxy::read(settings) {
        Ok(readings) => {
            readings
                .iter()
                .flat_map(super::haproxy::Reading::addresses)
                .for_each(|address| check_address(address, &mut findings));
        }
        Err(error) => findings.fault(error),
    }
    if let Some(Err(problem)) = settings.tls.as_ref().map(|tls| TlsServerContext::new(&tls.server)) {
        findings.fault(format!("https: {problem}"));
    }
    if let Err(problem) = BackendTls::new(&settings.backend_tls.settings) {
        findings.warn(format!("server.backendTls: {problem}; backends of https:// cannot be used"));
    }
    // Faults of pages are logged, and other pages replace them.
    drop(Pages::load(&settings.page));
    findings
}

fn snapshot(settings: &Settings) -> &Option<std::path::PathBuf> {
    match &settings.directory.source {
        Source::File(_) | Source::Nothing => &None,
        Source::Redis(settings) => &settings.snapshot,
    }
}

fn check_address(address: SocketAddr, findings: &mut Findings) {
    match Listener::probe(address).and_then(|()| Listener::bind(address)) {
        Ok(_) => {}
        // Before an upgrade, the running process uses the address of the configuration being checked.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            findings
                .warn(format!("{address}: a program listens there already; a start would fail, an upgrade would not"));
        }
        Err(error) => findings.fault(super::Error::Listen(address, error)),
    }
}

fn check_log(target: &Target, findings: &mut Findings) {
    if let Target::File(path) = target
        && let Err(error) = check_file(path)
    {
        findings.fault(format!("server.accessLog: opening {}: {error}", path.display()));
    }
}

/// Whether a file can be written, or created in its folder.
fn check_file(path: &Path) -> io::Result<()> {
    let is_socket = path.metadata().is_ok_and(|found| found.file_type().is_socket());
    if path.exists() && !is_socket {
        return OpenOptions::new().append(true).open(path).map(drop);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(Into::into)
}

/// A start waits for an unreachable Redis, so that is a warning.
fn check_redis(settings: &redis::Settings, findings: &mut Findings) {
    let write = Some(&settings.write).filter(|write| **write != settings.read);
    for target in [Some(&settings.read), write].into_iter().flatten() {
        if let Err(error) = redis::connect(target) {
            findings.warn(format!("driver: connecting to {target}: {error}; until it is there, no host has a route"));
        }
    }
}
