//! The values of session cookies: each identifies a member without revealing its address.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::sync::OnceLock;
use xxhash_rust::xxh3::xxh3_64;

static SECRET: OnceLock<Box<[u8]>> = OnceLock::new();

/// Sets the secret that the values are made with (`server.cookieSecret`). It has to be set before the first cluster is
/// made: later it does not affect existing clusters.
pub fn set_session_secret(secret: &str) {
    let _ = SECRET.set(secret.as_bytes().into());
}

/// The value for the member with this endpoint, equal on every node with the same secret. Without a secret, a client
/// that guesses an address can verify it.
pub(super) fn value_of(endpoint: &str) -> u64 {
    match SECRET.get() {
        Some(secret) => keyed(secret, endpoint),
        None => xxh3_64(endpoint.as_bytes()),
    }
}

fn keyed(secret: &[u8], endpoint: &str) -> u64 {
    // HMAC takes keys of any length (RFC 2104).
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return xxh3_64(endpoint.as_bytes()) };
    mac.update(endpoint.as_bytes());
    mac.finalize().into_bytes().iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_the_beginning_of_an_hmac() {
        // RFC 4231, test case 2.
        assert_eq!(keyed(b"Jefe", "what do ya want for nothing?"), 0x5bdc_c146_bf60_754e);
        assert_ne!(keyed(b"Jefe", "http://a"), keyed(b"Jeff", "http://a"));
    }
}
