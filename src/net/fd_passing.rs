//! Messages between two processes that can carry open files (unix(7), `SCM_RIGHTS`).

use super::sys;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use socket2::SockRef;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Limit of a send: a peer that does not receive for longer is stuck.
const SEND_PATIENCE: Duration = Duration::from_secs(10);

/// The greatest number of files in one message.
pub const MAX_FILES: usize = 2;

/// The longest message.
pub const MAX_MESSAGE_BYTES: usize = 96 * 1024;

/// A stream, and the other end for a child process that starts next, which inherits it under its descriptor number.
pub fn stream_to_child() -> io::Result<(UnixStream, UnixStream)> {
    let (near, far) = UnixStream::pair()?;
    fcntl_setfd(&far, FdFlags::empty())?;
    Ok((near, far))
}

/// The stream that [`stream_to_child`] made for this process, closed on exec so that no child inherits it. Call it
/// once, before this process makes streams of its own.
pub fn stream_of_parent(number: RawFd) -> io::Result<UnixStream> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it was taken before"));
    }
    let stream = sys::inherited_stream(number)?;
    fcntl_setfd(&stream, FdFlags::CLOEXEC)?;
    Ok(stream)
}

/// One end of a socket pair that preserves message boundaries and order, and loses no message.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// A received message, or the end of the stream.
#[derive(Debug)]
pub enum Arrival {
    /// A message, and the files that it carried, if any.
    Message(Vec<u8>, Vec<OwnedFd>),
    /// The other end was closed; nothing follows.
    End,
}

/// Why no usable message was received.
#[derive(Debug)]
pub enum Fault {
    /// Nothing came in time.
    Silence,
    /// The message exceeds [`MAX_MESSAGE_BYTES`].
    TooLong,
    /// The message carried too many files, or one that was lost because this process has no descriptor left.
    Files,
    /// A system call failed.
    System(io::Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence => f.write_str("nothing came in time"),
            Self::TooLong => write!(f, "a message of more than {MAX_MESSAGE_BYTES} bytes"),
            Self::Files => {
                f.write_str("a message whose files did not all arrive (is the limit of open files reached?)")
            }
            Self::System(error) => error.fmt(f),
        }
    }
}

