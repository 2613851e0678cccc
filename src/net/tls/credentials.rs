//! A certificate and its key, from PEM.

use super::PROVIDER;
use pkcs8::EncryptedPrivateKeyInfo;
use pkcs8::der::ErrorKind;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use std::fmt;
use std::sync::Arc;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A certificate chain with its key, ready for use.
#[derive(Clone)]
pub struct Credentials(Arc<CertifiedKey>);

impl fmt::Debug for Credentials {
    /// Keys are never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} certificates)", self.0.cert.len())
    }
}

impl PartialEq for Credentials {
    /// Equal chains have equal keys too.
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

impl Eq for Credentials {}

impl Credentials {
    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0)
    }

    /// Whether both present the same chain to clients.
    pub fn is_same(&self, other: &Self) -> bool {
        self == other && self.0.ocsp == other.0.ocsp
    }

    /// The host names in the certificate, in lower case.
    pub fn names(&self) -> Vec<String> {
        let certificate = self.0.end_entity_cert().ok();
        let parsed = certificate.and_then(|der| x509_cert::Certificate::from_der(der).ok());
        let alternatives = parsed.and_then(|parsed| parsed.tbs_certificate.get::<SubjectAltName>().ok().flatten());
        let names = alternatives.map(|(_, names)| names.0).unwrap_or_default();
        let host = |name: &GeneralName| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
            _ => None,
        };
        names.iter().filter_map(host).collect()
    }

    /// Whether the certificate is for `name`.
    pub fn cover(&self, name: &str) -> bool {
        let certificate = self.0.end_entity_cert().ok();
        let parsed = certificate.and_then(|der| rustls::server::ParsedCertificate::try_from(der).ok());
        match (parsed, ServerName::try_from(name)) {
            (Some(certificate), Ok(name)) => rustls::client::verify_server_name(&certificate, &name).is_ok(),
            _ => false,
        }
    }
}

/// The parts of credentials, as PEM texts.
#[derive(Clone, Copy, Default)]
pub struct PemText<'a> {
    /// The certificate, and the intermediate ones up to its authority.
    pub certificate: &'a [u8],
    /// More intermediate certificates.
    pub chain: &'a [CertificateDer<'static>],
    /// The key.
    pub key: &'a [u8],
    /// The passphrase of an encrypted key.
    pub passphrase: Option<&'a str>,
    /// The stapled OCSP response (DER), sent to clients.
    pub staple: Option<&'a [u8]>,
}

/// A fault of a certificate or its key. Its text never contains a part of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialsFault {
    /// A fault of the certificates.
    Certificate(PemFault),
    /// A fault of the key.
    Key(PemFault),
    /// The key has no known PEM label.
    NoKey,
    /// The key is encrypted, and no passphrase is given.
    NoPassphrase,
    /// The passphrase does not decrypt the key.
    Passphrase(String),
    /// The key is encrypted in an obsolete format: OpenSSL's own, or with DES.
    OldEncryption,
    /// The certificates are out of order: the key belongs to this one (from 2 on), not to the first.
    Disorder(usize),
    /// The key belongs to none of the certificates.
    Mismatch,
    /// The type of the key is not supported.
    Unusable(String),
}

/// A fault of a PEM text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PemFault {
    /// It contains no certificate.
    Nothing,
    /// It contains a key in place of a certificate.
    Key,
    /// A `-----BEGIN` line has more on it than its label: line breaks were lost.
    LineBreaks,
    /// A part has no `-----END` line.
    NoEnd,
    /// The text between the two lines is not Base64.
    Base64,
    /// It is longer than any certificate or key.
    TooLong,
    /// It is valid PEM without a certificate or a key.
    Content,
}

impl PemFault {
    /// The kind of the error alone: its text may quote the line, and with it the key.
    fn new(error: &pem::Error) -> Self {
        match error {
            pem::Error::MissingSectionEnd { .. } => Self::NoEnd,
            pem::Error::IllegalSectionStart { .. } => Self::LineBreaks,
            pem::Error::Base64Decode(_) => Self::Base64,
            pem::Error::SectionTooLarge => Self::TooLong,
            pem::Error::NoItemsFound => Self::Nothing,
            _ => Self::Content,
        }
    }
}

impl CredentialsFault {
    /// Whether the fault is in the key.
    pub(super) fn is_of_key(&self) -> bool {
        !matches!(self, Self::Certificate(_))
    }
}

impl fmt::Display for PemFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no part that begins with -----BEGIN CERTIFICATE-----"),
            Self::Key => f.write_str("there is a key in it and no certificate; are the two swapped?"),
            Self::LineBreaks => f.write_str(
                "its line breaks are lost: a line has more on it than -----BEGIN …-----; write each line on its own",
            ),
            Self::NoEnd => {
                f.write_str("a part has no line -----END …----- of its own; is it cut, or are line breaks lost?")
            }
            Self::Base64 => f.write_str("what stands between -----BEGIN and -----END is no base64"),
            Self::TooLong => f.write_str("a part is too long"),
            Self::Content => f.write_str("a part does not hold what its label says"),
        }
    }
}

