//! The mailboxes of the cores. Cores come and go while the process runs: one that is replaced still wants its answers
//! when its successor has long begun to ask.

use super::RouteEvent;
use crate::base::clock::Moment;
use crate::net::mailbox::MailboxSender;
use std::sync::{Arc, PoisonError, RwLock};

/// A core, to the directory. Given again when a core has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberId(pub(super) usize);

/// The cores that are there. The lock is the threads' of the directory and the supervisor's: no core waits for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscribers(Arc<RwLock<Members>>);

#[derive(Debug, Default)]
struct Members {
    senders: Vec<Option<MailboxSender<RouteEvent>>>,
    /// What all were told last of the active health checker: the one news that nobody asks for.
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

    /// Tells one core. One that has left needs no answer any more.
    pub(super) fn tell(&self, core: SubscriberId, event: RouteEvent) {
        self.leave_word(core, event);
        self.wake(core);
    }

    /// Tells one core, which reads it once it is woken.
    pub(super) fn leave_word(&self, core: SubscriberId, event: RouteEvent) {
        let members = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(sender)) = members.senders.get(core.0) {
            sender.put(event);
        }
    }

    /// Has one core read what it was told.
    pub(super) fn wake(&self, core: SubscriberId) {
        let members = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(sender)) = members.senders.get(core.0) {
            sender.wake();
        }
    }

    pub(super) fn tell_all(&self, event: &RouteEvent) {
        // Where there was no room, the core learns of it and asks anew.
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
    fn a_successor_is_told_beside_who_leaves_and_knows_of_the_checker() {
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
