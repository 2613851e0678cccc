//! The successor: started, given the sockets, waited for, and at last given the clients.

use super::PREDECESSOR;
use super::channel::{HandoffChannel, Heard};
use super::known::Known;
use super::message::Message;
use super::objects::{self, ObjectSender};
use super::passing::{Passing, Reply};
use super::running;
use crate::base::clock::Clock;
use crate::base::node_mark::{self, node_mark};
use crate::cache::store::Store;
use crate::directory::Directory;
use crate::exchange::PORTABLE_VERSION;
use crate::net::listener::Listener;
use crate::worker::{Departure, DrainTarget, OutsideTarget};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::convert::Infallible;
use std::env;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::{self, Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The limit from the permission to serve until the successor reports that it serves.
const SERVING_PATIENCE: Duration = Duration::from_secs(10);

/// The number of errors after which the channel is not read any more.
const MOST_ERRORS: u32 = 3;

/// Events of a successor.
#[derive(Debug)]
pub(in crate::supervisor) enum SuccessorEvent {
    /// It serves.
    Serves {
        /// Its process id.
        pid: u32,
    },
    /// The upgrade failed and has had no effect.
    Failed(String),
    /// It has served, and accepts no clients any more: it has ended, or does not read.
    Gone,
    /// It was told to reopen the access log, and this process has to do the same.
    ReopenLog,
}

/// A successor, starting or serving.
#[derive(Debug)]
pub(in crate::supervisor) struct Successor {
    channel: HandoffChannel,
    clients: Sender<Departure>,
    /// Whether it takes clients with an exchange.
    takes_running: Arc<AtomicBool>,
    commit_point: CommitPoint,
    thread: JoinHandle<()>,
    /// It disconnects when the thread ends.
    is_over: Receiver<Infallible>,
}

/// The point after which the upgrade can no longer be cancelled, or no longer continue: the first of both counts.
type CommitPoint = Arc<OnceLock<Turn>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The successor may serve.
    Go,
    /// It is cancelled.
    Back,
}

impl Successor {
    /// Starts the program again with this process's arguments, and a thread that brings it to the point of serving.
    /// `tell` reports the events; none follows a failure.
    pub(super) fn start(
        sockets: Vec<(SocketAddr, Listener)>,
        (directory, cache): (&Directory, Option<&Arc<Store>>),
        timeout: Duration,
        tell: impl Fn(SuccessorEvent) + Clone + Send + 'static,
    ) -> Result<Self, String> {
        let (channel, end) =
            HandoffChannel::open().map_err(|error| format!("making a channel to the new process: {error}"))?;
        let own = channel.try_clone().map_err(|error| format!("copying the channel to the new process: {error}"))?;
        let mut arguments = env::args_os();
        // The name is used as given: a path leads to the file that is there now, a plain name is searched along PATH
        // again.
        let program = arguments.next().ok_or("this process does not know how it was started")?;
        let mut command = Command::new(&program);
        command.args(arguments).env(PREDECESSOR, process::id().to_string()).stdin(end);
        command.env(node_mark::VARIABLE, node_mark()).env(running::VARIABLE, PORTABLE_VERSION.to_string());
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            command.env_remove(name);
        }
        let known = Known::create();
        known.announce(&mut command);
        let (objects, far) = objects::open(cache, &mut command).unzip();
        let child = command.spawn().map_err(|error| format!("starting {}: {error}", program.display()))?;
        // The child's copy of the other end must be the only one, or this process would not notice the child's death.
        drop((command, far));
        log::info!("upgrade: process {} starts", child.id());
        let (clients, clients_in) = crossbeam_channel::unbounded();
        let commit_point = CommitPoint::default();
        let takes_running = Arc::<AtomicBool>::default();
        let task = UpgradeTask {
            channel: own,
            child,
            sockets,
            known,
            objects,
            directory: directory.clone(),
            timeout,
            clients: clients_in,
            takes_running: Arc::clone(&takes_running),
            commit_point: Arc::clone(&commit_point),
        };
        let (lives, is_over) = crossbeam_channel::bounded(0);
        let run = move || {
            let _lives = lives;
            task.run(&tell);
        };
        let thread = thread::Builder::new().name("upgrade".into()).spawn(run);
        let thread = thread.map_err(|error| format!("starting a thread for an upgrade: {error}"))?;
        Ok(Self { channel, clients, takes_running, commit_point, thread, is_over })
    }

    /// Cancels it, unless it may serve already.
    pub(super) fn give_up(&self) {
        if self.commit_point.set(Turn::Back).is_ok() {
            self.channel.hang_up();
        }
    }

    /// The drain target for clients.
    pub(super) fn drain_target(&self) -> DrainTarget {
        let takes_running = self.takes_running.load(Ordering::Relaxed);
        DrainTarget::Outside(OutsideTarget { sender: self.clients.clone(), takes_running })
    }

    /// Announces that no clients follow: by a message, because stuck workers may hold the sending end for ever. The
    /// result disconnects when all clients have moved.
    pub(super) fn say_end(&self) -> &Receiver<Infallible> {
        // It fails if there is no receiver.
        let _ = self.clients.send(Departure::End);
        &self.is_over
    }

    /// Waits until it is complete, but no longer than `patience`.
    pub(super) fn finish(self, patience: Duration) {
        if self.is_over.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            return log::warn!("upgrade: the new process does not accept clients; the wait ends");
        }
        if self.thread.join().is_err() {
            log::error!("the thread of the upgrade had panicked");
        }
    }
}

/// The thread that accompanies the successor.
struct UpgradeTask {
    channel: HandoffChannel,
    child: Child,
    sockets: Vec<(SocketAddr, Listener)>,
    known: Known,
    objects: Option<ObjectSender>,
    directory: Directory,
    timeout: Duration,
    clients: Receiver<Departure>,
    takes_running: Arc<AtomicBool>,
    commit_point: CommitPoint,
}

