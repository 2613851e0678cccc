//! The only file with `unsafe`: system calls that no well-kept crate wraps.
#![expect(unsafe_code, reason = "each block says why it is sound")]

use rustix::net::{AddressFamily, SocketType, sockopt};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;

/// Position of `tcpi_bytes_acked`, 64 bits, in the kernel's `struct tcp_info` (since Linux 4.1; the layout is part of
/// the kernel's interface and only grows at its end).
const BYTES_ACKED: std::ops::Range<usize> = 120..128;

/// Bytes that the peer's kernel has acknowledged, plus one for the SYN. It can still be read after the connection is
/// broken. `None` if the system does not support it.
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

/// Bytes that the peer's kernel has not acknowledged, including bytes not sent yet, and the end of the stream as one.
/// `None` if the system does not support it.
pub(super) fn bytes_unacknowledged(socket: &impl AsRawFd) -> Option<u32> {
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel writes one `int`, which `count` is.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    u32::try_from(count).ok().filter(|_| result == 0)
}

/// Makes a listening socket deliver a connection only once its first bytes, or its end, have arrived. A connection
/// without bytes is delivered after this many seconds, rounded up to the next retransmission of its SYN-ACK (after 1,
/// 3, 7 seconds and so on). With 0 all are delivered at once.
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

/// Sends a record of this type over a socket with the keys of a TLS session, if it has room.
pub(super) fn send_record(socket: &impl AsRawFd, kind: u8, content: &[u8]) -> io::Result<()> {
    // SAFETY: it takes a number.
    let space = unsafe { libc::CMSG_SPACE(1) };
    // Its elements have the alignment of a header.
    let mut control = [0_usize; 8];
    let mut part = libc::iovec { iov_base: content.as_ptr().cast_mut().cast(), iov_len: content.len() };
    // SAFETY: all zeros are a valid header without address, parts and control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = space as _;
    debug_assert!(space as usize <= size_of_val(&control), "a header and a byte");
    // SAFETY: the control data is large enough for a header and a byte, aligned, and zeroed; the kernel reads it and
    // `content`, both of which outlive the call, and writes neither.
    let result = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_TLS;
        (*header).cmsg_type = libc::TLS_SET_RECORD_TYPE;
        (*header).cmsg_len = libc::CMSG_LEN(1) as _;
        libc::CMSG_DATA(header).write(kind);
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The listening TCP socket that this process inherited under this descriptor number. Call it once for a number, before
/// this process listens on a socket of its own.
pub(super) fn inherited_listener(number: RawFd) -> io::Result<TcpListener> {
    // SAFETY: the borrowed descriptor is only queried; if it is not open, the system returns an error.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    let is_ours = sockopt::socket_type(file).is_ok_and(|kind| kind == SocketType::STREAM)
        && sockopt::socket_acceptconn(file).unwrap_or(false);
    if !is_ours {
        let problem = format!("file {number} of LISTEN_FDS is no listening socket");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    // SAFETY: this process has not made a listening socket yet, so this one was inherited and nothing owns it; it is
    // taken once.
    let listener = unsafe { TcpListener::from_raw_fd(number) };
    match listener.local_addr() {
        Ok(_) => Ok(listener),
        Err(error) => Err(io::Error::new(error.kind(), format!("file {number} of LISTEN_FDS is no socket of TCP"))),
    }
}

/// The connected UNIX stream that this process inherited under this descriptor number. Call it once for a number,
/// before this process makes a UNIX stream of its own.
pub(super) fn inherited_stream(number: RawFd) -> io::Result<UnixStream> {
    // SAFETY: the borrowed descriptor is only queried; if it is not open, the system returns an error.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    let is_ours = sockopt::socket_type(file).is_ok_and(|kind| kind == SocketType::STREAM)
        && sockopt::socket_domain(file).is_ok_and(|family| family == AddressFamily::UNIX);
    if !is_ours {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("file {number} is no stream")));
    }
    // SAFETY: this process has not made a UNIX stream yet, so this one was inherited and nothing owns it; it is taken
    // once.
    Ok(unsafe { UnixStream::from_raw_fd(number) })
}

/// Makes the allocator return free memory to the system. Otherwise it keeps most of the memory that a peak load has
/// freed: 10,000 closed TLS connections left 56 MiB of 58 allocated, from 20 at the start, and 20.3 with this call
/// (jemalloc with its defaults: 59 of 62; mimalloc: 24.7 of 63). So the system's allocator suffices, and no request
/// pays for another one.
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number and touches only the allocator's own pages, under the allocator's own locks.
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
        // Reading the peer's end first ensures that the peer has closed before the write.
        assert_eq!(stream.read(&mut [0]).expect("an end"), 0);
        stream.write_all(b"67890").expect("a write into the void");
        assert_eq!(bytes_acknowledged(&stream), Some(heard), "the void acknowledges nothing");
    }
}
