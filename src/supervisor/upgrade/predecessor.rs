//! The predecessor: the process that started this one, and hands over its sockets and idle clients.

use super::PREDECESSOR;
use super::channel::{HandoffChannel, Heard};
use super::known::Known;
use super::message::Message;
use super::objects;
use super::running::{self, ArrivingBatch, arrived};
use crate::cache::store::Store;
use crate::directory::Inherited;
use crate::exchange::PORTABLE_VERSION;
use crate::net::listener::Listener;
use crate::worker::PortableClient;
use nix::unistd::getppid;
use std::env;
use std::fs::File;
use std::io::{self, stdin};
use std::net::TcpListener;
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
    objects: Option<io::Result<UnixStream>>,
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
            channel.map_err(|error| format!("{PREDECESSOR} is set, but standard input is not a channel: {error}"))?;
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
            (Message::Begin { pid, sockets }, _) if pid == self.pid => sockets,
            (other, _) => return Err(format!("the predecessor sent {other:?} in place of Begin")),
        };
        let mut listeners = Vec::new();
        for _ in 0..sockets {
            let missing = || format!("the predecessor did not hand over all of {sockets} sockets");
            let (Message::Socket { address }, mut files) = self.hear(Some(PATIENCE))? else { return Err(missing()) };
            let file = files.pop().ok_or_else(missing)?;
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
        let ready = Message::Ready { pid: process::id() };
        let takes = Message::TakesExchanges { version: PORTABLE_VERSION };
        let told = if running::are_known() { self.channel.say(&takes) } else { Ok(()) };
        let asked = told.and_then(|()| self.channel.say(&ready));
        let heard =
            asked.map_err(|error| format!("sending to the predecessor: {error}")).and_then(|()| self.hear(None));
        match heard {
            Ok((Message::Go, _)) => Ok(true),
            Ok((other, _)) => Err(format!("the predecessor sent {other:?} in place of Go")),
            Err(_) if self.has_ended() => Ok(false),
            Err(why) => Err(why),
        }
    }

    /// Receives clients in its own thread, which passes them to `take`, and `None` after the last one.
    pub(in crate::supervisor) fn follow(
        &self,
        take: impl Fn(Option<PortableClient>) + Send + 'static,
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

    fn take_clients(&self, take: &impl Fn(Option<PortableClient>)) {
        let (pid, mut taken, mut lost) = (self.pid, 0_u64, 0_u64);
        let (mut batch, mut running) = (ArrivingBatch::default(), 0);
        loop {
            match self.channel.hear(None) {
                Ok(Heard::Message(Message::Client(client), mut files)) => {
                    let file = files.pop().ok_or_else(|| io::ErrorKind::InvalidData.into());
                    match file.and_then(|file| arrived(client, file)) {
                        Ok(client) => {
                            taken += 1;
                            take(Some(client));
                        }
                        Err(error) => {
                            lost += 1;
                            log::warn!("upgrade: taking over a connection: {error}");
                        }
                    }
                }
                Ok(Heard::Message(Message::Running(client), files)) => note_refusal(batch.begin(client, files)),
                Ok(Heard::Bytes(bytes)) => note_refusal(batch.add_bytes(&bytes)),
                Ok(Heard::Message(Message::Confirm { batch: number }, _)) => {
                    let (places, clients) = batch.finish();
                    running += clients.len();
                    // They belong to this process only if the message was sent, or if no other process has them any more.
                    match self.channel.say(&Message::Taken { batch: number, places }) {
                        Err(error) if !self.has_ended() => {
                            return log::warn!("upgrade: taking over connections of process {pid}: {error}");
                        }
                        _ => clients.into_iter().for_each(|client| take(Some(client))),
                    }
                }
                // The next one may arrive.
                Ok(Heard::Spoilt(why)) => {
                    lost += 1;
                    log::warn!("upgrade: a connection did not arrive from process {pid}: {why}");
                }
                Ok(Heard::Message(Message::End { clients }, _)) => {
                    lost = lost.max(clients.saturating_sub(taken));
                    return log::info!(
                        "upgrade: process {pid} has ended; {taken} idle connections were taken over, {lost} lost; \
                         {running} with a tunnel or a response under way were taken over"
                    );
                }
                Ok(Heard::Message(other, _)) => {
                    return log::warn!("upgrade: process {pid} said {other:?} after {taken} connections");
                }
                Ok(Heard::End) => {
                    return log::warn!(
                        "upgrade: process {pid} has ended without notice; {taken} connections were taken over"
                    );
                }
                Err(why) => return log::warn!("upgrade: process {pid}: {why}; {taken} connections were taken over"),
            }
        }
    }

    fn hear(&self, patience: Option<Duration>) -> Result<(Message, Vec<OwnedFd>), String> {
        match self.channel.hear(patience) {
            Ok(Heard::Message(message, files)) => Ok((message, files)),
            Ok(Heard::Bytes(_)) => Err("the predecessor sent bytes of no connection".to_owned()),
            Ok(Heard::End) => Err("the predecessor has cancelled the upgrade, or has ended".to_owned()),
            Ok(Heard::Spoilt(why)) | Err(why) => Err(format!("receiving from the predecessor: {why}")),
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

/// Logs why a client with an exchange stays with the predecessor.
fn note_refusal(arrived: io::Result<()>) {
    if let Err(error) = arrived {
        log::warn!("upgrade: a connection with an exchange stays where it is: {error}");
    }
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
    use crate::exchange::PortableExchange;
    use crate::supervisor::upgrade::message::{Client, Running};
    use std::net::TcpStream;
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
        let client = |served| {
            Message::Client(Client { address: [10, 0, 0, 1].into(), local_port: 80, served, told: None, tls: None })
        };
        for served in 0..3 {
            near.pass(&client(served), &[stream.as_fd()]).expect("a client");
            // It arrives without a file, as in a process that cannot open any more.
            near.lose_file(&client(9));
            near.pass(&client(served), &[File::open("/dev/null").expect("a file").as_fd()]).expect("no socket at all");
        }
        for expected in 0..3 {
            let client = taken.recv().expect("a word").expect("a client");
            assert_eq!(client.served, expected);
        }
        predecessor_link.say_serving();
        assert!(matches!(near.hear(None), Ok(Heard::Message(Message::Serving, _))), "it listens still");
        near.say(&Message::End { clients: 9 }).expect("the end");
        assert!(taken.recv().expect("a word").is_none());
        assert!(
            matches!(near.hear(None), Ok(Heard::End)),
            "the other process learns that no process takes clients now"
        );
    }

    /// A batch that was sent whole belongs to the predecessor until it learns what was taken, unless it ends before.
    #[test]
    fn clients_of_a_predecessor_that_has_ended_are_taken() {
        let parent = getppid().as_raw().unsigned_abs();
        for (pid, expected) in [(parent, 0), (parent + 1, 1)] {
            let (near, far) = HandoffChannel::open().expect("a line");
            let channel = HandoffChannel::from_end(far).expect("its other end");
            let predecessor = Predecessor { channel, pid, known: Known::default(), objects: None };
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
            let client = Client { address: [10, 0, 0, 1].into(), local_port: 80, served: 0, told: None, tls: None };
            let (state, lengths) = (PortableExchange::sample(), [0; 5]);
            let running = Message::Running(Box::new(Running {
                place: 0,
                client,
                upstream_session: None,
                closing: [false; 2],
                lengths,
                state,
            }));
            near.pass(&running, &[stream.as_fd(), stream.as_fd()]).expect("a client");
            near.say(&Message::Confirm { batch: 1 }).expect("the end of the batch");
            near.hang_up();
            let (out, taken) = mpsc::channel();
            predecessor.take_clients(&|client: Option<PortableClient>| out.send(client).expect("a receiver"));
            drop(out);
            assert_eq!(taken.iter().count(), expected);
        }
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
