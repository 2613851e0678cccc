//! Lines to a daemon of the system: each line is a message to a UNIX socket.

use super::Target;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process;

/// The facility "daemon" and the severity "informational" (RFC 5424 section 6.2.1).
const FACILITY: u8 = 3;
const SEVERITY: u8 = 6;

/// The name in messages.
const NAME: &str = "sluice";

/// The message format of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// `<priority>name[process]: line`, without a time, since the daemon adds its own.
    Syslog,
    /// Fields, one a line. Source: systemd's "Native Journal Protocol".
    Journald,
}

/// Messages for a daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    protocol: Protocol,
    message: Vec<u8>,
}

/// Connects a socket to the daemon at this path.
pub(super) fn connect(path: &Path) -> io::Result<File> {
    let connected = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.connect(path)?;
        Ok(File::from(OwnedFd::from(socket)))
    });
    connected.map_err(|error| {
        let path = path.display();
        io::Error::new(error.kind(), format!("connecting to {path} for the access log (server.accessLog): {error}"))
    })
}

impl Daemon {
    /// The daemon of a target and its path, if the target is one.
    pub(super) fn of(target: &Target) -> Option<(Self, &Path)> {
        let (protocol, path) = match target {
            Target::Syslog(path) => (Protocol::Syslog, path),
            Target::Journald(path) => (Protocol::Journald, path),
            Target::Off | Target::Stdout | Target::File(_) => return None,
        };
        Some((Self { protocol, message: Vec::new() }, path))
    }

    /// Sends the first line of `lines`. Returns the number of bytes sent.
    pub(super) fn send(&mut self, mut socket: &File, lines: &[u8]) -> io::Result<usize> {
        let end = memchr::memchr(b'\n', lines).unwrap_or(lines.len());
        let message = &mut self.message;
        message.clear();
        match self.protocol {
            Protocol::Syslog => write!(message, "<{}>{NAME}[{}]: ", FACILITY * 8 + SEVERITY, process::id())?,
            Protocol::Journald => {
                write!(message, "PRIORITY={SEVERITY}\nSYSLOG_FACILITY={FACILITY}\nSYSLOG_IDENTIFIER={NAME}\nMESSAGE=")?
            }
        }
        message.extend_from_slice(&lines[..end]);
        if self.protocol == Protocol::Journald {
            message.push(b'\n');
        }
        // A message leaves as a whole or not at all.
        socket.write(message).map(|_| lines.len().min(end + 1))
    }
}
