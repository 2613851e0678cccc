//! Clients on their way to the successor: idle ones, and batches of clients with an exchange. A batch belongs to its worker until
//! the successor has named the clients that it has taken.
//!
//! Several batches are in transit at a time, so the clients of one worker do not wait for the reply to another's. A client is
//! paused for [`TAKEN_PATIENCE`] at most: after that the successor is given up, and all batches return.

use super::channel::HandoffChannel;
use super::message::{Client, ClientTls, Message, Running};
use crate::base::clock::{Clock, Moment};
use crate::net::tls::PortableSession;
use crate::wire::forwarded::Peer;
use crate::wire::proxy_protocol::ProxyAddresses;
use crate::worker::{DepartingBatch, Departure, MigratingConnection};
use crossbeam_channel::{Receiver, never, select};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// The time limit of the reply with the accepted clients of a batch, from the moment at which they left their worker. They are
/// paused meanwhile.
const TAKEN_PATIENCE: Duration = Duration::from_secs(10);

/// A message about batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The clients at these places of the batch were taken.
    Taken(u64, Vec<u32>),
    /// Messages may have been lost: any client of a batch may have been taken.
    Lost,
}

/// The hand-over of all clients.
pub(super) struct Passing<'c> {
    channel: &'c HandoffChannel,
    /// It disconnects when the channel has ended and all earlier messages were delivered.
    replies: Receiver<Reply>,
    clock: Clock,
    patience: Duration,
    batches: u64,
    /// The batches without a reply, and when that is overdue.
    unsettled: BTreeMap<u64, (DepartingBatch, Moment)>,
    idle: u64,
    running: usize,
    refused: usize,
}

impl<'c> Passing<'c> {
    pub(super) fn new(channel: &'c HandoffChannel, replies: Receiver<Reply>) -> Self {
        Self {
            channel,
            replies,
            clock: Clock::new(),
            patience: TAKEN_PATIENCE,
            batches: 0,
            unsettled: BTreeMap::new(),
            idle: 0,
            running: 0,
            refused: 0,
        }
    }

    /// Hands clients over until the end is announced. After an error the channel has ended, and the clients that were not
    /// taken have returned to their workers.
    pub(super) fn run(mut self, clients: &Receiver<Departure>) -> io::Result<()> {
        if let Err(error) = self.pass_all(clients) {
            self.break_off();
            let Self { idle, running, .. } = self;
            log::warn!(
                "upgrade: only {idle} idle connections and {running} with a tunnel or a response in progress were handed \
                 over: {error}; idle ones in transit are closed"
            );
            return Err(error);
        }
        let Self { idle, running, refused, .. } = self;
        let end = Message::End { clients: idle };
        // The last limit may be nearly over.
        if self.channel.set_send_patience(self.patience).and_then(|()| self.channel.say(&end)).is_ok() {
            log::info!(
                "upgrade: {idle} idle connections and {running} with a tunnel or a response in progress were handed over; \
                 {refused} of the latter were not accepted"
            );
        }
        Ok(())
    }

    fn pass_all(&mut self, clients: &Receiver<Departure>) -> io::Result<()> {
        let (mut clients, mut replies) = (clients.clone(), self.replies.clone());
        let mut has_ended = false;
        while !(has_ended && self.unsettled.is_empty()) {
            let patience = self.first_due().since(self.clock.now()).min(self.patience);
            select! {
                recv(clients) -> departure => match departure {
                    Ok(Departure::Idle(clients)) => self.pass_idle(clients)?,
                    Ok(Departure::Running(batch)) => self.pass_running(batch)?,
                    Ok(Departure::End) | Err(_) => (has_ended, clients) = (true, never()),
                },
                recv(replies) -> reply => match reply {
                    Ok(reply) => self.settle(reply),
                    Err(_) if self.unsettled.is_empty() => replies = never(),
                    Err(_) => return Err(io::ErrorKind::BrokenPipe.into()),
                },
                default(patience) => {}
            }
            self.check_patience()?;
        }
        Ok(())
    }

