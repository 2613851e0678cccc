//! A socket with what it has not yet been read and what it would not yet take.

use mio::net::TcpStream;
use std::io::{self, ErrorKind, Read, Write};

/// Input and output of a connection.
pub(crate) struct Buffered {
    pub(crate) socket: TcpStream,
    pub(crate) input: Vec<u8>,
    output: Vec<u8>,
}

impl Buffered {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { socket, input: Vec::new(), output: Vec::new() }
    }

    /// Reads everything that is there into `input`; an error also where the stream ends.
    pub(crate) fn fill(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.input.extend_from_slice(&scratch[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends `bytes`, or keeps what the socket would not take for [`Buffered::flush`].
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.extend_from_slice(bytes);
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Cuts the head of a handshake, its empty line included, from the input.
    pub(crate) fn take_head(&mut self) -> io::Result<Option<Vec<u8>>> {
        let end = self.input.windows(4).position(|window| window == b"\r\n\r\n");
        match end {
            None if self.input.len() > super::MAX_HEAD_BYTES => {
                Err(io::Error::new(ErrorKind::InvalidData, "reading a handshake: the head does not end"))
            }
            None => Ok(None),
            Some(at) => {
                let rest = self.input.split_off(at + 4);
                Ok(Some(std::mem::replace(&mut self.input, rest)))
            }
        }
    }
}
