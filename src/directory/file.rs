//! Routes from a file, which is read as a whole, and read again when it changes.

use super::catalog::Clusters;
use super::certificates;
use super::dns::DnsResolver;
use super::parse;
use super::table::{Changes, FrontendRecords, Table};
use super::watch::{Watch, Watching};
use super::{Error, Lookup, LookupResult, RequestChannels, RouteEvent, SourceCommand, Subscribers};
use crate::base::clock::Clock;
use crossbeam_channel::{Sender, select};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// A larger file is refused: it is not a routes file, or has a fault that would exhaust the memory.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Reads the file, which must be valid at the start, and serves it in its own thread until the command to stop. A file
/// that becomes invalid later changes nothing.
pub(super) fn start(
    path: &Path,
    channels: RequestChannels,
    subscribers: Subscribers,
    resolver: DnsResolver,
    (clock, clusters): (Clock, Clusters),
) -> Result<JoinHandle<()>, Error> {
    // The watch starts first, so that an edit during the read is not missed.
    let watch = Watch::new(path);
    let certificates = channels.certificates.clone();
    let mut routes = Routes { path: path.to_owned(), table: Table::new(clusters), certificates, clock };
    routes.reload()?;
    let commands = channels.own_commands.clone();
    let on_change = move || {
        // If the queue is full, it holds a pending reload.
        let _ = commands.try_send(SourceCommand::Reload);
    };
    let watching = match watch.and_then(|watch| watch.start(on_change)) {
        Ok(watching) => Some(watching),
        Err(error) => {
            log::warn!("watching {}: {error}; edits are read at SIGHUP only", path.display());
            None
        }
    };
    let server = FileSource { routes, subscribers, resolver, _watching: watching };
    let thread = std::thread::Builder::new().name("directory".to_owned());
    thread.spawn(move || server.run(&channels)).map_err(|error| Error::Thread(Arc::new(error)))
}

/// The directory's thread.
struct FileSource {
    routes: Routes,
    subscribers: Subscribers,
    resolver: DnsResolver,
    _watching: Option<Watching>,
}

impl FileSource {
    fn run(mut self, channels: &RequestChannels) {
        loop {
            select! {
                recv(channels.lookups) -> lookup => match lookup {
                    Ok(lookup) => self.reply(lookup),
                    // All clients of the directory are gone.
                    Err(_) => return,
                },
                recv(channels.commands) -> command => match command {
                    Ok(SourceCommand::Reload) => self.reload(),
                    // It fails only if the caller no longer waits.
                    Ok(SourceCommand::Flush(host, answer)) => drop(answer.send(self.flush(host))),
                    // The next process reads the file itself.
                    Ok(SourceCommand::Retire | SourceCommand::Export(_) | SourceCommand::Confirm(..)) => {}
                    Ok(SourceCommand::Stop) | Err(_) => return,
                },
            }
        }
    }

    fn reply(&mut self, Lookup { core, host, .. }: Lookup) {
        let result = match self.routes.table.look_up(&host, self.routes.clock.now()) {
            Some(route) => LookupResult::Found(route),
            None => LookupResult::Unknown,
        };
        self.resolve_names();
        self.subscribers.tell(core, RouteEvent::LookedUp { host, result, keep: true });
    }

    /// Reads the file again on behalf of a host. Returns whether the host is in use.
    fn flush(&mut self, host: Arc<str>) -> bool {
        let is_in_use = self.routes.table.contains(&host);
        if is_in_use {
            self.reload();
            self.subscribers.tell_all(&RouteEvent::Changed { hosts: Arc::new([host]), unknowns: false });
        }
        is_in_use
    }

    fn reload(&mut self) {
        match self.routes.reload() {
            Ok(changes) => {
                self.resolve_names();
                if !changes.hosts.is_empty() || changes.unknowns {
                    let Changes { hosts, unknowns } = changes;
                    self.subscribers.tell_all(&RouteEvent::Changed { hosts: hosts.into(), unknowns });
                }
            }
            Err(error) => {
                for line in error.to_string().lines() {
                    log::error!("{line}");
                }
                log::error!("the routes stay as they were");
            }
        }
    }

    fn resolve_names(&mut self) {
        for backend in self.routes.table.take_unresolved() {
            self.resolver.add(&backend);
        }
    }
}

/// The file and the content last read from it.
struct Routes {
    path: PathBuf,
    table: Table,
    /// The certificate service.
    certificates: Sender<certificates::CertificateCommand>,
    clock: Clock,
}

impl Routes {
    /// Reads the file again. An error changes nothing.
    fn reload(&mut self) -> Result<Changes, Error> {
        let routes = read_routes(&self.path)?;
        let changes = self.table.replace(routes.records, self.clock.now());
        // The certificate service reads its commands promptly, and ends after this thread.
        let _ = self.certificates.send(certificates::CertificateCommand::Replace(routes.certificates));
        let (patterns, hosts) = (self.table.len(), changes.hosts.len());
        log::info!("{}: {patterns} patterns, which changes {hosts} hosts in use", self.path.display());
        Ok(changes)
    }
}

/// Reads the lists of a routes file; warnings are logged.
pub(super) fn read_records(path: &Path) -> Result<FrontendRecords, Error> {
    read_routes(path).map(|routes| routes.records)
}

fn read_routes(path: &Path) -> Result<parse::Routes, Error> {
    let unreadable = |error| Error::Unreadable { path: path.to_owned(), error: Arc::new(error) };
    let bad = |faults| Error::Bad { path: path.to_owned(), faults: Arc::new(faults) };
    let folder = path.parent().unwrap_or(Path::new(""));
    let routes = parse::parse(&read(path).map_err(unreadable)?, folder).map_err(bad)?;
    for warning in &routes.warnings {
        log::warn!("{}: {warning}", path.display());
    }
    Ok(routes)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let refuse = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    // Reading a pipe would block the thread, so the type is checked before opening.
    if !std::fs::metadata(path)?.is_file() {
        return refuse("it is no regular file");
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return refuse("it is larger than 1 GiB");
    }
    Ok(bytes)
}
