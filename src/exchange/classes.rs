//! The class of a request whose cluster has buckets.

use super::Settings;
use super::request::Request;
use super::step_context::CommonState;
use crate::base::slice_ext::SliceExt;
use crate::cluster::Cluster;
use crate::shaper::{BucketId, RequestView};
use std::net::{IpAddr, Ipv4Addr};

/// The bucket of a request. The rules see the head for the backend: it contains the client's fields, but fields
/// reserved for trusted proxies hold this node's own values if the client is not trusted.
pub(super) fn bucket_of(request: &Request, cluster: &Cluster, settings: &Settings) -> BucketId {
    let head = request.head();
    let first_line = memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1);
    let client = match cluster.classifies_clients() {
        true => request.forwarded_client(&settings.forwarded),
        false => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    cluster.classify(&RequestView {
        host: request.host(),
        method: request.method(),
        target: request.target(),
        fields: head.suffix(first_line),
        client,
        tls_name: request.tls_name(),
        is_trusted: request.is_trusted(),
    })
}

/// The field with the name of the request's bucket (`bucketHeader`).
pub(super) fn bucket_field(common: &CommonState) -> Option<BucketField<'_>> {
    common.bucket?;
    let is_on = common.options().is_some_and(|options| options.bucket_header);
    common.bucket_name().filter(|_| is_on).map(BucketField)
}

/// The field with the name of a bucket.
pub(super) struct BucketField<'a>(&'a str);

impl BucketField<'_> {
    /// Writes the field line.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"X-Director-Bucket: ");
        out.extend_from_slice(self.0.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}
