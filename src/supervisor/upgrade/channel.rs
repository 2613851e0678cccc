//! The channel between a process and its successor: messages, some with files, and bytes.

use super::message::Message;
use crate::net::fd_passing::{Arrival, Channel, Fault};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// The start of a message of bytes; no other message starts with it.
const BYTES_MAGIC: &[u8] = b"SLUICE BYTES ";

/// The bytes of one message.
const MOST_BYTES: usize = 64 * 1024;

/// One end of the channel.
#[derive(Debug)]
pub(super) struct HandoffChannel {
    channel: Channel,
}

/// The result of a receive.
#[derive(Debug)]
pub(super) enum Heard {
    /// A message, and its files if it has some.
    Message(Message, Vec<OwnedFd>),
    /// Bytes of the previous message.
    Bytes(Vec<u8>),
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
        self.pass(message, &[])
    }

    /// Sends a message with its files.
    pub(super) fn pass(&self, message: &Message, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        debug_assert_eq!(message.files(), files.len(), "files of {message:?}");
        self.channel.send(&message.encode(), files)
    }

    /// The limit of each send from now on.
    pub(super) fn set_send_patience(&self, patience: Duration) -> io::Result<()> {
        self.channel.set_send_patience(patience)
    }

    /// Sends bytes of the last message, in as many messages as they need.
    pub(super) fn pass_bytes<'b>(&self, parts: impl Iterator<Item = &'b [u8]>) -> io::Result<()> {
        for piece in parts.flat_map(|part| part.chunks(MOST_BYTES)) {
            self.channel.send(&[BYTES_MAGIC, piece].concat(), &[])?;
        }
        Ok(())
    }

    /// Sends a message without its file.
    #[cfg(test)]
    pub(super) fn lose_file(&self, message: &Message) {
        self.channel.send(&message.encode(), &[]).expect("a message");
    }

    /// Receives a message; `None` waits for ever. After an error the channel is unusable.
    pub(super) fn hear(&self, patience: Option<Duration>) -> Result<Heard, String> {
        self.channel.set_patience(patience).map_err(|error| error.to_string())?;
        match self.channel.receive() {
            Ok(Arrival::End) => Ok(Heard::End),
            Ok(Arrival::Message(mut bytes, files)) if bytes.starts_with(BYTES_MAGIC) && files.is_empty() => {
                bytes.drain(..BYTES_MAGIC.len());
                Ok(Heard::Bytes(bytes))
            }
            Ok(Arrival::Message(bytes, files)) => Ok(match Message::decode(&bytes) {
                Err(fault) => Heard::Spoilt(fault.to_string()),
                Ok(message) if message.files() == files.len() => Heard::Message(message, files),
                Ok(message) => Heard::Spoilt(format!("{message:?} came with {} files", files.len())),
            }),
            Err(fault @ (Fault::Files | Fault::TooLong)) => Ok(Heard::Spoilt(fault.to_string())),
            Err(Fault::Silence) => Err("no message arrived in time".to_owned()),
            Err(fault) => Err(fault.to_string()),
        }
    }

    /// Whether the other process has closed the channel, or ended. Its earlier messages can still be received.
    pub(super) fn is_dead(&self) -> bool {
        self.channel.is_dead()
    }

    /// A channel within a test, by its two ends.
    #[cfg(test)]
    pub(super) fn ends() -> (Self, Self) {
        let (near, far) = Self::open().expect("a line");
        (near, Self::from_end(far).expect("its other end"))
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

    #[test]
    fn files_come_with_the_messages_they_belong_to_and_no_other() {
        let (near, far) = HandoffChannel::ends();
        let file = File::open("/dev/null").expect("a file");
        let socket = Message::Socket { address: SocketAddr::from(([127, 0, 0, 1], 80)) };
        near.pass(&socket, &[file.as_fd()]).expect("a message");
        assert!(matches!(far.hear(SOON), Ok(Heard::Message(message, files)) if message == socket && files.len() == 1));
        near.lose_file(&socket);
        assert!(matches!(far.hear(SOON), Ok(Heard::Spoilt(why)) if why.contains("came with 0 files")));
        near.channel.send(&Message::Go.encode(), &[file.as_fd()]).expect("a message");
        assert!(matches!(far.hear(SOON), Ok(Heard::Spoilt(why)) if why.contains("came with 1 files")));
        near.channel.send(b"torn", &[]).expect("bytes");
        assert!(matches!(far.hear(SOON), Ok(Heard::Spoilt(_))));
        near.say(&Message::Go).expect("a message");
        assert!(matches!(far.hear(SOON), Ok(Heard::Message(Message::Go, _))), "the next one is good again");
        // The content of bytes is not parsed.
        let sent = [Message::Go.encode(), vec![7; MOST_BYTES]].concat();
        near.pass_bytes([&sent[..], b"more"].into_iter()).expect("bytes");
        let mut got = Vec::new();
        while got.len() < sent.len() + 4 {
            let Ok(Heard::Bytes(bytes)) = far.hear(SOON) else { panic!("something else than bytes") };
            got.extend(bytes);
        }
        assert_eq!(got, [&sent[..], b"more"].concat());
    }

    #[test]
    fn a_close_is_noticed_on_both_ends() {
        let (near, far) = HandoffChannel::ends();
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