    fn pass_idle(&mut self, clients: Vec<MigratingConnection>) -> io::Result<()> {
        let due = self.clock.now() + self.patience;
        for client in clients.into_iter().filter_map(MigratingConnection::into_portable) {
            let session = client.session.as_ref();
            let message = client_message(&client.peer, session, client.served, client.told.as_ref());
            self.limit_send(due)?;
            self.channel.pass(&Message::Client(message), &[client.stream.as_fd()])?;
            self.idle += 1;
        }
        Ok(())
    }

    /// Sends clients with an exchange. Also after an error the batch is settled by [`Passing::break_off`], since the other
    /// process has handles of its sockets until the channel ends.
    fn pass_running(&mut self, batch: DepartingBatch) -> io::Result<()> {
        self.batches += 1;
        let number = self.batches;
        let due = self.clock.now() + self.patience.saturating_sub(batch.age());
        self.unsettled.insert(number, (batch, due));
        let Some((batch, _)) = self.unsettled.get(&number) else { return Ok(()) };
        for (place, client) in (0..).zip(batch.clients()) {
            let [session, upstream_session] = client.sessions;
            let message = Message::Running(Box::new(Running {
                place,
                client: client_message(client.peer, session, client.served, client.told),
                upstream_session: upstream_session.cloned(),
                closing: client.closing,
                lengths: client.bytes.parts().map(|part| part.len()),
                state: client.state.clone(),
            }));
            self.limit_send(due)?;
            self.channel.pass(&message, &client.sockets)?;
            self.channel.pass_bytes(client.bytes.parts().into_iter().copied())?;
        }
        self.limit_send(due)?;
        self.channel.say(&Message::Confirm { batch: number })
    }

    /// Limits the next sends by this moment, and by the patience of the batches in transit.
    fn limit_send(&self, due: Moment) -> io::Result<()> {
        let left = self.first_due().min(due).since(self.clock.now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the new process takes no clients"));
        }
        self.channel.set_send_patience(left)
    }

    fn first_due(&self) -> Moment {
        self.unsettled.values().map(|(_, due)| *due).min().unwrap_or(Moment::NEVER)
    }

    fn check_patience(&self) -> io::Result<()> {
        if self.first_due() <= self.clock.now() {
            let problem = "the new process does not say which connections it has taken";
            return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
        }
        Ok(())
    }

    fn settle(&mut self, reply: Reply) {
        match reply {
            Reply::Taken(number, places) => {
                let Some((batch, _)) = self.unsettled.remove(&number) else { return };
                self.running += places.len();
                self.refused += batch.clients().count().saturating_sub(places.len());
                batch.settle(&places);
            }
            // A client that both processes serve gets wrong bytes: it is better closed by both.
            Reply::Lost => {
                for (batch, _) in std::mem::take(&mut self.unsettled).into_values() {
                    let count = u32::try_from(batch.clients().count()).unwrap_or(u32::MAX);
                    batch.settle(&Vec::from_iter(0..count));
                }
            }
        }
    }

    /// Ends the channel, so that the other process takes no more. It may have taken clients until then, and the messages about
    /// them precede the end. The other clients return.
    fn break_off(&mut self) {
        self.channel.hang_up();
        let replies = self.replies.clone();
        replies.iter().for_each(|reply| self.settle(reply));
        self.unsettled.clear();
    }
}

