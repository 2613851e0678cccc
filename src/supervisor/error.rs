//! Errors that keep the process from serving.

use super::{affinity, privileges};
use crate::directory;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// An error that keeps the process from serving, or ends it.
#[derive(Debug)]
pub enum Error {
    /// Listening on an address failed.
    Listen(SocketAddr, io::Error),
    /// Switching to the configured account failed.
    Privileges(privileges::Fault),
    /// A processor of `server.cpus` is not available.
    Cpus(affinity::Fault),
    /// A socket from the service manager cannot be used.
    Activation(io::Error),
    /// The service manager listens on an address that is not in the configuration.
    Unnamed(SocketAddr),
    /// The pid file could not be written.
    PidFile(PathBuf, io::Error),
    /// The routes could not be loaded.
    Directory(directory::Error),
    /// The HAProxy files are not usable; one line for each fault.
    Haproxy(Vec<String>),
    /// The access log could not be opened, or a thread or poll could not be made.
    System(&'static str, io::Error),
    /// The TLS settings are not usable.
    Tls(String),
    /// The predecessor does not hand over.
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