impl UpgradeTask {
    fn run(mut self, tell: &(impl Fn(SuccessorEvent) + Clone + Send + 'static)) {
        if let Err(why) = self.install() {
            // It may have ended, which is the aim.
            let _ = self.child.kill();
            let _ = self.child.wait();
            return tell(SuccessorEvent::Failed(why));
        }
        // The process has its own handles.
        self.sockets.clear();
        self.known = Known::default();
        let (begin, replies) = self.listen(tell.clone());
        tell(SuccessorEvent::Serves { pid: self.child.id() });
        drop(begin);
        let sending = self.objects.take().and_then(ObjectSender::start);
        if Passing::new(&self.channel, replies).run(&self.clients).is_err() {
            // The event precedes the close of the workers' channel: they hand over clients while it is open.
            tell(SuccessorEvent::Gone);
            // What waits there returns to its workers.
            self.clients = crossbeam_channel::never();
        }
        if let Some(sending) = sending {
            sending.finish();
        }
    }

    /// Brings it to the point of serving.
    fn install(&mut self) -> Result<(), String> {
        let clock = Clock::new();
        let deadline = clock.now() + self.timeout;
        // If a send fails, the next receive gives the reason.
        self.known.fill(&self.directory);
        let handed_over = self.hand_over_sockets();
        let pid = self.child.id();
        self.await_message(&Message::Ready { pid }, deadline.since(clock.now()))?;
        if self.commit_point.set(Turn::Go).is_err() {
            return Err(self.end_reason());
        }
        let told = handed_over.and_then(|()| self.channel.say(&Message::Go));
        told.map_err(|error| format!("sending to the new process: {error}"))?;
        // It serves already, or is about to: however late it became ready, it has time to report that.
        self.await_message(&Message::Serving, SERVING_PATIENCE)
    }

    fn hand_over_sockets(&self) -> io::Result<()> {
        self.channel.say(&Message::Begin { pid: process::id(), sockets: self.sockets.len() })?;
        let mut sockets = self.sockets.iter();
        sockets.try_for_each(|(address, socket)| {
            self.channel.pass(&Message::Socket { address: *address }, &[socket.as_fd()])
        })
    }

    fn await_message(&mut self, expected: &Message, patience: Duration) -> Result<(), String> {
        match self.channel.hear(Some(patience)) {
            Ok(Heard::Message(event, _)) if event == *expected => Ok(()),
            Ok(Heard::Message(Message::TakesExchanges { version: PORTABLE_VERSION }, _)) => {
                self.takes_running.store(true, Ordering::Relaxed);
                self.await_message(expected, patience)
            }
            Ok(Heard::Message(Message::Failed { why }, _)) => Err(why),
            Ok(Heard::Message(other, _)) => Err(format!("the new process sent {other:?} in place of {expected:?}")),
            Ok(Heard::End) => Err(self.end_reason()),
            Ok(Heard::Bytes(_)) => Err("the new process sent bytes".to_owned()),
            Ok(Heard::Spoilt(why)) | Err(why) => {
                Err(format!("waiting for {expected:?} from the new process, up to server.upgradeTimeout: {why}"))
            }
        }
    }

    /// Why the channel was closed.
    fn end_reason(&mut self) -> String {
        // If this process has shut the channel down, the new one is alive.
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) if status.code().is_some() => {
                format!("the new process ended before it served ({status}); its reason is in the log")
            }
            Ok(status) => format!("the new process was ended before it served ({status})"),
            Err(error) => format!("waiting for the new process: {error}"),
        }
    }

    /// Makes the thread that receives the later messages of the successor, once the result is dropped. Without it no client
    /// with an exchange is handed over, since the outcome would stay unknown.
    fn listen(&self, tell: impl Fn(SuccessorEvent) + Send + 'static) -> (Option<Sender<Infallible>>, Receiver<Reply>) {
        let (out, replies) = crossbeam_channel::unbounded();
        let (begin, begins) = crossbeam_channel::bounded(0);
        let started = self.channel.try_clone().and_then(|channel| {
            let listen = move || {
                // It disconnects.
                let _ = begins.recv();
                hear_all(&channel, &out, &tell);
                drop(out);
                tell(SuccessorEvent::Gone);
            };
            thread::Builder::new().name("successor".into()).spawn(listen)
        });
        match started {
            Ok(_) => (Some(begin), replies),
            Err(error) => {
                self.takes_running.store(false, Ordering::Relaxed);
                log::warn!("upgrade: listening to the new process: {error}; tunnels and responses under way stay here");
                (None, replies)
            }
        }
    }
}

/// Receives messages until the channel ends, so that nothing follows the last reply.
pub(super) fn hear_all(channel: &HandoffChannel, out: &Sender<Reply>, tell: &impl Fn(SuccessorEvent)) {
    let mut errors = 0;
    loop {
        match channel.hear(None) {
            Ok(Heard::Message(Message::ReopenLog, _)) => tell(SuccessorEvent::ReopenLog),
            // It fails if no more clients are handed over.
            Ok(Heard::Message(Message::Taken { batch, places }, _)) => drop(out.send(Reply::Taken(batch, places))),
            Ok(Heard::Message(..) | Heard::Bytes(_) | Heard::Spoilt(_)) => {}
            Ok(Heard::End) => return,
            Err(why) => {
                log::warn!("upgrade: listening to the new process: {why}");
                // The new process can take no more, and what it has said before can still be received.
                channel.hang_up();
                errors += 1;
                if errors == MOST_ERRORS {
                    let _ = out.send(Reply::Lost);
                    return;
                }
            }
        }
    }
}
