//! Clients that change cores: what is idle, and tunnels, go from a worker that ends to the one that takes its place.
//!
//! Closing an idle connection would race with its client's next request, so it moves: the socket, the session of its
//! encryption, and a few words of state travel by mail. Requests are not moved in their midst: they end here, and then
//! their clients move.

use super::connection::{Client, Job, Link, Stream, Upstream};
use super::read_limit::ClientsLimit;
use super::{Again, Kind, Order, Owner, Worker};
use crate::base::buffer::Lent;
use crate::base::clock::Moment;
use crate::base::counters::Counter;
use crate::base::reason::Reason;
use crate::base::slots::Key;
use crate::base::wheel::Timer;
use crate::cluster::Backend;
use crate::exchange::{Exchange, Input};
use crate::net::mailbox::Post;
use crate::net::quota::Share;
use crate::net::transport::Transport;
use crate::wire::forwarded::Peer;
use crate::wire::proxy_header::Ends;
use crossbeam_channel::{Receiver, Sender};
use std::net::TcpStream;
use std::sync::Arc;

/// Who gets the clients of a worker that ends.
#[derive(Clone, Debug)]
pub enum Heir {
    /// Another worker of this process, which takes all that can move: where it finds them, and how it is told.
    Worker(Landing, Post<Order>),
    /// Somebody outside, who takes what [`Passenger::into_plain`] gives something for.
    Outside(Sender<Vec<Passenger>>),
}

/// Where clients arrive who move to a worker. It belongs to the worker's place and outlives the worker, as the listening
/// sockets do: so nobody is lost who arrives while one worker goes and the next one comes.
#[derive(Clone, Debug)]
pub struct Landing {
    arrivals: Sender<Vec<Passenger>>,
    waiting: Receiver<Vec<Passenger>>,
}

impl Default for Landing {
    fn default() -> Self {
        // There are never more of them than the workers have clients.
        let (arrivals, waiting) = crossbeam_channel::unbounded();
        Self { arrivals, waiting }
    }
}

impl Landing {
    /// Puts clients there. The worker is to be told ([`Order::Arrivals`]), if they are the first; `false` if others wait
    /// already, of whom it has been told.
    pub fn put(&self, passengers: Vec<Passenger>) -> bool {
        // Fails only where nobody can receive, and this is one who can.
        let _ = self.arrivals.send(passengers);
        // Looked at afterwards: if others are still there now, the worker has yet to find these behind them.
        self.waiting.len() <= 1
    }

    /// Sends everybody to another landing. Whether there was somebody.
    pub fn forward(&self, other: &Self) -> bool {
        self.waiting.try_iter().fold(false, |_, passengers| {
            other.put(passengers);
            true
        })
    }

    /// Whether nobody waits there.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// A client on its way to another worker. Dropping it closes its connection.
#[derive(Debug)]
pub struct Passenger {
    stream: Stream,
    peer: Peer,
    door: u32,
    served: u32,
    share: Option<Box<Share>>,
    is_shaking_hands: bool,
    awaits_header: bool,
    told: Option<Box<Ends>>,
    /// When it has been idle, or has shaken hands, for too long; `None` to begin anew.
    due: Option<Moment>,
    tunnel: Option<Box<Tunnel>>,
}

/// The other half of a client that is one end of a tunnel.
#[derive(Debug)]
struct Tunnel {
    exchange: Exchange,
    closing_client: bool,
    closing_upstream: bool,
    upstream: Stream,
    backend: Arc<Backend>,
    /// When it is ended because its backend has left the list.
    retire_at: Option<Moment>,
}

/// A client that is idle and not encrypted, and of which nothing is read that was not used: a socket and who it is.
#[derive(Debug)]
pub struct PlainClient {
    /// The connection, non-blocking.
    pub stream: TcpStream,
    /// Who it is.
    pub peer: Peer,
    /// How many answers it has had.
    pub served: u32,
    /// What a proxy has told of it.
    pub told: Option<Ends>,
}

impl Passenger {
    /// What another process can take on.
    pub fn into_plain(self) -> Option<PlainClient> {
        let is_idle = self.tunnel.is_none() && self.stream.unread.is_empty();
        let stream = self.stream.transport.into_plain().filter(|_| is_idle)?;
        Some(PlainClient { stream, peer: self.peer, served: self.served, told: self.told.map(|told| *told) })
    }

