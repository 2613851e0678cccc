//! The server name of a client's hello, and the subject of a certificate.

use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// A host name in the form used for comparison: lower case, without a trailing dot.
pub(super) fn normal(name: &str) -> Box<str> {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into()
}

/// The subject of a certificate as text (RFC 4514) in visible ASCII, for use in a header.
pub(super) fn subject(certificate: &CertificateDer<'_>) -> Option<Arc<String>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let text = certificate.tbs_certificate.subject.to_string();
    let visible = |char: char| if (' '..='~').contains(&char) { char } else { '?' };
    Some(text.chars().map(visible).collect::<String>().into())
}
