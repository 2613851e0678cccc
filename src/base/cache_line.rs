//! A value on its own cache lines.

use std::ops::Deref;

/// A value that shares no cache line with another one, so a core that writes it does not slow cores that read its
/// neighbours.
#[repr(align(64))]
#[derive(Debug, Default)]
pub struct CacheLine<T>(pub T);

impl<T> Deref for CacheLine<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
