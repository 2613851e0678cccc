//! The process whose place this one takes: it started this one, and hands over its sockets and idle clients.

use super::PREDECESSOR;
use super::line::{Heard, Line};
use super::message::{Client, Message};
use crate::net::listener::Listener;
use crate::wire::forwarded::Peer;
use crate::wire::proxy_header::Ends;
use crate::worker::PlainClient;
use nix::unistd::getppid;
use std::env;
use std::fs::File;
use std::io::{self, stdin};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::thread;
use std::time::Duration;

/// How long a predecessor may take to hand over its sockets.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process that started this one to be its successor.
#[derive(Debug)]
pub struct Predecessor {
    line: Line,
    pid: u32,
}

impl Predecessor {
    /// Finds out whether there is one. To be asked once, at the start.
    pub fn find() -> Result<Option<Self>, String> {
        let Some(pid) = env::var_os(PREDECESSOR) else { return Ok(None) };
        let parent = getppid().as_raw().unsigned_abs();
        if pid.to_str().and_then(|pid| pid.parse().ok()) != Some(parent) {
            // Somebody further up was started so.
            return Ok(None);
        }
        let line = take_standard_input().and_then(Line::from_end);
        let line = line.map_err(|error| format!("{PREDECESSOR} is set, but standard input is no line: {error}"))?;
        Ok(Some(Self { line, pid: parent }))
    }

    /// Its number.
    pub(in crate::supervisor) fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells it that this process will not succeed it.
    pub fn refuse(&self, why: &str) {
        // If it has gone, it need not know.
        let _ = self.line.say(&Message::Failed { why: why.to_owned() });
    }

    /// Takes its listening sockets over.
    pub(in crate::supervisor) fn sockets(&self) -> Result<Vec<Listener>, String> {
        let sockets = match self.hear(Some(PATIENCE))? {
            (Message::Begin { pid, sockets }, None) if pid == self.pid => sockets,
            (other, _) => return Err(format!("the process before said {other:?}, and was to begin")),
        };
        let mut listeners = Vec::new();
        for _ in 0..sockets {
            let (Message::Socket { address }, Some(file)) = self.hear(Some(PATIENCE))? else {
                return Err(format!("the process before was to hand over {sockets} sockets"));
            };
            let problem = |error| format!("taking over the socket of {address}: {error}");
            let listener = Listener::adopt(TcpListener::from(file)).map_err(problem)?;
            let here = listener.local_address().map_err(problem)?;
            if here != address {
                return Err(format!("the socket of {address} turned out to be that of {here}"));
            }
            listeners.push(listener);
        }
        Ok(listeners)
    }

    /// Says that everything is loaded, and waits for leave to serve.
    pub(in crate::supervisor) fn ask_leave(&self) -> Result<(), String> {
        let lost = |error| format!("talking to the process before: {error}");
        self.line.say(&Message::Ready { pid: process::id() }).map_err(lost)?;
        match self.hear(None)? {
            (Message::Go, _) => Ok(()),
            (other, _) => Err(format!("the process before said {other:?}, not whether to serve")),
        }
    }

    /// Says that connections are accepted, and takes clients over from then on, in a thread of its own.
    pub(in crate::supervisor) fn follow(self, adopt: impl Fn(PlainClient) + Send + 'static) -> io::Result<Elder> {
        let line = self.line.try_clone()?;
        self.line.say(&Message::Serving)?;
        thread::Builder::new().name("predecessor".into()).spawn(move || self.take_clients(&adopt))?;
        Ok(Elder { line })
    }

    fn take_clients(&self, adopt: &impl Fn(PlainClient)) {
        let mut taken = 0;
        loop {
            match self.hear(None) {
                Ok((Message::Client(client), Some(file))) => {
                    taken += 1;
                    match plain(client, file) {
                        Ok(client) => adopt(client),
                        Err(error) => log::warn!("taking over a connection: {error}"),
                    }
                }
                Ok((Message::End { clients }, _)) if clients == taken => {
                    return log::info!("process {} has ended; {taken} idle connections were taken over", self.pid);
                }
                Ok((other, _)) => {
                    return log::warn!("process {} said {other:?} after {taken} connections", self.pid);
                }
                Err(why) => return log::warn!("process {}: {why}; {taken} connections were taken over", self.pid),
            }
        }
    }

    fn hear(&self, patience: Option<Duration>) -> Result<(Message, Option<OwnedFd>), String> {
        match self.line.hear(patience) {
            Ok(Heard::Message(message, file)) => Ok((message, file)),
            Ok(Heard::End) => Err("the process before has given the upgrade up, or has ended".to_owned()),
            Err(why) => Err(format!("hearing from the process before: {why}")),
        }
    }
}

/// A predecessor that finishes what it has begun.
#[derive(Debug)]
pub(in crate::supervisor) struct Elder {
    line: Line,
}

impl Elder {
    /// Has it open the access log again.
    pub(in crate::supervisor) fn reopen_log(&self) {
        // It may have ended.
        let _ = self.line.say(&Message::ReopenLog);
    }
}

fn plain(client: Client, file: OwnedFd) -> io::Result<PlainClient> {
    let stream = TcpStream::from(file);
    // Asks the system whether it is one.
    stream.set_nonblocking(true)?;
    stream.nodelay()?;
    let Client { address, local_port, served, told } = client;
    let peer = Peer { address, local_port, secure: false, subject: None };
    let told = told.map(|(source, destination)| Ends::new(source, destination));
    Ok(PlainClient { stream, peer, served, told })
}

/// What standard input is; it is nothing from now on.
fn take_standard_input() -> io::Result<OwnedFd> {
    let input = stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(input)
}
