//! TLS: certificates by name, changed while they are in use; sessions from the hello to the goodbye, with clients and
//! with backends.

mod backends;
mod certificates;
mod clients;
mod misdirected;
mod openssl;
mod redirect;
mod sessions;

use crate::support::HOST;
use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tls::{Authority, Trust};

/// A proxy in front of `backend` with a certificate for [`HOST`], and clients that trust it.
fn secure(backend: &Backend) -> (Proxy, Trust) {
    let authority = Authority::new();
    let setup = Setup::for_backends([backend.url()]).with_https();
    (setup.default_certificate(&authority.issue(&[HOST])).start(), authority.trust())
}
