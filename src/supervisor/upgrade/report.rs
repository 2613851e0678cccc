//! The outcome of an upgrade for `sluice upgrade`: a datagram to an address that contains the process id (unix(7), the
//! abstract namespace). Without a waiting command none is sent.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt};
use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

/// Prefix of a report of success; the id of the new process follows.
const SERVES: &str = "serves ";
/// Prefix of a report of failure; the reason follows.
const FAILED: &str = "failed ";
/// The interval at which the command checks whether the process still exists.
const LOOK_EVERY: Duration = Duration::from_millis(200);

fn address(pid: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("sluice-upgrade-{pid}"))
}

/// Whether a command waits for this process's upgrade.
pub(super) fn is_awaited() -> bool {
    address(process::id())
        .and_then(|address| UnixDatagram::unbound().and_then(|socket| socket.connect_addr(&address)))
        .is_ok()
}

/// Sends the outcome to the command that waits for this process's upgrade.
pub(super) fn tell(outcome: Result<u32, &str>) {
    let text = match outcome {
        Ok(pid) => format!("{SERVES}{pid}"),
        Err(why) => format!("{FAILED}{why}"),
    };
    let told = address(process::id())
        .and_then(|address| UnixDatagram::unbound().and_then(|socket| socket.send_to_addr(text.as_bytes(), &address)));
    match told {
        Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => {
            log::debug!("upgrade: sending the outcome: {error}");
        }
        _ => {}
    }
}

/// Makes process `pid` upgrade itself, and waits until its successor serves. Returns the successor's id.
pub fn order(pid: u32) -> Result<u32, String> {
    let target = i32::try_from(pid).map_err(|_| format!("there can be no process {pid}"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|_| format!("there is no process {pid}"))?;
    // The signal would end a process that does not handle it.
    if !catches(&status, Signal::SIGUSR2) {
        return Err(format!("process {pid} does not wait for SIGUSR2: it is no sluice that serves"));
    }
    let socket =
        address(pid).and_then(|address| UnixDatagram::bind_addr(&address)).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => format!("another command waits for an upgrade of process {pid} already"),
            _ => format!("making a socket for the outcome: {error}"),
        })?;
    let waiting = |error| format!("waiting for the outcome: {error}");
    socket.set_read_timeout(Some(LOOK_EVERY)).map_err(waiting)?;
    sockopt::set_socket_passcred(&socket, true).map_err(|error| waiting(error.into()))?;
    kill(Pid::from_raw(target), Signal::SIGUSR2).map_err(|error| format!("sending process {pid} a signal: {error}"))?;
    loop {
        match receive(&socket).map_err(waiting)? {
            Some((sender, text)) if sender == target => return outcome(&text),
            // Any process can send a datagram here.
            Some(_) => {}
            None if fs::exists(format!("/proc/{pid}")).unwrap_or(false) => {}
            None => return Err(format!("process {pid} has ended without giving a reason")),
        }
    }
}

fn outcome(text: &str) -> Result<u32, String> {
    if let Some(pid) = text.strip_prefix(SERVES).and_then(|pid| pid.parse().ok()) {
        return Ok(pid);
    }
    Err(text.strip_prefix(FAILED).unwrap_or(text).to_owned())
}

/// The next datagram and the id of its sender as reported by the kernel; `None` if there is none yet.
fn receive(socket: &UnixDatagram) -> io::Result<Option<(i32, String)>> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::empty());
    let length = match received.map_err(io::Error::from) {
        Ok(received) => received.bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let sender = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid.as_raw_nonzero().get()),
        _ => None,
    });
    let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned();
    Ok(Some((sender.unwrap_or_default(), text)))
}

/// Whether a process of this `/proc/<pid>/status` handles a signal.
fn catches(status: &str, signal: Signal) -> bool {
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal as i32 - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_would_die_of_the_signal_gets_none() {
        assert!(!catches("Name:\tsluice\nSigCgt:\t0000000000004602\nCapInh:\t0\n", Signal::SIGUSR2));
        assert!(catches("SigCgt:\t0000000100000c00\n", Signal::SIGUSR2));
        assert!(!catches("SigCgt:\tx\n", Signal::SIGUSR2));
        // A test process does not handle the signal, and would not survive it.
        let refused = order(process::id()).expect_err("not this process");
        assert!(refused.contains("does not wait for SIGUSR2"), "{refused}");
        assert!(order(u32::MAX).is_err());
    }

    #[test]
    fn outcomes_are_parsed() {
        assert_eq!(outcome("serves 12"), Ok(12));
        assert_eq!(outcome("failed bad weather"), Err("bad weather".to_owned()));
        assert_eq!(outcome("serves"), Err("serves".to_owned()));
    }
}
