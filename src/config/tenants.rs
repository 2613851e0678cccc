//! `server.tenants`: the shares of this node's tenants.

use super::raw::Field;
use crate::cluster::TenantSettings;
use crate::shaper::{QueueLimits, Spec};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

const EXPECTED: &str = "a tree of shares, as in {\"gold\": \"20..80 %\"}";

/// `None` where tenants do not share.
pub(super) fn read(field: &Field<'_>) -> Option<TenantSettings> {
    let tenants = field.clone().section();
    let is_enabled = tenants.field("enabled").flag().unwrap_or(false);
    let count = |key, range| tenants.field(key).whole(range).and_then(|number| u32::try_from(number).ok());
    let settings = TenantSettings {
        requests: count("requests", 0..=1_000_000).and_then(NonZeroU32::new),
        buckets: Arc::new(read_buckets(&tenants.field("buckets"))),
        queue: QueueLimits {
            limit: count("queueLimit", 0..=1_000_000).unwrap_or(1024),
            timeout: tenants.field("queueTimeout").seconds().unwrap_or(Duration::from_secs(30)),
        },
    };
    is_enabled.then_some(settings)
}

/// The shares, each fault with its place.
fn read_buckets(field: &Field<'_>) -> Spec {
    let Some(value) = field.value() else { return Spec::default() };
    Spec::parse(&value.to_string()).unwrap_or_else(|faults| {
        for fault in faults {
            let path = fault.path.strip_prefix("buckets").unwrap_or_default();
            let found = fault.problem.strip_prefix("found ").unwrap_or(&fault.problem).to_owned();
            field.report().fault(&format!("{}{path}", field.path()), found, EXPECTED);
        }
        Spec::default()
    })
}
