//! Sessions whose records the kernel encrypts and decrypts (kTLS, Linux's module `tls`): another process continues such
//! a connection with its socket and a few words of state.
//!
//! The kernel gets the keys of a session when its connection leaves the process, and not earlier. It does not follow
//! changes of keys (RFC 8446 section 4.6.3): a peer that changes its key after that ends the connection, and so does the
//! limit of records for one key. Tickets of a backend are dropped.

use super::super::socket::{Received, Socket};
use super::super::sys;
use super::agreed::Version;
use super::fault::Fault;
use super::records::{FRAGMENT_BYTES, TlsScratch};
use nix::sys::socket::sockopt::{TcpTlsRx, TcpTlsTx, TcpUlp, TlsCryptoInfo};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, TlsGetRecordType, recvmsg, setsockopt};
use rustls::{CipherSuite, CommonState, ConnectionTrafficSecrets, ExtractedSecrets, SupportedCipherSuite};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;

/// The type of records with an alert (RFC 8446 section 5.1).
const ALERT: u8 = 21;

/// The alert `close_notify` (RFC 8446 section 6.1).
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// The type of a ticket among the messages of a handshake (RFC 8446 section 4).
const NEW_SESSION_TICKET: u8 = 4;

/// The state of a session beside its socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortableSession {
    version: Version,
    /// The cipher suite, as its number at IANA.
    suite: u16,
    /// Whether this node is the client of the session.
    is_client: bool,
    /// The number of records that may still be sent.
    records_left: u64,
}

impl PortableSession {
    /// The state of a session that the kernel can have: of one whose handshake is over, with a suite that the kernel knows.
    pub(super) fn of(state: &CommonState, is_client: bool) -> Option<Self> {
        let version = Version::of(state.protocol_version()?)?;
        let suite = state.negotiated_cipher_suite()?;
        let is_known = !state.is_handshaking() && has_kernel(version, Cipher::of(suite.suite())?);
        let records_left = confidentiality_limit(suite);
        is_known.then_some(Self { version, suite: suite.suite().into(), is_client, records_left })
    }

    /// The keys of one direction in the form of the kernel.
    fn keys(&self, (sequence, secrets): (u64, ConnectionTrafficSecrets), is_sending: bool) -> Option<TlsCryptoInfo> {
        let (key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key.as_ref(), iv.as_ref()),
            _ => return None,
        };
        let cipher = Cipher::of(self.suite.into())?;
        let mut nonce = <[u8; 12]>::try_from(iv).ok()?;
        // In TLS 1.2 the kernel counts the nonces of AES on from the first one, where rustls combines it with the number of
        // the record. With another first bit none comes twice.
        if is_sending && self.version == Version::Tls12 && cipher != Cipher::Chacha20Poly1305 {
            nonce[4] ^= 0x80;
        }
        crypto_info(self.version, cipher, (key, nonce), sequence)
    }
}

/// The number of records that may be encrypted with one key (RFC 8446 section 5.5).
fn confidentiality_limit(suite: SupportedCipherSuite) -> u64 {
    match suite {
        SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
    }
}

/// A session in the kernel, from its hand-over to its end.
#[derive(Debug)]
pub struct KernelSession {
    state: PortableSession,
    /// The peer has sent `close_notify`.
    has_ended: bool,
    /// A `close_notify` was sent, or none may be sent.
    is_closed: bool,
    /// The stream is to be ended once the socket has room.
    is_closing: bool,
    fault: Option<Fault>,
}

impl From<PortableSession> for KernelSession {
    fn from(state: PortableSession) -> Self {
        Self { state, has_ended: false, is_closed: false, is_closing: false, fault: None }
    }
}

impl KernelSession {
    /// Hands the keys of a session to the kernel. After an error the connection is of no use.
    pub(super) fn install(socket: &Socket, mut state: PortableSession, secrets: ExtractedSecrets) -> io::Result<Self> {
        let ExtractedSecrets { tx, rx } = secrets;
        state.records_left = state.records_left.saturating_sub(tx.0);
        let [sending, receiving] =
            [(tx, true), (rx, false)].map(|(secrets, is_sending)| state.keys(secrets, is_sending));
        setsockopt(&socket.as_fd(), TcpTlsTx, &sending.ok_or(io::ErrorKind::Unsupported)?)?;
        setsockopt(&socket.as_fd(), TcpTlsRx, &receiving.ok_or(io::ErrorKind::Unsupported)?)?;
        Ok(state.into())
    }

