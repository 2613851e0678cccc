//! The channel between a process and its successor: messages, some with a file.

use super::message::Message;
use crate::net::fd_passing::{Arrival, Channel, Fault};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// One end of the channel.
#[derive(Debug)]
pub(super) struct HandoffChannel {
    channel: Channel,
}

/// The result of a receive.
#[derive(Debug)]
pub(super) enum Heard {
    /// A message, and its file if it has one.
    Message(Message, Option<OwnedFd>),
    /// An unusable message, with the reason. Later messages may be usable, since message boundaries are kept.
    Spoilt(String),
    /// The other process has closed the channel, or ended.
    End,
}

impl HandoffChannel {
    /// A channel, and its other end for another process.
    pub(super) fn open() -> io::Result<(Self, OwnedFd)> {
        Channel::pair().map(|(channel, end)| (Self { channel }, end))
    }

    /// The end that this process inherited.
    pub(super) fn from_end(end: OwnedFd) -> io::Result<Self> {
        Channel::from_end(end).map(|channel| Self { channel })
    }

    /// Another handle of this end.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.channel.try_clone().map(|channel| Self { channel })
    }

    /// Sends a message.
    pub(super) fn say(&self, message: &Message) -> io::Result<()> {
        debug_assert!(!message.carries_file(), "{message:?} without its file");
        self.channel.send(&message.encode(), None)
    }

    /// Sends a message with its file.
    pub(super) fn pass(&self, message: &Message, file: BorrowedFd<'_>) -> io::Result<()> {
        debug_assert!(message.carries_file(), "{message:?} with a file");
        self.channel.send(&message.encode(), Some(file))
    }

    /// Sends a message without its file.
    #[cfg(test)]
    pub(super) fn lose_file(&self, message: &Message) {
        self.channel.send(&message.encode(), None).expect("a message");
    }

    /// Receives a message; `None` waits for ever. After an error the channel is unusable.
    pub(super) fn hear(&self, patience: Option<Duration>) -> Result<Heard, String> {
        self.channel.set_patience(patience).map_err(|error| error.to_string())?;
        match self.channel.receive() {
            Ok(Arrival::End) => Ok(Heard::End),
            Ok(Arrival::Message(bytes, file)) => Ok(match Message::decode(&bytes) {
                Err(fault) => Heard::Spoilt(fault.to_string()),
                Ok(message) => match (message.carries_file(), &file) {
                    (true, None) => Heard::Spoilt(format!("{message:?} came without its file")),
                    (false, Some(_)) => Heard::Spoilt(format!("{message:?} came with a file")),
                    _ => Heard::Message(message, file),
                },
            }),
            Err(fault @ (Fault::Files | Fault::TooLong)) => Ok(Heard::Spoilt(fault.to_string())),
            Err(Fault::Silence) => Err("nothing was heard in time".to_owned()),
            Err(fault) => Err(fault.to_string()),
        }
    }

    /// Whether the other process has closed the channel, or ended. Its earlier messages can still be received.
    pub(super) fn is_dead(&self) -> bool {
        self.channel.is_dead()
    }

    /// Shuts the channel down, for all handles of this end: a waiting receiver gets the end.
    pub(super) fn hang_up(&self) {
        self.channel.shut_down();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::net::SocketAddr;
    use std::os::fd::AsFd;

    const SOON: Option<Duration> = Some(Duration::from_secs(10));

    fn ends() -> (HandoffChannel, HandoffChannel) {
        let (near, far) = HandoffChannel::open().expect("a line");
        (near, HandoffChannel::from_end(far).expect("its other end"))
    }

    #[test]
    fn files_come_with_the_messages_they_belong_to_and_no_other() {
        let (near, far) = ends();
        let file = File::open("/dev/null").expect("a file");
        let socket = Message::Socket { address: SocketAddr::from(([127, 0, 0, 1], 80)) };
        near.pass(&socket, file.as_fd()).expect("a message");
        assert!(matches!(far.hear(SOON), Ok(Heard::Message(message, Some(_))) if message == socket));
        near.lose_file(&socket);
        assert!(matches!(far.hear(SOON), Ok(Heard::Spoilt(why)) if why.contains("without its file")));
        near.channel.send(&Message::Go.encode(), Some(file.as_fd())).expect("a message");
        assert!(matches!(far.hear(SOON), Ok(Heard::Spoilt(why)) if why.contains("with a file")));
        near.channel.send(b"torn", None).expect("bytes");
        assert!(matches!(far.hear(SOON), Ok(Heard::Spoilt(_))));
        near.say(&Message::Go).expect("a message");
        assert!(matches!(far.hear(SOON), Ok(Heard::Message(Message::Go, None))), "the next one is good again");
    }

    #[test]
    fn whoever_hangs_up_is_heard_on_both_ends() {
        let (near, far) = ends();
        let clone = near.try_clone().expect("another handle");
        let waiting = std::thread::spawn(move || matches!(clone.hear(SOON), Ok(Heard::End)));
        assert!(!near.is_dead() && !far.is_dead());
        near.hang_up();
        assert!(near.is_dead() && far.is_dead());
        assert!(waiting.join().expect("no panic"));
        assert!(matches!(far.hear(SOON), Ok(Heard::End)));
        assert!(far.say(&Message::Serving).is_err());
    }
}