    /// Which buffers of its worker it holds.
    fn lent_buffers(&self) -> Lent {
        let of_tunnel = |tunnel: &Tunnel| tunnel.exchange.lent_buffers().and(tunnel.upstream.lent());
        self.stream.lent().and(self.tunnel.as_deref().map_or_else(Lent::default, of_tunnel))
    }
}

impl From<PlainClient> for Passenger {
    fn from(client: PlainClient) -> Self {
        let PlainClient { stream, peer, served, told } = client;
        let stream = Stream::new(Transport::accepted(mio::net::TcpStream::from_std(stream)));
        let told = told.map(Box::new);
        Self {
            stream,
            peer,
            door: 0,
            served,
            share: None,
            is_shaking_hands: false,
            awaits_header: false,
            told,
            due: None,
            tunnel: None,
        }
    }
}

impl Heir {
    /// Whether it takes this client as it is now. Its job, if it has one, is a tunnel.
    fn takes(&self, client: &Client) -> bool {
        match self {
            Self::Worker(..) => true,
            Self::Outside(_) => {
                let is_plain = !client.stream.transport.is_encrypted() && !client.awaits_header;
                client.job.is_none() && is_plain && client.stream.unread.is_empty()
            }
        }
    }

    /// Sends a client on that has come from outside. It is closed if nobody is there any more.
    pub fn pass_on(&self, client: PlainClient) {
        drop(self.send(vec![client.into()]));
    }

    /// Sends clients on their way. They come back if nobody is there any more.
    fn send(&self, passengers: Vec<Passenger>) -> Result<(), Vec<Passenger>> {
        match self {
            Self::Worker(landing, orders) => {
                let _ = landing.put(passengers);
                let _ = orders.send(Order::Arrivals);
                Ok(())
            }
            Self::Outside(sender) => sender.send(passengers).map_err(|returned| returned.0),
        }
    }
}

impl Worker {
    /// Sends those to the heir who have become ready to move in this turn.
    pub(super) fn send_movers(&mut self) {
        let Some(leave) = &mut self.leave else { return };
        let Some(heir) = leave.heir.clone() else { return };
        let (mut passengers, movers) = (Vec::new(), std::mem::take(&mut leave.movers));
        for key in movers {
            match self.pack(key, &heir) {
                Some(passenger) => passengers.push(passenger),
                None => self.greet_again(key),
            }
        }
        if !passengers.is_empty()
            && let Err(passengers) = heir.send(passengers)
        {
            log::warn!(
                "worker {}: there is nobody to hand over to; its clients stay until they have ended",
                self.number
            );
            self.adopt(passengers);
            self.begin_to_leave(None);
        }
    }

    /// Whether a client's next request is the last one here: it was sent before the answer to the one before, so that the
    /// client may never be idle, and another process takes no other.
    pub(super) fn is_to_part(&self, client: Key) -> bool {
        let heir = self.leave.as_ref().and_then(|leave| leave.heir.as_ref());
        let is_ahead = || self.clients.get(client).is_some_and(|client| !client.stream.unread.is_empty());
        matches!(heir, Some(Heir::Outside(_))) && is_ahead()
    }

    /// Takes a client out of this worker, if it can move now.
    fn pack(&mut self, key: Key, heir: &Heir) -> Option<Passenger> {
        let client = self.clients.get(key)?;
        let is_waiting = client.stream.transport.wanted_name().is_some() || client.is_lingering;
        if is_waiting || !heir.takes(client) || client.job.is_some_and(|job| self.tunnel_upstream(job).is_none()) {
            return None;
        }
        let tunnel = client.job.and_then(|job| self.pack_tunnel(job));
        let mut client = self.clients.remove(key)?;
        self.unwatch(&mut client.stream);
        let due = client.timer.deadline();
        self.timers.remove(&mut client.timer);
        if client.is_shaking_hands {
            self.leave_lobby();
        }
        let Client { stream, peer, door, served, share, is_shaking_hands, awaits_header, told, .. } = client;
        let due = Some(due);
        let passenger =
            Passenger { stream, peer, door, served, share, is_shaking_hands, awaits_header, told, due, tunnel };
        self.core.buffers.part_with(passenger.lent_buffers());
        Some(passenger)
    }

    /// The connection to the backend of an exchange that is a tunnel.
    fn tunnel_upstream(&self, job: Key) -> Option<Key> {
        match self.jobs.get(job)?.link {
            Link::Upstream(key) => self.upstreams.get(key).is_some_and(|upstream| upstream.is_tunnel).then_some(key),
            _ => None,
        }
    }