    pub(super) fn state(&self) -> &PortableSession {
        &self.state
    }

    pub(super) fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    pub(super) fn agreed(&self) -> Option<(&'static str, &'static str)> {
        Some((self.state.version.name(), CipherSuite::from(self.state.suite).as_str()?))
    }

    /// Reads once.
    pub(super) fn receive(&mut self, socket: &mut Socket, room: &mut [u8], tls_scratch: &mut TlsScratch) -> Received {
        if self.has_ended {
            return Received::End;
        }
        loop {
            let received = match socket.receive(room) {
                // The kernel has a record that is no data, or the connection is broken.
                Received::Broken => self.read_message(socket, &mut tls_scratch.incoming),
                Received::End => self.fail(Fault::Truncated),
                other => return other,
            };
            if received != Received::Nothing {
                return received;
            }
        }
    }

    /// Reads a record that is no data. `Received::Nothing` if it has no meaning here.
    fn read_message(&mut self, socket: &Socket, room: &mut [u8]) -> Received {
        let Some((kind, message)) = receive_record(socket, room) else { return Received::Broken };
        match (kind, message) {
            (TlsGetRecordType::Alert, [_, 0]) => {
                self.has_ended = true;
                Received::End
            }
            (TlsGetRecordType::Alert, [_, alert]) => {
                self.fail(Fault::Protocol(rustls::Error::AlertReceived((*alert).into())))
            }
            (TlsGetRecordType::Handshake, [NEW_SESSION_TICKET, ..]) if self.state.is_client => Received::Nothing,
            _ => self.fail(Fault::KeyChange),
        }
    }

    fn fail(&mut self, fault: Fault) -> Received {
        self.fault = Some(fault);
        self.is_closed = true;
        Received::Broken
    }

    /// Writes once.
    pub(super) fn send(&mut self, socket: &mut Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        let records = bytes.div_ceil(FRAGMENT_BYTES) as u64;
        let left = self.state.records_left.checked_sub(records).ok_or(io::ErrorKind::ConnectionAborted)?;
        let sent = socket.send(slices)?;
        self.state.records_left = left;
        Ok(sent)
    }

    /// Ends the stream to the peer, once the socket has room: the kernel may still have records to send, and they come
    /// before the end then.
    pub(super) fn close_write(&mut self, socket: &mut Socket) {
        self.is_closing = true;
        self.writable(socket);
    }

    /// The socket may accept bytes again.
    pub(super) fn writable(&mut self, socket: &mut Socket) {
        if self.is_closing && socket.is_writable() {
            self.is_closing = false;
            self.close_gracefully(socket);
            socket.close_write();
        }
    }

    /// Sends `close_notify`, unless it was sent or the stream was cut. It is lost if the socket has no room.
    pub(super) fn close_gracefully(&mut self, socket: &Socket) {
        if !std::mem::replace(&mut self.is_closed, true) {
            // It fails if the connection is gone, and then there is no peer to tell.
            let _ = sys::send_record(&socket.as_fd(), ALERT, &CLOSE_NOTIFY);
        }
    }

    pub(super) fn skip_close_notify(&mut self) {
        self.is_closed = true;
    }

    pub(super) fn may_end(&self) -> bool {
        self.fault.is_none()
    }
}

/// Reads a record with its type.
fn receive_record<'b>(socket: &Socket, room: &'b mut [u8]) -> Option<(TlsGetRecordType, &'b [u8])> {
    let mut control = nix::cmsg_space!(u8);
    let mut parts = [IoSliceMut::new(room)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
    let length = received.bytes;
    let kind = received.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::TlsGetRecordType(kind) => Some(kind),
        _ => None,
    })?;
    Some((kind, room.get(..length)?))
}

/// Whether the kernel encrypts and decrypts records: with the module `tls`, all ciphers of this program, and no rule of
/// a container against it.
pub fn kernel_has_tls() -> bool {
    KINDS.iter().all(|(version, cipher)| has_kernel(*version, *cipher))
}

