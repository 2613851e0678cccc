//! The predecessor: the process that started this one, and hands over its sockets and idle clients.

use super::PREDECESSOR;
use super::channel::{HandoffChannel, Heard};
use super::known::Known;
use super::message::{Client, Message};
use super::objects;
use crate::cache::store::Store;
use crate::directory::Inherited;
use crate::net::listener::Listener;
use crate::wire::forwarded::Peer;
use crate::wire::proxy_protocol::ProxyAddresses;
use crate::worker::PlainClient;
use nix::unistd::getppid;
use std::env;
use std::fs::File;
use std::io::{self, stdin};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The limit of the hand-over of sockets.
const PATIENCE: Duration = Duration::from_secs(10);

/// The time after which the children of an ended process have another parent.
const BREATH: Duration = Duration::from_millis(5);
const LAST_BREATHS: usize = 200;

/// The process that started this one to be its successor.
#[derive(Debug)]
pub struct Predecessor {
    channel: HandoffChannel,
    pid: u32,
    known: Known,
    objects: Option<UnixStream>,
}

impl Predecessor {
    /// Finds the predecessor, if there is one. To be called once, at the start.
    pub fn find() -> Result<Option<Self>, String> {
        let Some(pid) = env::var_os(PREDECESSOR) else { return Ok(None) };
        let parent = getppid().as_raw().unsigned_abs();
        if pid.to_str().and_then(|pid| pid.parse().ok()) != Some(parent) {
            // Another ancestor was started as a successor.
            return Ok(None);
        }
        let channel = take_standard_input().and_then(HandoffChannel::from_end);
        let channel =
            channel.map_err(|error| format!("{PREDECESSOR} is set, but standard input is no line: {error}"))?;
        Ok(Some(Self { channel, pid: parent, known: Known::take(), objects: objects::take() }))
    }

    /// Its process id.
    pub(in crate::supervisor) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its data. They are read after its sockets have arrived: the files are incomplete before.
    pub(in crate::supervisor) fn known(&self) -> Inherited {
        self.known.inherit()
    }

    /// Stores the objects of its cache, in its own thread, as they arrive. Objects purged from now on are left out.
    pub(in crate::supervisor) fn take_objects(&mut self, store: &Arc<Store>) {
        if let Some(stream) = self.objects.take() {
            objects::receive(stream, store);
        }
    }

    /// Reports to it that this process will not replace it.
    pub fn refuse(&self, why: &str) {
        // A predecessor that has ended need not know.
        let _ = self.channel.say(&Message::Failed { why: why.to_owned() });
    }

    /// Takes over its listening sockets.
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

    /// Whether it has ended. A predecessor that has only closed the channel has cancelled the upgrade.
    #[expect(
        clippy::disallowed_methods,
        reason = "nothing tells that a parent has ended but that there is another one"
    )]
    pub(in crate::supervisor) fn has_ended(&self) -> bool {
        let is_orphan = || getppid().as_raw().unsigned_abs() != self.pid;
        // If it has died, its end of the channel was closed a moment before its children got another parent.
        self.channel.is_dead()
            && (0..LAST_BREATHS).any(|_| {
                let has_ended = is_orphan();
                if !has_ended {
                    thread::sleep(BREATH);
                }
                has_ended
            })
    }

    /// Whether it has closed the channel, or ended.
    pub(in crate::supervisor) fn is_silent(&self) -> bool {
        self.channel.is_dead()
    }

    /// Reports that everything is loaded, and waits for permission to serve. `false` if the predecessor has ended: no
    /// permission is needed then.
    pub(in crate::supervisor) fn ask_leave(&self) -> Result<bool, String> {
        let asked = self.channel.say(&Message::Ready { pid: process::id() });
        let heard =
            asked.map_err(|error| format!("talking to the process before: {error}")).and_then(|()| self.hear(None));
        match heard {
            Ok((Message::Go, _)) => Ok(true),
            Ok((other, _)) => Err(format!("the process before said {other:?}, not whether to serve")),
            Err(_) if self.has_ended() => Ok(false),
            Err(why) => Err(why),
        }
    }

    /// Receives clients in its own thread, which passes them to `take`, and `None` after the last one.
    pub(in crate::supervisor) fn follow(
        &self,
        take: impl Fn(Option<PlainClient>) + Send + 'static,
    ) -> io::Result<PredecessorLink> {
        let (channel, pid) = (self.channel.try_clone()?, self.pid);
        let clients = Self { channel: self.channel.try_clone()?, pid, known: Known::default(), objects: None };
        thread::Builder::new().name("predecessor".into()).spawn(move || {
            clients.take_clients(&take);
            // It may send no more, and has to know it: its clients would be lost.
            clients.channel.hang_up();
            take(None);
        })?;
        Ok(PredecessorLink { channel, pid })
    }

    fn take_clients(&self, take: &impl Fn(Option<PlainClient>)) {
        let (pid, mut taken, mut lost) = (self.pid, 0_u64, 0_u64);
        loop {
            match self.channel.hear(None) {
                Ok(Heard::Message(Message::Client(client), Some(file))) => match plain(client, file) {
                    Ok(client) => {
                        taken += 1;
                        take(Some(client));
                    }
                    Err(error) => {
                        lost += 1;
                        log::warn!("upgrade: taking over a connection: {error}");
                    }
                },
                // The next one may arrive.
                Ok(Heard::Spoilt(why)) => {
                    lost += 1;
                    log::warn!("upgrade: a connection is lost on its way from process {pid}: {why}");
                }
                Ok(Heard::Message(Message::End { clients }, _)) => {
                    lost = lost.max(clients.saturating_sub(taken));
                    return log::info!(
                        "upgrade: process {pid} has ended; {taken} idle connections were taken over, {lost} lost"
                    );
                }
                Ok(Heard::Message(other, _)) => {
                    return log::warn!("upgrade: process {pid} said {other:?} after {taken} connections");
                }
                Ok(Heard::End) => {
                    return log::warn!(
                        "upgrade: process {pid} has gone without a word; {taken} connections were taken over"
                    );
                }
                Err(why) => return log::warn!("upgrade: process {pid}: {why}; {taken} connections were taken over"),
            }
        }
    }

    fn hear(&self, patience: Option<Duration>) -> Result<(Message, Option<OwnedFd>), String> {
        match self.channel.hear(patience) {
            Ok(Heard::Message(message, file)) => Ok((message, file)),
            Ok(Heard::End) => Err("the process before has given the upgrade up, or has ended".to_owned()),
            Ok(Heard::Spoilt(why)) | Err(why) => Err(format!("hearing from the process before: {why}")),
        }
    }
}

