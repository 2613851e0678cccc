//! A certificate and its key in files.

use super::credentials::{Credentials, PemText, read_certificates, read_credentials};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The greatest size of a file: a certificate is smaller.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Permission bits of users other than the owner and the group of a file.
const OTHERS: u32 = 0o007;

/// The files of a certificate and its key.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and the intermediate ones up to its authority.
    pub certificate: PathBuf,
    /// More intermediate certificates.
    pub chain: Vec<PathBuf>,
    /// The key.
    pub key: PathBuf,
    /// The passphrase of an encrypted key.
    pub passphrase: Option<Box<str>>,
    /// The stapled OCSP response (DER).
    pub staple: Option<PathBuf>,
}

impl fmt::Debug for CertificateFiles {
    /// The passphrase is never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateFiles({}, {})", self.certificate.display(), self.key.display())
    }
}

/// A file and its fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault {
    /// The file.
    pub path: PathBuf,
    /// The fault.
    pub problem: String,
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)
    }
}

impl CertificateFiles {
    /// Reads the files.
    pub fn load(&self) -> Result<Credentials, FileFault> {
        let certificate = read(&self.certificate)?;
        let key = read(&self.key)?;
        let staple = self.staple.as_deref().map(read).transpose()?;
        let mut chain = Vec::new();
        for path in &self.chain {
            chain.extend(
                read_certificates(&read(path)?)
                    .map_err(|fault| FileFault { path: path.clone(), problem: fault.to_string() })?,
            );
        }
        let text = PemText {
            certificate: &certificate,
            chain: &chain,
            key: &key,
            passphrase: self.passphrase.as_deref(),
            staple: staple.as_deref(),
        };
        read_credentials(&text).map_err(|fault| {
            let path = if fault.is_of_key() { &self.key } else { &self.certificate };
            FileFault { path: path.clone(), problem: fault.to_string() }
        })
    }

    /// All files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let chain = self.chain.iter().map(PathBuf::as_path);
        [&*self.certificate, &*self.key].into_iter().chain(chain).chain(self.staple.as_deref())
    }
}

/// Whether every user of the system can read the file.
pub fn is_open_to_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.mode() & OTHERS != 0)
}

/// Reads all certificates of a file.
pub fn load_certificates(path: &Path) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, FileFault> {
    read_certificates(&read(path)?).map_err(|fault| FileFault { path: path.into(), problem: fault.to_string() })
}

/// Reads a file of limited size.
pub fn read(path: &Path) -> Result<Vec<u8>, FileFault> {
    let fault = |problem: String| FileFault { path: path.into(), problem };
    let data = fs::metadata(path).map_err(|error| fault(error.to_string()))?;
    if !data.is_file() || data.len() > MAX_FILE_BYTES {
        return Err(fault("is no file of up to 1 MiB".into()));
    }
    fs::read(path).map_err(|error| fault(error.to_string()))
}