    fn pack_tunnel(&mut self, job_key: Key) -> Option<Box<Tunnel>> {
        let upstream = self.tunnel_upstream(job_key)?;
        let Upstream { mut stream, backend, .. } = self.upstreams.remove(upstream)?;
        self.unwatch(&mut stream);
        let Job { exchange, closing_client, closing_upstream, .. } = self.jobs.remove(job_key)?;
        let retire_at = self.retiring.forget(job_key);
        Some(Box::new(Tunnel { exchange, closing_client, closing_upstream, upstream: stream, backend, retire_at }))
    }

    fn unwatch(&self, stream: &mut Stream) {
        if let Err(error) = stream.transport.deregister(self.poll.registry()) {
            log::warn!("worker {}: leaving a connection to another worker: {error}", self.number);
        }
    }

    /// Takes on who has arrived; a worker that has an heir leaves them to it.
    #[cold]
    pub(super) fn receive_arrivals(&mut self) {
        if self.landing.is_empty() {
            return;
        }
        if let Some(Heir::Worker(_, orders)) = self.leave.as_ref().and_then(|leave| leave.heir.as_ref()) {
            let _ = orders.send(Order::Arrivals);
            return;
        }
        while let Ok(passengers) = self.landing.waiting.try_recv() {
            self.adopt(passengers);
        }
    }

    /// Takes clients on that another worker had.
    fn adopt(&mut self, passengers: Vec<Passenger>) {
        for passenger in passengers {
            self.counters.count(Counter::Moved);
            self.core.buffers.welcome(passenger.lent_buffers());
            let Passenger { stream, peer, door, served, share, is_shaking_hands, awaits_header, told, due, tunnel } =
                passenger;
            // One that comes from another process has a share there; here it is let in even where none is left. Who has
            // none in this one is not limited.
            let share = match share {
                None if due.is_none() => self.admit(peer.address).ok().flatten(),
                share => share,
            };
            let timers = &mut self.timers;
            let due = due.unwrap_or(self.core.now + self.settings.idle_timeout);
            let key = self.clients.insert_with(|key| {
                let timer = timers.insert(Owner::Client(key));
                let (job, idle_since) = (None, Moment::NEVER);
                let is_watched = false;
                Client {
                    stream,
                    peer,
                    timer,
                    job,
                    idle_since,
                    served,
                    read_limit: ClientsLimit::default(),
                    share,
                    door,
                    is_shaking_hands,
                    awaits_header,
                    is_watched,
                    is_lingering: false,
                    told,
                }
            });
            if is_shaking_hands {
                self.enter_lobby(key);
            }
            let Some(client) = self.clients.get_mut(key) else { continue };
            self.timers.set(&mut client.timer, due);
            let job = tunnel.map(|tunnel| self.unpack_tunnel(key, *tunnel));
            self.watch_client(key);
            match job {
                Some(job) => self.settle(job),
                // What was read before it moved is told by no poll.
                None => {
                    self.again.push(Again::Greet(key));
                    self.note_idle(key);
                }
            }
            self.leave_too(key);
        }
    }

    fn unpack_tunnel(&mut self, client_key: Key, tunnel: Tunnel) -> Key {
        let Tunnel { exchange, closing_client, closing_upstream, upstream: stream, backend, retire_at } = tunnel;
        let job = self.jobs.insert(Job {
            exchange,
            client: client_key,
            link: Link::None,
            closing_client,
            closing_upstream,
            read_limit: ClientsLimit::default().into(),
            upload_to: None,
            is_staged: false,
        });
        if let Some(client) = self.clients.get_mut(client_key) {
            client.job = Some(job);
        }
        let sent_before = stream.transport.sent();
        let upstream = self.upstreams.insert(Upstream {
            stream,
            backend,
            job: Some(job),
            idle_since: Moment::NEVER,
            timer: Timer::DEAD,
            dial: None,
            sent_before,
            is_tunnel: true,
        });
        if let Some(job) = self.jobs.get_mut(job) {
            job.link = Link::Upstream(upstream);
        }
        if let Some(moment) = retire_at {
            self.retiring.expect(job, moment);
        }
        // The news of a departure may have found it on its way.
        self.note_departures();
        let token = Kind::Upstream.token(upstream.pack());
        let registry = self.poll.registry();
        let watched =
            self.upstreams.get_mut(upstream).map(|upstream| upstream.stream.transport.register(registry, token));
        if let Some(Err(error)) = watched {
            log::warn!("worker {}: watching a connection: {error}", self.number);
            self.tell(job, Input::Abort(Reason::NoSocket));
        }
        job
    }
}
