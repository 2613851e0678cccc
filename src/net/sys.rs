//! The one room with `unsafe`: system calls that no well-kept crate wraps.
#![expect(unsafe_code, reason = "each block says why it is sound")]

use rustix::net::{AddressFamily, SocketType, sockopt};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;

/// Where `tcpi_bytes_acked`, of 64 bits, stands in the kernel's `struct tcp_info` (since Linux 4.1; the layout is part
/// of the kernel's interface and only grows at its end).
const BYTES_ACKED: std::ops::Range<usize> = 120..128;

/// How many bytes the peer's kernel has acknowledged, the SYN included. It can still be asked once the connection is
/// broken. `None` where the system does not tell.
pub(super) fn bytes_acknowledged(socket: &impl AsRawFd) -> Option<u64> {
    let mut info = [0_u8; 128];
    let mut len: libc::socklen_t = 128;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel writes at most `len` bytes to
    // `info`, which has that many, and any bytes are valid for it.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len)
    };
    let is_told = result == 0 && usize::try_from(len).is_ok_and(|len| len >= BYTES_ACKED.end);
    let bytes = info.get(BYTES_ACKED).filter(|_| is_told)?;
    bytes.try_into().map(u64::from_ne_bytes).ok()
}

/// How many bytes the peer's kernel has yet to acknowledge, those that have not left included, and the end of the stream
/// as one. `None` where the system does not tell.
pub(super) fn bytes_unacknowledged(socket: &impl AsRawFd) -> Option<u32> {
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel writes one `int`, which `count` is.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    u32::try_from(count).ok().filter(|_| result == 0)
}

/// Has a listening socket hand out a connection only once its first bytes, or its end, have come; one that stays silent
/// after this many seconds, rounded up to when its SYN-ACK is sent again (after 1, 3, 7 and so on). With 0, all are handed out
/// at once.
pub(super) fn defer_accept(listener: &impl AsRawFd, seconds: libc::c_int) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "it is a few bytes")]
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as `listener` is borrowed; the kernel reads `len` bytes of `seconds`,
    // which has that many.
    let result = unsafe {
        let option = (&raw const seconds).cast();
        libc::setsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, option, len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The listening socket of TCP that this process was started with as the open file of this number. To be called once for
/// a number, before this process listens on any socket of its own.
pub(super) fn inherited_listener(number: RawFd) -> io::Result<TcpListener> {
    // SAFETY: what is borrowed is only asked for what it is; if no such file is open, the system says so.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    let is_ours = sockopt::socket_type(file).is_ok_and(|kind| kind == SocketType::STREAM)
        && sockopt::socket_acceptconn(file).unwrap_or(false);
    if !is_ours {
        let problem = format!("file {number} of LISTEN_FDS is no listening socket");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    // SAFETY: as this process has not made a listening socket yet, this one was there when it was started, and nothing
    // in it owns it; it is taken once.
    let listener = unsafe { TcpListener::from_raw_fd(number) };
    match listener.local_addr() {
        Ok(_) => Ok(listener),
        Err(error) => Err(io::Error::new(error.kind(), format!("file {number} of LISTEN_FDS is no socket of TCP"))),
    }
}

/// The connected stream of the local domain that this process was started with as the open file of this number. To be
/// called once for a number, and early: before this process has made a stream of that kind of its own.
pub(super) fn inherited_stream(number: RawFd) -> io::Result<UnixStream> {
    // SAFETY: what is borrowed is only asked for what it is; if no such file is open, the system says so.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    let is_ours = sockopt::socket_type(file).is_ok_and(|kind| kind == SocketType::STREAM)
        && sockopt::socket_domain(file).is_ok_and(|family| family == AddressFamily::UNIX);
    if !is_ours {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("file {number} is no stream")));
    }
    // SAFETY: as this process has not made such a stream yet, this one was there when it was started, and nothing in it
    // owns it; it is taken once.
    Ok(unsafe { UnixStream::from_raw_fd(number) })
}

/// Has the allocator give free memory back to the system. It keeps most of what a load has freed otherwise: after 10,000
/// encrypted connections that had gone, 56 MiB of 58 were still held where 20 had been at the start, and with this 20.3
/// (jemalloc as it comes: 59 of 62; mimalloc: 24.7 of 63). So the allocator is the system's, and no request pays for
/// another one.
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number and touches nothing but the allocator's own pages, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_peer_that_does_not_read_leaves_bytes_unacknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (mut peer, _) = listener.accept().expect("a connection");
        assert_eq!(bytes_unacknowledged(&stream), Some(0));
        stream.set_nonblocking(true).expect("a socket");
        while stream.write(&[0; 65_536]).is_ok() {}
        assert!(bytes_unacknowledged(&stream).is_some_and(|count| count > 0));
        stream.shutdown(std::net::Shutdown::Write).expect("an end");
        peer.read_to_end(&mut Vec::new()).expect("all of it");
        let clock = crate::base::clock::Clock::new();
        let deadline = clock.now() + std::time::Duration::from_secs(10);
        while bytes_unacknowledged(&stream) != Some(0) {
            assert!(clock.now() < deadline, "what was read is acknowledged");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_was_read_was_acknowledged_and_what_met_a_closed_socket_was_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (mut peer, _) = listener.accept().expect("a connection");
        stream.write_all(b"12345").expect("a write");
        peer.read_exact(&mut [0; 5]).expect("a read");
        let heard = bytes_acknowledged(&stream).expect("a kernel since 4.1");
        assert!((5..=6).contains(&heard), "{heard}");
        drop(peer);
        // The end that the peer has sent is read first, so that it has surely closed before the write.
        assert_eq!(stream.read(&mut [0]).expect("an end"), 0);
        stream.write_all(b"67890").expect("a write into the void");
        assert_eq!(bytes_acknowledged(&stream), Some(heard), "the void acknowledges nothing");
    }
}