impl fmt::Display for CredentialsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(fault) => write!(f, "the certificate cannot be used: {fault}"),
            Self::Key(fault) => write!(f, "the key cannot be read: {fault}"),
            Self::NoKey => f.write_str("the key has no part that begins with -----BEGIN PRIVATE KEY----- or its like"),
            Self::NoPassphrase => f.write_str("the key is encrypted and there is no passphrase; give one, or decrypt it"),
            Self::Passphrase(error) => write!(f, "the passphrase does not open the key: {error}"),
            Self::OldEncryption => f.write_str(
                "the key is encrypted in an old way; encrypt it with AES: openssl pkcs8 -topk8 -v2 aes256 -in OLD -out NEW",
            ),
            Self::Disorder(place) => write!(
                f,
                "certificate and key do not go together: the key is that of certificate {place}, which has to be the first",
            ),
            Self::Mismatch => f.write_str("certificate and key do not go together: the key is another certificate's"),
            Self::Unusable(error) => write!(f, "certificate and key do not go together: {error}"),
        }
    }
}

/// Reads all certificates of a PEM text.
pub fn read_certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemFault> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match read {
        Ok(certificates) if certificates.is_empty() && memchr::memmem::find(text, b"PRIVATE KEY-----").is_some() => {
            Err(PemFault::Key)
        }
        Ok(certificates) if certificates.is_empty() => Err(PemFault::Nothing),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(PemFault::new(&error)),
    }
}

/// Makes credentials from PEM texts. It is slow, since it computes with keys, and must not run on a worker.
pub fn read_credentials(text: &PemText<'_>) -> Result<Credentials, CredentialsFault> {
    let mut certificates = read_certificates(text.certificate).map_err(CredentialsFault::Certificate)?;
    for link in text.chain {
        if !certificates.contains(link) {
            certificates.push(link.clone());
        }
    }
    let key = read_key(text.key, text.passphrase)?;
    let key = PROVIDER.key_provider.load_private_key(key);
    let mut certified =
        CertifiedKey::new(certificates, key.map_err(|error| CredentialsFault::Unusable(error.to_string()))?);
    certified.ocsp = text.staple.map(<[u8]>::to_vec);
    match certified.keys_match() {
        // A key without a readable public half cannot be compared.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Credentials(Arc::new(certified))),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(mismatch(&certified)),
        Err(error) => Err(CredentialsFault::Unusable(error.to_string())),
    }
}

/// The fault if the key does not belong to the first certificate.
fn mismatch(pair: &CertifiedKey) -> CredentialsFault {
    let is_owner = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(&pair.key)).keys_match().is_ok()
    };
    pair.cert.iter().position(is_owner).map_or(CredentialsFault::Mismatch, |at| CredentialsFault::Disorder(at + 1))
}

fn read_key(text: &[u8], passphrase: Option<&str>) -> Result<PrivateKeyDer<'static>, CredentialsFault> {
    const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
    let as_text = String::from_utf8_lossy(text);
    if as_text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(CredentialsFault::OldEncryption);
    }
    if let Some(section) = section(&as_text, ENCRYPTED) {
        return decrypt(section, passphrase.ok_or(CredentialsFault::NoPassphrase)?);
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => CredentialsFault::NoKey,
        error => CredentialsFault::Key(PemFault::new(&error)),
    })
}

fn section<'t>(text: &'t str, label: &str) -> Option<&'t str> {
    let start = text.find(&format!("-----BEGIN {label}-----"))?;
    let end = format!("-----END {label}-----");
    let len = text[start..].find(&end)? + end.len();
    Some(&text[start..start + len])
}

fn decrypt(section: &str, passphrase: &str) -> Result<PrivateKeyDer<'static>, CredentialsFault> {
    let unreadable = CredentialsFault::Key(PemFault::Content);
    let (_, document) =
        pkcs8::SecretDocument::from_pem(section).map_err(|_| CredentialsFault::Key(PemFault::Base64))?;
    let info = EncryptedPrivateKeyInfo::try_from(document.as_bytes()).map_err(|error| match error {
        // Triple DES.
        pkcs8::Error::Asn1(error) if matches!(error.kind(), ErrorKind::OidUnknown { .. }) => {
            CredentialsFault::OldEncryption
        }
        _ => unreadable,
    })?;
    let key = info.decrypt(passphrase).map_err(|error| match error {
        pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::NoPbes1CryptSupport) => CredentialsFault::OldEncryption,
        error => CredentialsFault::Passphrase(error.to_string()),
    })?;
    Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec())))
}