impl Channel {
    /// An end, and the other end for another process.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        SockRef::from(&near).set_write_timeout(Some(SEND_PATIENCE))?;
        Ok((Self { socket: near }, far))
    }

    /// The end that another process has passed to this one.
    pub fn from_end(socket: OwnedFd) -> io::Result<Self> {
        let kind = sockopt::socket_type(&socket)?;
        if kind != SocketType::SEQPACKET || sockopt::socket_domain(&socket)? != AddressFamily::UNIX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("no socket of a pair ({kind:?})")));
        }
        SockRef::from(&socket).set_write_timeout(Some(SEND_PATIENCE))?;
        Ok(Self { socket })
    }

    /// The limit of each receive from now on; `None` for no limit.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        // The system reads zero as no limit.
        let patience = patience.map(|patience| patience.max(Duration::from_micros(1)));
        SockRef::from(&self.socket).set_read_timeout(patience)
    }

    /// The limit of each send from now on, by any handle of this end.
    pub fn set_send_patience(&self, patience: Duration) -> io::Result<()> {
        // The system reads zero as no limit.
        SockRef::from(&self.socket).set_write_timeout(Some(patience.max(Duration::from_micros(1))))
    }

    /// Sends a message, with up to [`MAX_FILES`] files, of which the other process gets its own descriptors.
    pub fn send(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            let has_room = ancillary.push(SendAncillaryMessage::ScmRights(files));
            debug_assert!(has_room, "more files than a message carries");
        }
        loop {
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                Ok(count) if count < bytes.len() => return Err(io::ErrorKind::WriteZero.into()),
                result => return result.map(drop).map_err(Into::into),
            }
        }
    }

    /// Receives a message.
    pub fn receive(&self) -> Result<Arrival, Fault> {
        let mut bytes = vec![0; MAX_MESSAGE_BYTES];
        // There is room for more descriptors than allowed: without it, one too many would be lost unseen.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut is_cut = false;
        let received = loop {
            let mut room = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.socket, &mut room, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(Fault::Silence),
                // The other end was closed with unread messages. Messages that it sent before follow.
                Err(Errno::CONNRESET) if !is_cut => is_cut = true,
                Err(error) => return Err(Fault::System(error.into())),
                Ok(received) => break received,
            }
        };
        let files = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let files: Vec<OwnedFd> = files.flatten().collect();
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(Fault::TooLong);
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || files.len() > MAX_FILES {
            return Err(Fault::Files);
        }
        // No message is empty, so this is the end of the stream.
        if received.bytes == 0 {
            return Ok(Arrival::End);
        }
        bytes.truncate(received.bytes);
        Ok(Arrival::Message(bytes, files))
    }

    /// Whether the other end was closed or shut down. Messages that it sent before can still be received.
    pub fn is_dead(&self) -> bool {
        let mut watched = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        let is_told = poll(&mut watched, PollTimeout::ZERO).is_ok_and(|count| count > 0);
        is_told && watched.iter().any(|end| end.revents().is_some_and(|told| told.contains(PollFlags::POLLHUP)))
    }

    /// Ends both directions, for all handles of this end. An error means that they have ended already.
    pub fn shut_down(&self) {
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }

    /// Another handle of this end.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.socket.try_clone().map(|socket| Self { socket })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> [Channel; 2] {
        let (near, far) = Channel::pair().expect("a pair");
        let far = Channel::from_end(far).expect("an end of it");
        for end in [&near, &far] {
            end.set_patience(Some(Duration::from_secs(10))).expect("patience");
        }
        [near, far]
    }

    #[track_caller]
    fn message(channel: &Channel) -> (Vec<u8>, Vec<OwnedFd>) {
        match channel.receive() {
            Ok(Arrival::Message(bytes, file)) => (bytes, file),
            other => panic!("expected a message: {other:?}"),
        }
    }

    #[test]
    fn messages_come_apart_in_order_and_with_their_file() {
        let [near, far] = pair();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        near.send(b"first", &[]).expect("a message");
        near.send(b"second", &[listener.as_fd()]).expect("a message");
        near.send(&[7; MAX_MESSAGE_BYTES], &[]).expect("the longest message");
        drop((near, listener));
        assert!(matches!(message(&far), (bytes, files) if bytes == b"first" && files.is_empty()));
        let (bytes, mut files) = message(&far);
        assert_eq!(bytes, b"second");
        let listener = TcpListener::from(files.pop().expect("a file"));
        let mut client = TcpStream::connect(address).expect("the socket listens still");
        client.write_all(b"x").expect("a byte");
        listener.accept().expect("the client").0.read_exact(&mut [0]).expect("its byte");
        assert_eq!(message(&far).0, [7; MAX_MESSAGE_BYTES]);
        assert!(matches!(far.receive(), Ok(Arrival::End)));
    }

    #[test]
    fn what_is_too_long_carries_too_much_or_never_comes_is_a_fault() {
        let [near, far] = pair();
        near.send(&[7; MAX_MESSAGE_BYTES + 1], &[]).expect("a message");
        assert!(matches!(far.receive(), Err(Fault::TooLong)));

        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let files = [near.as_fd(), near.as_fd(), near.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
        sendmsg(&near, &[IoSlice::new(b"three")], &mut ancillary, SendFlags::empty()).expect("a message");
        assert!(matches!(far.receive(), Err(Fault::Files)));

        far.set_patience(Some(Duration::from_millis(1))).expect("little patience");
        assert!(matches!(far.receive(), Err(Fault::Silence)));
    }

    #[test]
    fn messages_before_an_end_are_received() {
        let [near, far] = pair();
        near.send(b"never read", &[]).expect("a message");
        far.send(b"last words", &[]).expect("a message");
        drop(far);
        assert_eq!(message(&near).0, b"last words");
        assert!(matches!(near.receive(), Ok(Arrival::End)));
        assert!(near.send(b"into the void", &[]).is_err());
    }

    #[test]
    fn a_file_that_is_no_end_of_a_pair_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        assert!(Channel::from_end(listener.into()).is_err());
        let null = std::fs::File::open("/dev/null").expect("a file");
        assert!(Channel::from_end(null.into()).is_err());
    }
}
