//! TLS as a client: the verification of backends.

use super::credentials::Credentials;
use super::files::{FileFault, load_certificates};
use super::{ALPN, PROVIDER};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use x509_cert::der::Decode;

/// Number of resumable sessions with backends, for each core.
const RESUMABLE: usize = 1024;

/// TLS settings for backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendSettings {
    /// How certificates of backends are verified.
    pub verification: Verification,
    /// The client certificate for backends that request one.
    pub credentials: Option<Credentials>,
}

/// How the certificate of a backend is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// It must be signed by an authority of the system.
    #[default]
    System,
    /// It must be signed by one of these authorities, or be one of these certificates itself.
    Authorities(Vec<CertificateDer<'static>>),
    /// No verification: every certificate is accepted.
    Nothing,
}

/// The peer of a handshake, and its settings.
#[derive(Clone, Debug)]
pub struct TlsClientTarget {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsClientTarget {
    pub(super) fn connection(&self) -> Result<UnbufferedClientConnection, Error> {
        UnbufferedClientConnection::new(Arc::clone(&self.config), self.name.clone())
    }
}

/// The authorities of one backend (its attribute `ca`).
#[derive(Debug)]
pub struct BackendAuthorities {
    certificates: Vec<CertificateDer<'static>>,
}

impl BackendAuthorities {
    /// Reads the certificates of this file.
    pub fn load(path: &Path) -> Result<Self, FileFault> {
        load_certificates(path).map(|certificates| Self { certificates })
    }
}

/// What the certificate of a backend has to prove.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// What `server.backendTls` says.
    Settings,
    /// Nothing.
    Anything,
    /// That one of these has signed it, or that it is one of these.
    Authorities(&'a Arc<BackendAuthorities>),
}

/// TLS settings for all backends. Each worker has its own, with the tickets that backends gave it.
#[derive(Debug)]
pub struct BackendTls {
    settings: BackendSettings,
    config: Arc<ClientConfig>,
    /// For backends any of whose certificates will do.
    unverified: Arc<ClientConfig>,
    /// For backends with authorities of their own. Each thread has its own, so the lock is never waited for.
    by_authorities: Mutex<Vec<(Arc<BackendAuthorities>, Arc<ClientConfig>)>>,
}

/// Backends with authorities of their own whose settings are kept.
const MAX_OWN: usize = 256;

impl Clone for BackendTls {
    fn clone(&self) -> Self {
        let own = |config: &ClientConfig| {
            let mut config = config.clone();
            config.resumption = Resumption::in_memory_sessions(RESUMABLE);
            Arc::new(config)
        };
        Self {
            settings: self.settings.clone(),
            config: own(&self.config),
            unverified: own(&self.unverified),
            by_authorities: Mutex::default(),
        }
    }
}

impl BackendTls {
    /// TLS as in the settings. The error says why the settings cannot be used.
    pub fn new(settings: &BackendSettings) -> Result<Self, String> {
        let unverified = BackendSettings { verification: Verification::Nothing, ..settings.clone() };
        Ok(Self {
            settings: settings.clone(),
            config: client_config(settings)?,
            unverified: client_config(&unverified)?,
            by_authorities: Mutex::default(),
        })
    }

    /// How to talk to the backend of this name or address; `None` where it is neither, or its authorities are no good.
    pub fn to(&self, host: &str, trust: Trust<'_>) -> Option<TlsClientTarget> {
        let name = ServerName::try_from(host.to_owned()).ok()?;
        let config = match trust {
            Trust::Settings => Arc::clone(&self.config),
            Trust::Anything => Arc::clone(&self.unverified),
            Trust::Authorities(authorities) => self.config_for(authorities)?,
        };
        Some(TlsClientTarget { config, name })
    }

    fn config_for(&self, authorities: &Arc<BackendAuthorities>) -> Option<Arc<ClientConfig>> {
        let mut known = self.by_authorities.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = known.iter().find(|(known, _)| Arc::ptr_eq(known, authorities)) {
            return Some(Arc::clone(config));
        }
        let verification = Verification::Authorities(authorities.certificates.clone());
        let config = client_config(&BackendSettings { verification, ..self.settings.clone() }).ok()?;
        // Backends that are gone have dropped theirs.
        known.retain(|(known, _)| Arc::strong_count(known) > 1);
        if known.len() >= MAX_OWN {
            known.remove(0);
        }
        known.push((Arc::clone(authorities), Arc::clone(&config)));
        Some(config)
    }
}

fn client_config(settings: &BackendSettings) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &settings.verification {
        Verification::Nothing => builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptsAnyCertificate)),
        Verification::System => builder.with_root_certificates(system_roots()?),
        Verification::Authorities(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority.clone()).map_err(|error| error.to_string())?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER));
            let verifier = verifier.build().map_err(|error| error.to_string())?;
            let verifier = NamedOrSigned { verifier, named: authorities.clone() };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let mut config = match &settings.credentials {
        Some(credentials) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(credentials.certified_key())))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::in_memory_sessions(RESUMABLE);
    // Sessions go to another process.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// TLS settings for any protocol, with a server whose certificate is signed by an authority of the system. The error
/// says why the system has no usable authority.
pub fn system_client() -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(system_roots()?).with_no_client_auth()))
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some stores hold old certificates that can no longer be parsed.
    let (good, _) = roots.add_parsable_certificates(found.certs);
    if good == 0 {
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(format!("no certificate of an authority was found on this system {}", errors.join(", ")));
    }
    Ok(roots)
}

/// Accepts a certificate that is signed by one of the authorities, or that is in the list itself. A self-signed
/// certificate names itself as an authority and so must not be a server's (RFC 5280 section 4.2.1.9), but the list
/// names it explicitly.
#[derive(Debug)]
struct NamedOrSigned {
    verifier: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for NamedOrSigned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        staple: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.named.iter().any(|named| named == certificate) {
            return self.verifier.verify_server_cert(certificate, chain, name, staple, now);
        }
        let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        let parsed = x509_cert::Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let validity = parsed.tbs_certificate.validity;
        if now.as_secs() < seconds(validity.not_before) {
            return Err(CertificateError::NotValidYet.into());
        }
        if now.as_secs() > seconds(validity.not_after) {
            return Err(CertificateError::Expired.into());
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Accepts every certificate (`server.backendTls.insecure`).
#[derive(Debug)]
struct AcceptsAnyCertificate;

impl ServerCertVerifier for AcceptsAnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}
