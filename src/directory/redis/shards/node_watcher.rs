//! The thread that watches one master: its writes, and its view of the cluster.

use super::super::address::Address;
use super::super::connect;
use super::super::connection::{Connection, DEADLINE};
use super::super::reports;
use super::super::target::Target;
use super::super::{Event, Pause, Stop};
use super::nodes::View;
use super::topology::ShardEvent;
use crate::base::clock::Clock;
use crossbeam_channel::Sender;
use redis::{ErrorKind, ProtocolVersion, RedisError, RedisResult, Value, cmd};
use std::time::Duration;

/// The interval at which the view is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Sessions of a thread are numbered from its own number times this.
const MAX_SESSIONS: u64 = 1 << 32;

/// The watching thread of a master.
pub(in crate::directory::redis) struct NodeWatcher {
    pub(in crate::directory::redis) target: Target,
    pub(in crate::directory::redis) address: Address,
    /// The number of the thread.
    pub(in crate::directory::redis) number: u64,
    pub(in crate::directory::redis) events: Sender<Event>,
    pub(in crate::directory::redis) stop: Stop,
    pub(in crate::directory::redis) clock: Clock,
}

impl NodeWatcher {
    /// Watches until it is stopped. With `waits`, the first attempt is made after a while.
    pub(in crate::directory::redis) fn run(self, waits: bool) {
        let mut pause = Pause::default();
        if waits && self.stop.wait(LOOK_EVERY) {
            return;
        }
        for session in self.number * MAX_SESSIONS.. {
            let (problem, is_replica) = match self.watch(session, &mut pause) {
                Ok(()) => ("it is a replica".to_owned(), true),
                Err(error) => (error.to_string(), false),
            };
            let lost = ShardEvent::Lost { watch: self.number, address: self.address.clone(), problem, is_replica };
            if self.stop.is_set() || self.events.send(Event::Shard(lost)).is_err() || pause.wait(&self.stop) {
                return;
            }
        }
    }

    /// Watches until the connection fails. Returns if the server is a replica, which reports the writes of its master
    /// late, or if the thread is stopped.
    fn watch(&self, session: u64, pause: &mut Pause) -> RedisResult<()> {
        let mut connection = connect::open_at(&self.target, &self.address, ProtocolVersion::RESP3)?;
        let identity = connect::identify(&mut connection)?;
        reports::track(&mut connection, &self.target)?;
        let Some(view) = self.read_view(&connection.ask(&nodes())?)? else { return Ok(()) };
        connection.set_patience(LOOK_EVERY)?;
        pause.reset();
        let (watch, address) = (self.number, self.address.clone());
        self.send(ShardEvent::Linked { watch, session, address, view: view.clone(), identity })?;
        self.hear(&mut connection, session, view)
    }

    /// Forwards reports until the connection fails.
    fn hear(&self, connection: &mut Connection, session: u64, mut view: View) -> RedisResult<()> {
        let mut asked_at = None;
        let mut next = self.clock.now() + LOOK_EVERY;
        while !self.stop.is_set() {
            let now = self.clock.now();
            match asked_at {
                Some(asked) if asked + DEADLINE <= now => return Err(fault("it does not reply")),
                None if next <= now => {
                    connection.send(&nodes().get_packed_command())?;
                    (asked_at, next) = (Some(now), now + LOOK_EVERY);
                }
                _ => {}
            }
            match connection.receive()? {
                Some(Value::Push { kind, data }) => {
                    let changed = reports::changed_keys(&self.target, &kind, &data);
                    if !changed.is_empty() {
                        self.events.send(Event::ChangedKey(changed)).map_err(|_| fault("the directory has ended"))?;
                    }
                }
                Some(reply) => {
                    asked_at = None;
                    let Some(seen) = self.read_view(&reply.extract_error()?)? else { return Ok(()) };
                    if seen != view {
                        view = seen.clone();
                        self.send(ShardEvent::Viewed { session, view: seen })?;
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    /// The view of the server; `None` if it is a replica.
    fn read_view(&self, reply: &Value) -> RedisResult<Option<View>> {
        let text: String = redis::from_redis_value_ref(reply)?;
        let view = View::parse(&text, &self.address, self.target.is_encrypted());
        match view.own() {
            Some(own) if own.is_master => Ok(Some(view)),
            Some(_) => Ok(None),
            None => Err(fault("it does not name itself in CLUSTER NODES")),
        }
    }

    fn send(&self, event: ShardEvent) -> RedisResult<()> {
        self.events.send(Event::Shard(event)).map_err(|_| fault("the directory has ended"))
    }
}

fn nodes() -> redis::Cmd {
    cmd("CLUSTER").arg("NODES").clone()
}

fn fault(problem: &'static str) -> RedisError {
    (ErrorKind::Io, problem).into()
}
