//! TLS under a connection: sessions, certificates, and the settings of each peer.
//!
//! rustls does the protocol, by its interface without buffers of its own: an idle session has the memory of its state
//! and nothing else. A read or a write uses the worker's [`TlsScratch`] in between.

mod agreed;
mod client;
mod credentials;
mod expiry;
mod files;
mod names;
mod records;
mod server;
mod session;

pub(super) use agreed::agreed;
pub use client::{BackendSettings, BackendTls, TlsClientTarget, Verification, system_client};
pub use credentials::{Credentials, CredentialsFault, PemFault, PemText, read_certificates, read_credentials};
pub use expiry::{CertificateInfo, DAY, warn_of_expiry};
pub use files::{CertificateFiles, FileFault, is_open_to_others, load_certificates, read};
pub use records::TlsScratch;
pub use server::{ClientAuth, NamedCredentials, ServerSettings, Suites, TlsServerContext, Versions};
pub use session::{Fault, Session};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use std::sync::{Arc, LazyLock};

/// The one implementation of cryptography: measured faster than ring (twice with RSA, by a tenth with P-256).
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// The protocol that is spoken over TLS (RFC 7301): others would not be understood.
const ALPN: &[u8] = b"http/1.1";
