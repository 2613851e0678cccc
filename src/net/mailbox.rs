//! Messages to a worker: a bounded channel, and a waker that interrupts the worker's poll.

use crossbeam_channel::{Receiver, Sender, TrySendError};
use mio::Waker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A mailbox of `capacity` messages for the thread whose poll `waker` interrupts.
pub fn mailbox<T>(capacity: usize, waker: Arc<Waker>) -> (MailboxSender<T>, MailboxReceiver<T>) {
    over(crossbeam_channel::bounded(capacity), waker)
}

/// A mailbox without a bound, for messages whose number is limited by the receiver's own requests.
pub fn unbounded_mailbox<T>(waker: Arc<Waker>) -> (MailboxSender<T>, MailboxReceiver<T>) {
    over(crossbeam_channel::unbounded(), waker)
}

fn over<T>((sender, receiver): (Sender<T>, Receiver<T>), waker: Arc<Waker>) -> (MailboxSender<T>, MailboxReceiver<T>) {
    let overflowed = Arc::new(AtomicBool::new(false));
    (MailboxSender { sender, overflowed: Arc::clone(&overflowed), waker }, MailboxReceiver { receiver, overflowed })
}

/// The sending end. Any number of threads may hold one.
#[derive(Debug)]
pub struct MailboxSender<T> {
    sender: Sender<T>,
    overflowed: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl<T> Clone for MailboxSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), overflowed: Arc::clone(&self.overflowed), waker: Arc::clone(&self.waker) }
    }
}

impl<T> MailboxSender<T> {
    /// Sends without waiting. Returns the message if the mailbox is full or its receiver is gone.
    pub fn deliver(&self, message: T) -> Result<(), T> {
        match self.sender.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => return Err(message),
        }
        self.wake();
        Ok(())
    }

    /// Sends without waiting. If the mailbox is full, the message is lost and the receiver is notified
    /// ([`MailboxReceiver::take_overflow`]). A message to a worker that has ended is lost silently. Returns whether
    /// there was room, for senders that can repeat the message.
    pub fn send(&self, message: T) -> bool {
        let has_room = self.put(message);
        self.wake();
        has_room
    }

    /// The same, without waking the worker: a sender of several messages wakes it once ([`MailboxSender::wake`]).
    pub fn put(&self, message: T) -> bool {
        match self.sender.try_send(message) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => true,
            Err(TrySendError::Full(_)) => {
                self.overflowed.store(true, Ordering::Release);
                false
            }
        }
    }

    /// Interrupts the worker's poll.
    pub fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("waking a worker: {error}");
        }
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct MailboxReceiver<T> {
    receiver: Receiver<T>,
    overflowed: Arc<AtomicBool>,
}

impl<T> MailboxReceiver<T> {
    /// The next message, if any.
    pub fn receive(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Makes the receiver report a lost message.
    #[cfg(test)]
    pub fn note_overflow(&self) {
        self.overflowed.store(true, Ordering::Release);
    }

    /// Whether messages were lost since the last call.
    pub fn take_overflow(&self) -> bool {
        self.overflowed.load(Ordering::Acquire) && self.overflowed.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};

    #[test]
    fn messages_arrive_in_order_wake_the_poll_and_an_overflow_is_reported_once() {
        let mut poll = Poll::new().expect("a poll");
        let waker = Arc::new(Waker::new(poll.registry(), Token(7)).expect("a waker"));
        let (sender, receiver) = mailbox(2, waker);
        assert_eq!([1, 2, 3].map(|message| sender.send(message)), [true, true, false]);
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, None).expect("a wake-up");
        assert_eq!(events.iter().next().map(|event| event.token()), Some(Token(7)));
        assert_eq!([receiver.receive(), receiver.receive(), receiver.receive()], [Some(1), Some(2), None]);
        assert!(receiver.take_overflow());
        assert!(!receiver.take_overflow());
    }
}
