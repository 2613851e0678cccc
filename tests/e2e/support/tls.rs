//! An authority that issues certificates, and clients that trust it.

use super::client::{Client, Transport, connect};
use super::{PATIENCE, proxy::Proxy};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme, StreamOwned, SupportedProtocolVersion,
};
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// Whoever signs the certificates of a test.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Pair {
    /// As it stands in the routes file.
    pub(crate) fn as_json(&self) -> Value {
        json!({"certificate": self.certificate, "key": self.key})
    }

    /// The certificate in the form in which a client sees it.
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate")
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    /// An authority that nobody has heard of yet.
    pub(crate) fn new() -> Self {
        let mut params = named("Authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("an authority") }
    }

    /// A certificate for these names; the first is its subject too.
    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 4096)
    }

    /// The same, good from 2020 until the beginning of this year.
    pub(crate) fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        self.issue_with(names, |params| params.not_after = rcgen::date_time_ymd(year, 1, 1))
    }

    /// The same, good for so long from now.
    pub(crate) fn issue_for(&self, names: &[&str], time: Duration) -> Pair {
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("a time after 1970");
        self.issue_with(names, |params| params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + time)
    }

    fn issue_with(&self, names: &[&str], set_end: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names_of = |params: &mut CertificateParams| {
            let text: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            params.subject_alt_names = CertificateParams::new(text).expect("good names").subject_alt_names;
        };
        let mut params = named(names[0]);
        names_of(&mut params);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        set_end(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A certificate that signs itself and says that it is an authority, as `openssl req -x509` makes it.
    pub(crate) fn self_signed(names: &[&str]) -> Pair {
        let text: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(text).expect("good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// The certificate of the authority itself.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Clients that trust this authority alone.
    pub(crate) fn trust(&self) -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        Trust::new(roots, rustls::ALL_VERSIONS, None)
    }
}

/// What clients of a kind have in common, tickets included.
pub(crate) struct Trust {
    roots: RootCertStore,
    config: Arc<ClientConfig>,
}

impl Trust {
    fn new(roots: RootCertStore, versions: &[&'static SupportedProtocolVersion], own: Option<&Pair>) -> Self {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots.clone());
        let mut config = match own {
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(vec![pair.der()], key).expect("a pair")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { roots, config: Arc::new(config) }
    }

    /// The same, of this version alone.
    pub(crate) fn of_version(self, version: &'static SupportedProtocolVersion) -> Self {
        Self::new(self.roots, &[version], None)
    }

    /// The same, with a certificate of their own.
    pub(crate) fn with_own(self, pair: &Pair) -> Self {
        Self::new(self.roots, rustls::ALL_VERSIONS, Some(pair))
    }

    /// The same, which offer this protocol alone.
    pub(crate) fn offering(self, protocol: &str) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Self { config: Arc::new(config), ..self }
    }

    /// The same, which note what is stapled to the certificates they are shown.
    pub(crate) fn noting_staples(self) -> (Self, Staples) {
        let staples = Staples::default();
        let mut config = ClientConfig::clone(&self.config);
        let noting = Noting { staples: Arc::clone(&staples), provider: provider() };
        config.dangerous().set_certificate_verifier(Arc::new(noting));
        (Self { config: Arc::new(config), ..self }, staples)
    }

    /// The same, whose records are of this size at most on the wire.
    pub(crate) fn with_records_of(&self, size: Option<usize>) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.max_fragment_size = size;
        Self { config: Arc::new(config), roots: self.roots.clone() }
    }

    /// A session that has yet to begin.
    pub(crate) fn session(&self, name: &str) -> ClientConnection {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        ClientConnection::new(Arc::clone(&self.config), name).expect("a client")
    }

    /// A connection, hands shaken with whoever is called `name` at `address`.
    #[track_caller]
    pub(crate) fn connect(&self, address: SocketAddr, name: &str) -> TlsStream {
        self.try_connect(address, name).unwrap_or_else(|error| panic!("TLS handshake with {name}: {error}"))
    }

    /// The same, if hands can be shaken.
    pub(crate) fn try_connect(&self, address: SocketAddr, name: &str) -> io::Result<TlsStream> {
        self.shake_hands(connect(address, None), name)
    }

    /// The same over a connection that is there already.
    pub(crate) fn shake_hands(&self, mut socket: TcpStream, name: &str) -> io::Result<TlsStream> {
        let mut connection = self.session(name);
        socket.set_read_timeout(Some(PATIENCE))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(TlsStream(StreamOwned::new(connection, socket)))
    }

    /// A client of the proxy that asks for `name`.
    #[track_caller]
    pub(crate) fn client(&self, proxy: &Proxy, name: &str) -> Client {
        Client::over(Box::new(self.connect(proxy.secure_address(), name)))
    }

    /// The certificate that the proxy shows to those who ask for `name`; `None` where no hands can be shaken.
    pub(crate) fn shown(&self, proxy: &Proxy, name: &str) -> Option<CertificateDer<'static>> {
        // Who comes with a ticket is shown nothing.
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::disabled();
        let stranger = Self { config: Arc::new(config), roots: self.roots.clone() };
        stranger.try_connect(proxy.secure_address(), name).ok().map(|stream| stream.certificate())
    }
}

/// What was stapled to the certificates that were shown.
pub(crate) type Staples = Arc<Mutex<Vec<Vec<u8>>>>;

/// Believes everybody, and notes what is stapled.
#[derive(Debug)]
struct Noting {
    staples: Staples,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        staple: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.staples.lock().expect("no panic").push(staple.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The cryptography of all tests.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// An encrypted connection.
pub(crate) struct TlsStream(StreamOwned<ClientConnection, TcpStream>);

impl TlsStream {
    /// What the other side has shown.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        let shown = self.0.conn.peer_certificates().expect("hands were shaken");
        shown[0].clone().into_owned()
    }

    /// Whether hands were shaken by a ticket.
    pub(crate) fn is_resumed(&self) -> bool {
        self.0.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The session beneath.
    pub(crate) fn session(&self) -> &ClientConnection {
        &self.0.conn
    }
}

impl Read for TlsStream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room)
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.0.flush()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Transport for TlsStream {
    fn socket(&self) -> &TcpStream {
        &self.0.sock
    }

    fn finish_writing(&mut self) {
        self.0.conn.send_close_notify();
        self.0.flush().expect("saying goodbye");
        self.0.sock.finish_writing();
    }
}

/// How a backend ends its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a goodbye.
    Goodbye,
    /// Without one.
    Cut,
    /// With bytes that nobody asked for, and then not at all.
    Stray,
}

/// Gives every connection this answer, whatever it asks, and ends it. Returns where, and counts
/// the connections it is done with.
pub(crate) fn serve(pair: &Pair, response: &'static [u8], end: End) -> (SocketAddr, Arc<AtomicUsize>) {
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![pair.der()], key)
        .expect("a pair");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (config, count) = (Arc::new(config), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for socket in listener.incoming() {
            let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            let socket = socket.expect("a connection");
            // Otherwise what comes after the answer would wait for its acknowledgement, which may leave with the next request.
            socket.set_nodelay(true).expect("setting an option");
            let mut stream = StreamOwned::new(session, socket);
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                heard.push(byte[0]);
            }
            stream.write_all(response).expect("sending the answer");
            if end == End::Goodbye {
                stream.conn.send_close_notify();
            }
            stream.flush().expect("sending the answer");
            if end == End::Stray {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray").expect("sending more");
                kept.push(stream);
            }
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (address, count)
}