/// Prepares a connected socket for the keys of a session; nothing changes for it until they follow. Returns whether the
/// kernel has accepted that.
pub(super) fn prepare(socket: &Socket) -> bool {
    matches!(setsockopt(&socket.as_fd(), TcpUlp::default(), &"tls"), Ok(()) | Err(nix::errno::Errno::EEXIST))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

/// All kinds of sessions of this program.
const KINDS: [(Version, Cipher); 6] = [
    (Version::Tls12, Cipher::Aes128Gcm),
    (Version::Tls12, Cipher::Aes256Gcm),
    (Version::Tls12, Cipher::Chacha20Poly1305),
    (Version::Tls13, Cipher::Aes128Gcm),
    (Version::Tls13, Cipher::Aes256Gcm),
    (Version::Tls13, Cipher::Chacha20Poly1305),
];

impl Cipher {
    /// The cipher of a suite.
    fn of(suite: CipherSuite) -> Option<Self> {
        let name = suite.as_str()?;
        let table = [
            ("AES_128_GCM_SHA256", Self::Aes128Gcm),
            ("AES_256_GCM_SHA384", Self::Aes256Gcm),
            ("CHACHA20_POLY1305_SHA256", Self::Chacha20Poly1305),
        ];
        table.into_iter().find(|(end, _)| name.ends_with(end)).map(|(_, cipher)| cipher)
    }
}

/// Whether the kernel has a cipher: it is asked once for each, with a connection of this process to itself.
fn has_kernel(version: Version, cipher: Cipher) -> bool {
    static KNOWN: OnceLock<Vec<(Version, Cipher)>> = OnceLock::new();
    let known = KNOWN
        .get_or_init(|| KINDS.into_iter().filter(|(version, cipher)| try_kernel(*version, *cipher).is_ok()).collect());
    known.contains(&(version, cipher))
}

fn try_kernel(version: Version, cipher: Cipher) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    let key: &[u8] = if cipher == Cipher::Aes128Gcm { &[0; 16] } else { &[0; 32] };
    let keys = crypto_info(version, cipher, (key, [0; 12]), 0).ok_or(io::ErrorKind::Unsupported)?;
    setsockopt(&socket.as_fd(), TcpUlp::default(), &"tls")?;
    setsockopt(&socket.as_fd(), TcpTlsTx, &keys)?;
    Ok(setsockopt(&socket.as_fd(), TcpTlsRx, &keys)?)
}

/// Keys in the form of the kernel. `None` if their length is not that of the cipher.
fn crypto_info(
    version: Version,
    cipher: Cipher,
    (key, nonce): (&[u8], [u8; 12]),
    sequence: u64,
) -> Option<TlsCryptoInfo> {
    let version = match version {
        Version::Tls12 => libc::TLS_1_2_VERSION,
        Version::Tls13 => libc::TLS_1_3_VERSION,
    };
    let info = |cipher_type| libc::tls_crypto_info { version, cipher_type };
    let (salt, iv) = nonce.split_first_chunk()?;
    let (salt, iv, rec_seq) = (*salt, iv.try_into().ok()?, sequence.to_be_bytes());
    Some(match cipher {
        Cipher::Aes128Gcm => TlsCryptoInfo::Aes128Gcm(libc::tls12_crypto_info_aes_gcm_128 {
            info: info(libc::TLS_CIPHER_AES_GCM_128),
            iv,
            key: key.try_into().ok()?,
            salt,
            rec_seq,
        }),
        Cipher::Aes256Gcm => TlsCryptoInfo::Aes256Gcm(libc::tls12_crypto_info_aes_gcm_256 {
            info: info(libc::TLS_CIPHER_AES_GCM_256),
            iv,
            key: key.try_into().ok()?,
            salt,
            rec_seq,
        }),
        Cipher::Chacha20Poly1305 => TlsCryptoInfo::Chacha20Poly1305(libc::tls12_crypto_info_chacha20_poly1305 {
            info: info(libc::TLS_CIPHER_CHACHA20_POLY1305),
            iv: nonce,
            key: key.try_into().ok()?,
            salt: [],
            rec_seq,
        }),
    })
}
