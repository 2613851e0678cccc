//! TLS sessions, certificates, and the TLS settings of clients and backends.
//!
//! rustls implements the protocol, through its interface without internal buffers: an idle session takes the memory of
//! its state and no more. A read or a write uses the worker's [`TlsScratch`].

mod agreed;
mod client;
mod credentials;
mod expiry;
mod fault;
mod files;
mod kernel;
mod layer;
mod names;
mod records;
mod server;
mod session;

pub use client::{
    BackendAuthorities, BackendSettings, BackendTls, TlsClientTarget, Trust, Verification, system_client,
};
pub use credentials::{Credentials, CredentialsFault, PemFault, PemText, read_certificates, read_credentials};
pub use expiry::{CertificateInfo, DAY, warn_of_expiry};
pub use fault::Fault;
pub use files::{CertificateFiles, FileFault, is_open_to_others, load_certificates, read};
pub use kernel::{PortableSession, kernel_has_tls};
pub use layer::TlsLayer;
pub use records::TlsScratch;
pub use server::{ClientAuth, NamedCredentials, ServerSettings, Suites, TlsServerContext, Versions};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use std::sync::{Arc, LazyLock};

/// The cryptography of all sessions: measured faster than ring (twice with RSA, by a tenth with P-256).
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// The only protocol negotiated over TLS (RFC 7301): no other is supported.
const ALPN: &[u8] = b"http/1.1";
