//! The line between a process and its successor: messages, each with the file that belongs to it.

use super::message::Message;
use crate::net::passing::{Arrival, Channel, Fault};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// One end of the line.
#[derive(Debug)]
pub(super) struct Line {
    channel: Channel,
}

/// What is heard.
#[derive(Debug)]
pub(super) enum Heard {
    /// A message, and the file where one belongs to it.
    Message(Message, Option<OwnedFd>),
    /// The other process has hung up, or ended.
    End,
}

impl Line {
    /// A line, and its other end for another process.
    pub(super) fn open() -> io::Result<(Self, OwnedFd)> {
        Channel::pair().map(|(channel, end)| (Self { channel }, end))
    }

    /// The end that this process was given.
    pub(super) fn from_end(end: OwnedFd) -> io::Result<Self> {
        Channel::from_end(end).map(|channel| Self { channel })
    }

    /// Another handle of this end.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.channel.try_clone().map(|channel| Self { channel })
    }

    /// Says something.
    pub(super) fn say(&self, message: &Message) -> io::Result<()> {
        debug_assert!(!message.carries_file(), "{message:?} without its file");
        self.channel.send(&message.encode(), None)
    }

    /// Says something, and hands over the file that belongs to it.
    pub(super) fn pass(&self, message: &Message, file: BorrowedFd<'_>) -> io::Result<()> {
        debug_assert!(message.carries_file(), "{message:?} with a file");
        self.channel.send(&message.encode(), Some(file))
    }

    /// Waits until something is heard; `None` is for ever. Where it says why not, the line is of no more use.
    pub(super) fn hear(&self, patience: Option<Duration>) -> Result<Heard, String> {
        self.channel.set_patience(patience).map_err(|error| error.to_string())?;
        match self.channel.receive() {
            Ok(Arrival::End) => Ok(Heard::End),
            Ok(Arrival::Message(bytes, file)) => {
                let message = Message::decode(&bytes).map_err(|fault| fault.to_string())?;
                match (message.carries_file(), &file) {
                    (true, None) => Err(format!("{message:?} came without its file")),
                    (false, Some(_)) => Err(format!("{message:?} came with a file")),
                    _ => Ok(Heard::Message(message, file)),
                }
            }
            Err(Fault::Silence) => Err("nothing was heard in time".to_owned()),
            Err(fault) => Err(fault.to_string()),
        }
    }

    /// Hangs up, for all handles of this end: whoever waits for a word hears the end.
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

    fn ends() -> (Line, Line) {
        let (near, far) = Line::open().expect("a line");
        (near, Line::from_end(far).expect("its other end"))
    }

    #[test]
    fn files_come_with_the_messages_they_belong_to_and_no_other() {
        let (near, far) = ends();
        let file = File::open("/dev/null").expect("a file");
        let socket = Message::Socket { address: SocketAddr::from(([127, 0, 0, 1], 80)) };
        near.pass(&socket, file.as_fd()).expect("a message");
        assert!(matches!(far.hear(SOON), Ok(Heard::Message(message, Some(_))) if message == socket));
        near.channel.send(&socket.encode(), None).expect("a message");
        assert!(far.hear(SOON).is_err_and(|why| why.contains("without its file")));
        near.channel.send(&Message::Go.encode(), Some(file.as_fd())).expect("a message");
        assert!(far.hear(SOON).is_err_and(|why| why.contains("with a file")));
        near.channel.send(b"torn", None).expect("bytes");
        assert!(far.hear(SOON).is_err());
    }

    #[test]
    fn whoever_hangs_up_is_heard_on_both_ends() {
        let (near, far) = ends();
        let clone = near.try_clone().expect("another handle");
        let waiting = std::thread::spawn(move || matches!(clone.hear(SOON), Ok(Heard::End)));
        near.hang_up();
        assert!(waiting.join().expect("no panic"));
        assert!(matches!(far.hear(SOON), Ok(Heard::End)));
        assert!(far.say(&Message::Serving).is_err());
    }
}
