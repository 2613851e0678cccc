//! The certificates in use by pattern, for views: the thread that knows them writes, anyone reads, and no question waits
//! for another one.

use crate::net::tls::{CertificateInfo, Credentials};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// See the top of this page.
#[derive(Clone, Debug, Default)]
pub(super) struct CertificateIndex(Arc<RwLock<HashMap<Box<str>, CertificateInfo>>>);

impl CertificateIndex {
    /// Notes the pair of a pattern, or that there is none in use. What is told of it is read from it here, once.
    pub(super) fn note(&self, pattern: &str, pair: Option<&Credentials>) {
        match pair.map(|pair| CertificateInfo::of(pattern, pair)) {
            Some(info) => _ = self.0.write().unwrap_or_else(PoisonError::into_inner).insert(pattern.into(), info),
            None => self.forget(pattern),
        }
    }

    /// Notes that there is no pair of this pattern any more.
    pub(super) fn forget(&self, pattern: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(pattern);
    }

    /// All of them, in no order.
    pub(super) fn list(&self) -> Vec<CertificateInfo> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