/// A predecessor that finishes its requests.
#[derive(Debug)]
pub(in crate::supervisor) struct PredecessorLink {
    channel: HandoffChannel,
    pid: u32,
}

impl PredecessorLink {
    /// Reports that connections are accepted.
    pub(in crate::supervisor) fn say_serving(&self) {
        if let Err(error) = self.channel.say(&Message::Serving) {
            log::warn!("upgrade: telling process {} that this one serves: {error}", self.pid);
        }
    }

    /// Makes it reopen the access log.
    pub(in crate::supervisor) fn reopen_log(&self) {
        // It may have ended.
        let _ = self.channel.say(&Message::ReopenLog);
    }

    /// Accepts no more clients from it: it has to close them.
    pub(in crate::supervisor) fn hang_up(&self) {
        self.channel.hang_up();
    }
}

fn plain(client: Client, file: OwnedFd) -> io::Result<PlainClient> {
    let stream = TcpStream::from(file);
    // The call fails if it is not a socket.
    stream.set_nonblocking(true)?;
    stream.nodelay()?;
    let Client { address, local_port, served, told } = client;
    let peer = Peer { address, local_port, secure: false, tls: None };
    let told = told.map(|(source, destination)| ProxyAddresses::new(source, destination));
    Ok(PlainClient { stream, peer, served, told })
}

/// Takes standard input, which is replaced by an empty one.
fn take_standard_input() -> io::Result<OwnedFd> {
    let input = stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_connection_that_is_lost_on_its_way_costs_no_other() {
        let (near, far) = HandoffChannel::open().expect("a line");
        let channel = HandoffChannel::from_end(far).expect("its other end");
        let (out, taken) = mpsc::channel();
        let predecessor = Predecessor { channel, pid: 1, known: Known::default(), objects: None };
        let predecessor_link =
            predecessor.follow(move |client| out.send(client).expect("a receiver")).expect("a thread");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let client =
            |served| Message::Client(Client { address: [10, 0, 0, 1].into(), local_port: 80, served, told: None });
        for served in 0..3 {
            near.pass(&client(served), stream.as_fd()).expect("a client");
            // It arrives without a file, as in a process that cannot open any more.
            near.lose_file(&client(9));
            near.pass(&client(served), File::open("/dev/null").expect("a file").as_fd()).expect("no socket at all");
        }
        for expected in 0..3 {
            let client = taken.recv().expect("a word").expect("a client");
            assert_eq!(client.served, expected);
        }
        predecessor_link.say_serving();
        assert!(matches!(near.hear(None), Ok(Heard::Message(Message::Serving, None))), "it listens still");
        near.say(&Message::End { clients: 9 }).expect("the end");
        assert!(taken.recv().expect("a word").is_none());
        assert!(
            matches!(near.hear(None), Ok(Heard::End)),
            "the other process learns that no process takes clients now"
        );
    }

    #[test]
    fn one_that_hangs_up_has_not_ended() {
        let (near, far) = HandoffChannel::open().expect("a line");
        let channel = HandoffChannel::from_end(far).expect("its other end");
        let parent = getppid().as_raw().unsigned_abs();
        let predecessor = Predecessor { channel, pid: parent, known: Known::default(), objects: None };
        assert!(!predecessor.is_silent() && !predecessor.has_ended());
        near.hang_up();
        assert!(predecessor.is_silent() && !predecessor.has_ended());
        assert!(predecessor.ask_leave().is_err(), "it lives, and gives no leave");
        let of_another = Predecessor { pid: parent + 1, ..predecessor };
        assert!(of_another.has_ended());
        assert_eq!(of_another.ask_leave(), Ok(false));
    }
}
