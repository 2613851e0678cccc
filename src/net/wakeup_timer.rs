//! A timer that ends a worker's poll at a given moment.
//!
//! A poll with a timeout reads the clock twice, and whenever it sleeps the kernel sets and cancels a timer; a worker
//! under load polls for every few requests. This timer of the kernel stays set instead: most deadlines move on before
//! they expire, so it is rarely changed.

use crate::base::clock::Moment;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// The timer fires at multiples of this many microseconds, as a power of two: about 4 ms. Each connection may have a
/// deadline of its own, and one expiry serves all that passed since the last.
const GRAIN_BITS: u32 = 12;

/// A timer that a poll watches.
#[derive(Debug)]
pub struct WakeupTimer {
    timer: OwnedFd,
    /// The moment for which the timer is set; [`Moment::NEVER`] if it is not. It fires late by the age of `now` at the
    /// time it was set.
    rings_at: Moment,
}

impl WakeupTimer {
    /// A timer that is not set. The poll reports its expiry with `token`.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer, rings_at: Moment::NEVER })
    }

    /// Sets the timer to fire after `moment`, at most about 4 ms late. It may fire earlier, for a moment that was set
    /// before.
    #[inline]
    pub fn arm(&mut self, moment: Moment, now: Moment) -> io::Result<()> {
        let moment = moment.round_up(GRAIN_BITS);
        if moment < self.rings_at { self.set(moment, now) } else { Ok(()) }
    }

    #[cold]
    fn set(&mut self, moment: Moment, now: Moment) -> io::Result<()> {
        // Zero would stop the timer.
        let delay = moment.since(now).max(Duration::from_nanos(1));
        let it_value = Timespec::try_from(delay).map_err(io::Error::other)?;
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.rings_at = moment;
        Ok(())
    }

    /// Records an expiry that the poll has reported. The timer need not be read: mio polls edge-triggered, so the next
    /// expiry is reported only after the timer was set again.
    pub fn acknowledge(&mut self) {
        self.rings_at = Moment::NEVER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use rustix::time::timerfd_gettime;

    /// Longer than any wait whose end a test needs to see.
    const PATIENCE: Duration = Duration::from_secs(20);

    const NOW: Moment = Moment::from_micros(1_000_000);

    fn wakeup_timer() -> (Poll, WakeupTimer) {
        let poll = Poll::new().expect("a poll");
        let wakeup_timer = WakeupTimer::new(poll.registry(), Token(7)).expect("an alarm");
        (poll, wakeup_timer)
    }

    /// Whether the timer fires within this time.
    fn rings(poll: &mut Poll, within: Duration) -> bool {
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(within)).expect("a poll that works");
        events.iter().any(|event| event.token() == Token(7))
    }

    #[test]
    fn rings_once_for_each_time_it_is_set() {
        let (mut poll, mut wakeup_timer) = wakeup_timer();
        for micros in [0, 1, 1_500, 10_000] {
            wakeup_timer.arm(NOW + Duration::from_micros(micros), NOW).expect("setting it");
            assert!(rings(&mut poll, PATIENCE), "after {micros} µs");
            wakeup_timer.acknowledge();
            assert!(!rings(&mut poll, Duration::ZERO), "a second time after {micros} µs");
        }
    }

    #[test]
    fn only_an_earlier_moment_moves_it() {
        let (mut poll, mut wakeup_timer) = wakeup_timer();
        wakeup_timer.arm(Moment::NEVER, NOW).expect("not setting it");
        assert_eq!(wakeup_timer.rings_at, Moment::NEVER);
        wakeup_timer.arm(NOW + PATIENCE, NOW).expect("setting it");
        let rings_at = wakeup_timer.rings_at;
        assert!(rings_at >= NOW + PATIENCE && rings_at.since(NOW + PATIENCE) < Duration::from_micros(1 << GRAIN_BITS));
        for later in [PATIENCE + Duration::from_micros(1), PATIENCE * 2] {
            wakeup_timer.arm(NOW + later, NOW).expect("leaving it");
            assert_eq!(wakeup_timer.rings_at, rings_at, "{later:?}");
        }
        wakeup_timer.arm(NOW + Duration::from_millis(1), NOW).expect("setting it earlier");
        assert!(rings(&mut poll, PATIENCE), "the earlier one rings");
    }

    /// The timer fires, and is set for another moment before the poll reports it.
    #[test]
    fn an_expiry_before_the_poll_is_not_lost() {
        let overdue = |wakeup_timer: &mut WakeupTimer| {
            wakeup_timer.arm(NOW + Duration::from_secs(1), NOW + Duration::from_secs(2)).expect("setting it");
            let is_over = |wakeup_timer: &WakeupTimer| {
                timerfd_gettime(&wakeup_timer.timer).expect("a timer").it_value == Timespec::default()
            };
            while !is_over(wakeup_timer) {
                std::thread::yield_now();
            }
        };
        let (mut poll, mut wakeup_timer) = wakeup_timer();
        overdue(&mut wakeup_timer);
        wakeup_timer.arm(NOW + PATIENCE, NOW).expect("leaving it");
        assert!(rings(&mut poll, Duration::ZERO), "the old ring, for a later moment");
        wakeup_timer.acknowledge();

        overdue(&mut wakeup_timer);
        wakeup_timer.arm(NOW, NOW).expect("setting it");
        assert!(rings(&mut poll, PATIENCE), "the new ring, for an earlier one");
        wakeup_timer.acknowledge();
        assert!(!rings(&mut poll, Duration::ZERO), "and no other");
    }

    #[test]
    fn the_farthest_moment_is_one() {
        let (mut poll, mut wakeup_timer) = wakeup_timer();
        wakeup_timer.arm(Moment::from_micros(u64::MAX - 5_000), Moment::ZERO).expect("setting it");
        assert_ne!(wakeup_timer.rings_at, Moment::NEVER);
        assert!(!rings(&mut poll, Duration::ZERO));
    }
}
