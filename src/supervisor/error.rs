//! Why the process cannot serve.

use super::{affinity, privileges};
use crate::directory;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why the process cannot serve, or no longer.
#[derive(Debug)]
pub enum Error {
    /// An address could not be listened on.
    Listen(SocketAddr, io::Error),
    /// The account to run as could not be taken on.
    Privileges(privileges::Fault),
    /// A processor of `server.cpus` is not there.
    Cpus(affinity::Fault),
    /// A socket from the service manager cannot be listened on.
    Activation(io::Error),
    /// The service manager listens on an address that the configuration does not have.
    Unnamed(SocketAddr),
    /// The number of the process could not be written.
    PidFile(PathBuf, io::Error),
    /// The routes could not be had.
    Directory(directory::Error),
    /// HAProxy's files cannot be taken, a line a fault.
    Haproxy(Vec<String>),
    /// The access log could not be opened, or a thread or poll not be made.
    System(&'static str, io::Error),
    /// The TLS settings cannot be satisfied.
    Tls(String),
    /// The process before this one does not hand over.
    Predecessor(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => {
                write!(f, "listening on {address}: {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => f.write_str("; another program has this address"),
                    io::ErrorKind::PermissionDenied => f.write_str("; ports below 1024 need root"),
                    _ => Ok(()),
                }
            }
            Self::Privileges(fault) => fault.fmt(f),
            Self::Cpus(fault) => fault.fmt(f),
            Self::Activation(error) => write!(f, "sockets of the service manager: {error}"),
            Self::Unnamed(address) => write!(
                f,
                "the service manager listens on {address}, which is no address of http.bind or https.bind: name it there, \
                 or take it out of the unit"
            ),
            Self::PidFile(path, error) => write!(f, "server.pidFile: writing {}: {error}", path.display()),
            Self::Directory(error) => error.fmt(f),
            Self::Haproxy(faults) => f.write_str(&faults.join("\n")),
            Self::Tls(problem) => write!(f, "https: {problem}"),
            Self::Predecessor(why) => write!(f, "upgrade: {why}"),
            Self::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    pub(super) fn pid_file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |error| Self::PidFile(path.to_owned(), error)
    }
}
