//! `"certificates": {"www.example.com": {"certificate": PEM or path, "key": PEM or path}}`: the syntax only. Whether a
//! pair is usable shows at the first look-up of its name, and affects no other name.

use super::super::certificates::{CertificateRecord, PemSource};
use super::{Members, Reader, kind, pattern, shown, string};
use crate::base::secret::is_path;
use serde_json::value::RawValue;
use std::path::PathBuf;

/// A text that every PEM contains and no path does.
const PEM_MARK: &str = "-----BEGIN ";

impl<'a> Reader<'a> {
    pub(super) fn read_certificates(&mut self, value: &'a RawValue) {
        let Ok(members) = serde_json::from_str::<Members<'a>>(value.get()) else {
            let problem = format!("found {}, expected an object of certificates", kind(value));
            return self.fault(value, "certificates", &problem);
        };
        for (key, pair) in members.0 {
            let Some(name) = string(key) else {
                self.fault(key, "certificates", "found a name that is not Unicode text");
                continue;
            };
            let path = format!("certificates[{}]", shown(&name));
            match (pattern(&name), self.read_pair(pair, &path)) {
                (Ok(pattern), Some(record)) => {
                    if self.certificates.insert(pattern.into(), record).is_some() {
                        self.fault(key, &path, "stands twice");
                    }
                }
                (Ok(_), None) => {}
                (Err(problem), _) => self.fault(key, &path, problem),
            }
        }
    }

    /// A pair; `None` if it has a fault.
    fn read_pair(&mut self, value: &'a RawValue, path: &str) -> Option<CertificateRecord> {
        let Ok(members) = serde_json::from_str::<Members<'a>>(value.get()) else {
            self.fault(value, path, &format!("found {}, expected an object of certificate and key", kind(value)));
            return None;
        };
        let (mut certificate, mut key, mut passphrase, mut staple) = (None, None, None, None);
        let mut is_good = true;
        for (name, value) in members.0 {
            let name_text = string(name).unwrap_or_default();
            let slot = match name_text.as_str() {
                "certificate" => &mut certificate,
                "key" => &mut key,
                "passphrase" => &mut passphrase,
                "ocsp" => &mut staple,
                _ => {
                    self.warn(name, &format!("{path}.{name_text}"), "is unknown and ignored");
                    continue;
                }
            };
            // The value is not shown: it may be a key.
            match string(value).filter(|text| !text.is_empty()) {
                Some(text) => *slot = Some(text),
                None => {
                    is_good = false;
                    let found = if value.get() == "\"\"" { "an empty text" } else { kind(value) };
                    self.fault(value, &format!("{path}.{name_text}"), &format!("found {found}, expected a text"));
                }
            }
        }
        for (name, slot) in [("certificate", &certificate), ("key", &key)] {
            if slot.is_none() && is_good {
                self.fault(value, &format!("{path}.{name}"), "is missing, expected a PEM text or the path of a file");
            }
        }
        for (name, slot) in [("certificate", &certificate), ("key", &key), ("ocsp", &staple)] {
            let is_pem = |text: &&String| name != "ocsp" && text.contains(PEM_MARK);
            if slot.as_ref().is_some_and(|text| !is_pem(&text) && !is_path(text)) {
                is_good = false;
                let problem = "found a text that is neither PEM nor a path (it is not shown), expected a PEM text with its \
                               line breaks, or the path of a file";
                self.fault(value, &format!("{path}.{name}"), problem);
            }
        }
        let record = CertificateRecord {
            certificate: self.text(certificate?),
            key: self.text(key?),
            passphrase: passphrase.map(Into::into),
            staple: staple.map(|path| self.folder.join(path)),
        };
        is_good.then_some(record)
    }

    fn text(&self, text: String) -> PemSource {
        match text.contains(PEM_MARK) {
            true => PemSource::Here(text.into()),
            false => PemSource::File(self.folder.join(PathBuf::from(text))),
        }
    }
}
