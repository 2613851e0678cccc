//! Messages that wake sleeping applications: one for a frontend, over all nodes and cores, and again after a while.
//!
//! The node whose `SET <prefix>wake:<pattern> NX PX` succeeds publishes the pattern on the channel `<prefix>sluice:wake`.

use super::link::{Link, parsed};
use super::target::Target;
use crate::base::clock::{Clock, Moment};
use crate::base::throttle::Throttle;
use crossbeam_channel::{Receiver, Sender};
use redis::{RedisResult, Value, cmd};
use std::collections::HashMap;
use std::io;
use std::time::Duration;

/// How long a frontend has no other message.
const AGAIN: Duration = Duration::from_secs(10);
/// Requests to publish that are not yet read. More of them are dropped: each is made again by the next request.
const MAX_WAITING: usize = 1024;
/// How many failures are logged in ten seconds.
const MAX_LINES: u32 = 1;

/// Starts the thread. It ends when the sender is dropped.
pub(in crate::directory) fn start(target: &Target, clock: Clock) -> io::Result<Sender<Box<str>>> {
    let (patterns, patterns_in) = crossbeam_channel::bounded(MAX_WAITING);
    let waker = Waker {
        link: Link::new(target),
        target: target.clone(),
        clock,
        told: HashMap::new(),
        lines: Throttle::new(MAX_LINES),
    };
    std::thread::Builder::new().name("redis-wake".into()).spawn(move || waker.run(&patterns_in))?;
    Ok(patterns)
}

struct Waker {
    link: Link,
    target: Target,
    clock: Clock,
    /// Until when a frontend has no other message, as far as this node knows.
    told: HashMap<Box<str>, Moment>,
    lines: Throttle,
}

impl Waker {
    fn run(mut self, patterns: &Receiver<Box<str>>) {
        for pattern in patterns {
            let now = self.clock.now();
            self.told.retain(|_, until| *until > now);
            if self.told.contains_key(&pattern) {
                continue;
            }
            match self.publish(&pattern) {
                Ok(is_first) => {
                    if is_first {
                        log::info!("{pattern}: no backend serves, so a message that wakes one was published");
                    }
                    self.told.insert(pattern, now + AGAIN);
                }
                Err(error) if self.lines.admit(now).is_some() => {
                    log::warn!("{pattern}: publishing a message that wakes a backend at {}: {error}", self.target);
                }
                Err(_) => {}
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
