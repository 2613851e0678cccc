//! Messages that wake sleeping applications: one for a frontend, over all nodes and cores, and again after a while.
//!
//! The node whose `SET <prefix>wake:<pattern> NX PX` succeeds publishes the pattern on the channel `<prefix>sluice:wake`.

use super::link::{Link, parsed};
use super::target::Target;
use crate::base::clock::{Clock, Moment};
use crate::base::throttle::Throttle;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use redis::{RedisResult, Value, cmd};
use std::collections::HashMap;
use std::io;
use std::time::Duration;

/// How long a frontend has no other message.
const AGAIN: Duration = Duration::from_secs(10);
/// When a message that could not be published is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Frontends that are not yet read. More of them are dropped: each is named again by the next request.
const MAX_WAITING: usize = 1024;
/// How many failures are logged in ten seconds.
const MAX_LINES: u32 = 1;

/// A frontend whose requests find no backend.
pub(in crate::directory) struct Sleeper {
    /// The key of its list.
    pub(in crate::directory) key: Box<str>,
    /// Whether requests of it wait.
    pub(in crate::directory) has_waiters: Box<dyn Fn() -> bool + Send>,
}

/// Starts the thread. It ends when the sender is dropped.
pub(in crate::directory) fn start(target: &Target, clock: Clock) -> io::Result<Sender<Sleeper>> {
    let (sleepers, sleepers_in) = crossbeam_channel::bounded(MAX_WAITING);
    let waker = Waker {
        link: Link::new(target),
        target: target.clone(),
        clock,
        messages: Messages::default(),
        lines: Throttle::new(MAX_LINES),
    };
    std::thread::Builder::new().name("redis-wake".into()).spawn(move || waker.run(&sleepers_in))?;
    Ok(sleepers)
}

/// When each frontend has its next message.
#[derive(Default)]
struct Messages(HashMap<Box<str>, Message>);

struct Message {
    due: Moment,
    /// One was published, by this node or another one.
    is_told: bool,
    has_waiters: Box<dyn Fn() -> bool + Send>,
}

impl Messages {
    /// A request finds no backend: its frontend has a message at once, or when the next one is due.
    fn ask(&mut self, sleeper: Sleeper, now: Moment) {
        let Sleeper { key, has_waiters } = sleeper;
        let message =
            self.0.entry(key).or_insert_with(|| Message { due: now, is_told: false, has_waiters: Box::new(|| false) });
        message.has_waiters = has_waiters;
    }

    /// The frontends whose messages are due. A frontend that had one is among them as long as requests of it wait, and is
    /// forgotten otherwise.
    fn due(&mut self, now: Moment) -> Vec<Box<str>> {
        self.0.retain(|_, message| message.due > now || !message.is_told || (message.has_waiters)());
        self.0.iter().filter(|(_, message)| message.due <= now).map(|(key, _)| key.clone()).collect()
    }

    /// A message was published, or could not be.
    fn note(&mut self, key: &str, is_told: bool, now: Moment) {
        if let Some(message) = self.0.get_mut(key) {
            message.is_told |= is_told;
            message.due = now + if is_told { AGAIN } else { RETRY };
        }
    }

    fn next(&self) -> Option<Moment> {
        self.0.values().map(|message| message.due).min()
    }
}

struct Waker {
    link: Link,
    target: Target,
    clock: Clock,
    messages: Messages,
    lines: Throttle,
}

impl Waker {
    fn run(mut self, sleepers: &Receiver<Sleeper>) {
        loop {
            let now = self.clock.now();
            let patience = self.messages.next().map_or(Duration::MAX, |due| due.since(now));
            match sleepers.recv_timeout(patience) {
                Ok(sleeper) => self.messages.ask(sleeper, self.clock.now()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for key in self.messages.due(self.clock.now()) {
                self.tell(&key);
            }
        }
    }

    fn tell(&mut self, key: &str) {
        let outcome = self.publish(key);
        let now = self.clock.now();
        self.messages.note(key, outcome.is_ok(), now);
        match outcome {
            Ok(true) => log::info!("{key}: no backend serves, so a message that wakes one was published"),
            Ok(false) => {}
            Err(error) => {
                if self.lines.admit(now).is_some() {
                    log::warn!("{key}: publishing a message that wakes a backend at {}: {error}", self.target);
                }
            }
        }
    }

    /// Publishes the message, unless another node has. Returns whether this one did.
    fn publish(&mut self, pattern: &str) -> RedisResult<bool> {
        self.link.check_master()?;
        let key = self.link.key(&format!("wake:{pattern}"));
        let millis = AGAIN.as_millis() as u64;
        let set = self.link.ask(cmd("SET").arg(key).arg(1).arg("NX").arg("PX").arg(millis))?;
        if set == Value::Nil {
            return Ok(false);
        }
        let channel = self.link.key("sluice:wake");
        let _listeners: u64 = parsed(self.link.ask_once(cmd("PUBLISH").arg(channel).arg(pattern))?)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_frontend_has_a_message_again_while_requests_wait() {
        let waits = Arc::new(AtomicBool::new(true));
        let sleeper = || {
            let waits = Arc::clone(&waits);
            Sleeper { key: "a".into(), has_waiters: Box::new(move || waits.load(Ordering::Relaxed)) }
        };
        let (mut messages, start) = (Messages::default(), Moment::from_micros(1));
        messages.ask(sleeper(), start);
        assert_eq!(*messages.due(start), [Box::<str>::from("a")]);
        // Redis is away for a moment.
        messages.note("a", false, start);
        assert!(messages.due(start).is_empty());
        let told = start + RETRY;
        assert_eq!(*messages.due(told), [Box::<str>::from("a")]);
        messages.note("a", true, told);
        messages.ask(sleeper(), told);
        assert_eq!((messages.due(told).len(), messages.next()), (0, Some(told + AGAIN)));
        // No other request comes, and the one that waits is not forgotten.
        assert_eq!(*messages.due(told + AGAIN), [Box::<str>::from("a")]);
        messages.note("a", true, told + AGAIN);
        waits.store(false, Ordering::Relaxed);
        assert!(messages.due(told + 2 * AGAIN).is_empty());
        assert_eq!(messages.next(), None);
    }
}