fn client_message(
    peer: &Peer,
    session: Option<&PortableSession>,
    served: u32,
    told: Option<&ProxyAddresses>,
) -> Client {
    let told = told.map(|ends| (ends.source, ends.destination));
    let tls = session.map(|session| ClientTls::new(session.clone(), peer.tls.as_deref()));
    Client { address: peer.address, local_port: peer.local_port, served, told, tls }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::PortableExchange;
    use crate::supervisor::upgrade::channel::Heard;
    use crate::supervisor::upgrade::successor::hear_all;
    use crate::worker::{ForeignExchange, HandoffQueue, PortableClient, RunningBytes};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    const SOON: Option<Duration> = Some(Duration::from_secs(10));

    /// Two clients with tunnels, which return to this queue.
    fn batch(home: &HandoffQueue) -> DepartingBatch {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let connect = || TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let client = || PortableClient {
            stream: connect(),
            session: None,
            peer: Peer { address: [10, 0, 0, 1].into(), local_port: 80, secure: false, tls: None },
            served: 0,
            told: None,
            exchange: Some(Box::new(ForeignExchange {
                upstream: connect(),
                upstream_session: None,
                state: PortableExchange::sample(),
                closing: [false; 2],
                bytes: RunningBytes { log_fields: b"\n\n\n\n\n\n".to_vec(), ..RunningBytes::default() },
            })),
        };
        DepartingBatch::of(vec![client(), client()], home)
    }

    /// Receives all of a batch.
    fn confirmed(far: &HandoffChannel) -> u64 {
        loop {
            match far.hear(SOON).expect("a message") {
                Heard::Message(Message::Confirm { batch }, _) => return batch,
                Heard::Message(Message::Running(_), _) | Heard::Bytes(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn batches_do_not_wait_for_one_another() {
        let ((near, far), home) = (HandoffChannel::ends(), HandoffQueue::default());
        let (out, clients) = crossbeam_channel::unbounded();
        let (replies_out, replies) = crossbeam_channel::unbounded();
        thread::scope(|scope| {
            let (far, home) = (&far, &home);
            let passing = scope.spawn(|| Passing::new(&near, replies).run(&clients));
            (0..2).for_each(|_| out.send(Departure::Running(batch(home))).expect("a receiver"));
            assert_eq!([confirmed(far), confirmed(far)], [1, 2]);
            out.send(Departure::End).expect("a receiver");
            replies_out.send(Reply::Taken(2, vec![0])).expect("a receiver");
            replies_out.send(Reply::Taken(1, vec![0, 1])).expect("a receiver");
            assert!(passing.join().expect("no panic").is_ok());
            assert!(matches!(far.hear(SOON), Ok(Heard::Message(Message::End { clients: 0 }, _))));
        });
        assert_eq!(home.take_all(), 1, "only the one that was not taken returns");
    }

    /// The channel ends before the clients return: otherwise both processes could serve them.
    #[test]
    fn clients_return_from_a_process_that_does_not_answer() {
        let ((near, far), home) = (HandoffChannel::ends(), HandoffQueue::default());
        let (out, clients) = crossbeam_channel::unbounded();
        let (replies_out, replies) = crossbeam_channel::unbounded();
        thread::scope(|scope| {
            let channel = near.try_clone().expect("another handle");
            scope.spawn(move || hear_all(&channel, &replies_out, &|_| ()));
            (0..2).for_each(|_| out.send(Departure::Running(batch(&home))).expect("a receiver"));
            let passing = Passing { patience: Duration::from_millis(100), ..Passing::new(&near, replies) };
            let error = passing.run(&clients).expect_err("no reply came");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
        // The second batch waits in the channel of the workers until that is closed.
        assert!(home.take_all() >= 2);
        drop((out, clients));
        let taken = Message::Taken { batch: 1, places: vec![0] };
        assert!(far.say(&taken).is_err(), "nothing can be taken any more");
    }

    #[test]
    fn what_was_taken_before_the_end_does_not_return() {
        let ((near, far), home) = (HandoffChannel::ends(), HandoffQueue::default());
        let (replies_out, replies) = crossbeam_channel::unbounded();
        let mut passing = Passing::new(&near, replies);
        passing.pass_running(batch(&home)).expect("room");
        passing.pass_running(batch(&home)).expect("room");
        assert_eq!([confirmed(&far), confirmed(&far)], [1, 2]);
        far.say(&Message::Taken { batch: 1, places: vec![1] }).expect("a message");
        thread::scope(|scope| {
            let channel = near.try_clone().expect("another handle");
            scope.spawn(move || hear_all(&channel, &replies_out, &|_| ()));
            passing.break_off();
        });
        assert_eq!((passing.running, passing.refused, home.take_all()), (1, 1, 3));
    }

    /// If the messages cannot be read, a client may be served by the other process: it is closed, and not served twice.
    #[test]
    fn clients_of_unreadable_replies_are_not_served_twice() {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
        let ((near, _far), home) = (HandoffChannel::ends(), HandoffQueue::default());
        let (out, replies) = crossbeam_channel::unbounded();
        let mut passing = Passing::new(&near, replies);
        passing.pass_running(batch(&home)).expect("room");
        // It is connected to nothing.
        let broken = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        hear_all(&HandoffChannel::from_end(broken.expect("a socket")).expect("a channel"), &out, &|_| ());
        drop(out);
        passing.break_off();
        assert_eq!(home.take_all(), 0);
    }
}
