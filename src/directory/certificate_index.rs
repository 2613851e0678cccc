//! The certificates in use by pattern, for views. The certificate thread writes them; any thread reads them, without
//! waiting for a look-up.

use crate::net::tls::{CertificateInfo, Credentials};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct CertificateIndex(Arc<RwLock<HashMap<Box<str>, CertificateInfo>>>);

impl CertificateIndex {
    /// Sets the certificate of a pattern, or removes it. Its facts are read here, once.
    pub(super) fn note(&self, pattern: &str, pair: Option<&Credentials>) {
        match pair.map(|pair| CertificateInfo::of(pattern, pair)) {
            Some(info) => _ = self.0.write().unwrap_or_else(PoisonError::into_inner).insert(pattern.into(), info),
            None => self.forget(pattern),
        }
    }

    /// Removes the certificate of a pattern.
    pub(super) fn forget(&self, pattern: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(pattern);
    }

    /// All certificates, in no order.
    pub(super) fn list(&self) -> Vec<CertificateInfo> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
