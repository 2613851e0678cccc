//! A core's alarm clock: what ends its wait in its poll when a moment comes.
//!
//! A poll that is given a time to wait reads the clock twice for it, each time, and has the kernel set a timer and take it
//! back whenever it sleeps; a core under load polls for every few requests. The alarm is a timer of the kernel's that stays
//! set: moments that were to wake the core mostly move away again, so it is rarely touched.

use crate::base::clock::Moment;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// A timer that a poll watches.
#[derive(Debug)]
pub struct Alarm {
    timer: OwnedFd,
    /// When it rings; [`Moment::NEVER`] while it is not set.
    rings_at: Moment,
}

impl Alarm {
    /// An alarm that is not set. The poll tells with `token` that it rings.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer, rings_at: Moment::NEVER })
    }

    /// Has it ring at `moment` at the latest; it may do so sooner, for a moment that was asked for before.
    #[inline]
    pub fn ring_by(&mut self, moment: Moment, now: Moment) -> io::Result<()> {
        if moment < self.rings_at { self.set(moment, now) } else { Ok(()) }
    }

    #[cold]
    fn set(&mut self, moment: Moment, now: Moment) -> io::Result<()> {
        let delay = moment.since(now);
        // Zero would stop it.
        let delay = Timespec {
            tv_sec: delay.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: i64::from(delay.subsec_nanos().max(1)),
        };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: delay };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.rings_at = moment;
        Ok(())
    }

    /// The poll has told that it rings. Nobody needs to read the timer: what is told once is told again only when it was
    /// set again.
    pub fn has_rung(&mut self) {
        self.rings_at = Moment::NEVER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::time::Duration;

    /// Longer than any wait that a test means to see the end of.
    const PATIENCE: Duration = Duration::from_secs(20);

    const NOW: Moment = Moment::from_micros(1_000_000);

    fn alarm() -> (Poll, Alarm) {
        let poll = Poll::new().expect("a poll");
        let alarm = Alarm::new(poll.registry(), Token(7)).expect("an alarm");
        (poll, alarm)
    }

    /// Whether it rings within this time.
    fn rings(poll: &mut Poll, within: Duration) -> bool {
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(within)).expect("a poll that works");
        events.iter().any(|event| event.token() == Token(7))
    }

    #[test]
    fn rings_once_for_each_time_it_is_set() {
        let (mut poll, mut alarm) = alarm();
        for micros in [0, 1, 1_500] {
            alarm.ring_by(NOW + Duration::from_micros(micros), NOW).expect("setting it");
            assert!(rings(&mut poll, PATIENCE), "after {micros} µs");
            alarm.has_rung();
            assert!(!rings(&mut poll, Duration::ZERO), "a second time after {micros} µs");
        }
    }

    #[test]
    fn only_an_earlier_moment_moves_it() {
        let (mut poll, mut alarm) = alarm();
        alarm.ring_by(Moment::NEVER, NOW).expect("not setting it");
        assert_eq!(alarm.rings_at, Moment::NEVER);
        alarm.ring_by(NOW + PATIENCE, NOW).expect("setting it");
        alarm.ring_by(NOW + PATIENCE * 2, NOW).expect("leaving it");
        assert_eq!(alarm.rings_at, NOW + PATIENCE);
        alarm.ring_by(NOW + Duration::from_millis(1), NOW).expect("setting it earlier");
        assert!(rings(&mut poll, PATIENCE), "the earlier one rings");
    }

    #[test]
    fn the_farthest_moment_is_one() {
        let (mut poll, mut alarm) = alarm();
        alarm.ring_by(Moment::from_micros(u64::MAX - 1), Moment::ZERO).expect("setting it");
        assert!(!rings(&mut poll, Duration::ZERO));
    }
}
