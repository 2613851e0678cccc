//! The mailboxes of the cores. Cores come and go while the process runs: a core that is replaced still needs its
//! results after its successor has begun to ask.

use super::RouteEvent;
use crate::base::clock::Moment;
use crate::net::mailbox::MailboxSender;
use std::sync::{Arc, PoisonError, RwLock};

/// The id of a core in the directory. It is reused after a core has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberId(pub(super) usize);

/// The cores that have joined. The lock is taken by the directory's threads and the supervisor; no core takes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscribers(Arc<RwLock<Members>>);

#[derive(Debug, Default)]
struct Members {
    senders: Vec<Option<MailboxSender<RouteEvent>>>,
    /// The last event about the active health checker: the only one that new cores must get unasked.
    checker_until: Option<Moment>,
}

impl Subscribers {
    pub(super) fn join(&self, sender: MailboxSender<RouteEvent>) -> SubscriberId {
        let mut members = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = members.checker_until {
            sender.send(RouteEvent::Checker { until });
        }
        let free = members.senders.iter().position(Option::is_none);
        let place = free.unwrap_or(members.senders.len());
        match free {
            Some(place) => members.senders[place] = Some(sender),
            None => members.senders.push(Some(sender)),
        }
        SubscriberId(place)
    }

    pub(super) fn leave(&self, core: SubscriberId) {
        let mut members = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = members.senders.get_mut(core.0) {
            *sender = None;
        }
    }

    /// Sends an event to one core. A core that has left gets none.
    pub(super) fn tell(&self, core: SubscriberId, event: RouteEvent) {
        self.leave_word(core, event);
        self.wake(core);
    }

    /// Sends an event to one core, which reads it after [`Subscribers::wake`].
    pub(super) fn leave_word(&self, core: SubscriberId, event: RouteEvent) {
        let members = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(sender)) = members.senders.get(core.0) {
            sender.put(event);
        }
    }

    /// Wakes one core to read its events.
    pub(super) fn wake(&self, core: SubscriberId) {
        let members = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(sender)) = members.senders.get(core.0) {
            sender.wake();
        }
    }

    pub(super) fn tell_all(&self, event: &RouteEvent) {
        // A core without room for it learns that, and asks again.
        self.reach_all(event);
    }

    /// The same. Returns whether all cores had room for it.
    pub(super) fn reach_all(&self, event: &RouteEvent) -> bool {
        if let RouteEvent::Checker { until } = event {
            self.0.write().unwrap_or_else(PoisonError::into_inner).checker_until = Some(*until);
        }
        let members = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut had_room = true;
        members.senders.iter().flatten().for_each(|sender| had_room &= sender.send(event.clone()));
        had_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::mailbox::{MailboxReceiver, mailbox};
    use mio::{Poll, Token, Waker};

    fn core() -> (Poll, MailboxSender<RouteEvent>, MailboxReceiver<RouteEvent>) {
        let poll = Poll::new().expect("a poll");
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
        let (sender, receiver) = mailbox(8, waker);
        (poll, sender, receiver)
    }

    #[test]
    fn a_successor_gets_events_besides_its_predecessor_and_knows_of_the_checker() {
        let subscribers = Subscribers::default();
        let [first, second, third] = [(); 3].map(|()| core());
        let old = subscribers.join(first.1);
        let until = Moment::from_micros(7);
        subscribers.tell_all(&RouteEvent::Checker { until });
        let new = subscribers.join(second.1);
        assert_ne!(old, new);
        for receiver in [&first.2, &second.2] {
            assert!(matches!(receiver.receive(), Some(RouteEvent::Checker { until: told }) if told == until));
            assert!(receiver.receive().is_none());
        }
        subscribers.tell_all(&RouteEvent::Changed { hosts: Arc::new([]), unknowns: true });
        assert!(first.2.receive().is_some() && second.2.receive().is_some());
        subscribers.leave(old);
        subscribers.tell(old, RouteEvent::Checker { until });
        assert!(first.2.receive().is_none());
        assert_eq!(subscribers.join(third.1), old, "an identity is given again");
    }
}
