//! The buckets of a cluster, for views.

use crate::cluster::{Cluster, Tenants};
use crate::shaper::BucketView;
use serde_json::{Value, json};

/// The tree of a cluster's buckets from its root; null without buckets.
pub(super) fn tree(cluster: &Cluster) -> Value {
    of_root(&cluster.buckets())
}

/// The tree of this node's tenants; null where requests in flight are not shared by them.
pub(super) fn tenants(tenants: Option<&Tenants>) -> Value {
    of_root(&tenants.map_or_else(Vec::new, Tenants::views))
}

fn of_root(views: &[BucketView]) -> Value {
    views.first().map_or(Value::Null, |_| node(views, 0))
}

fn node(views: &[BucketView], place: usize) -> Value {
    let Some(view) = views.get(place) else { return Value::Null };
    let below = views.iter().enumerate().filter(|(_, below)| below.parent == Some(place));
    json!({
        "name": view.name,
        "rate": view.rate,
        "ceil": view.ceil,
        "limit": view.limit,
        "actual": view.held,
        "over": view.over,
        "actual_max": view.held_max,
        "taken": view.taken,
        "waiting": view.queued,
        "waiting_max": view.queued_max,
        "queued": view.queued_total,
        "dropped": dropped(view),
        "refused": view.refused,
        "timed_out": view.timed_out,
        "left": view.left,
        "waits": view.waits,
        "waited_seconds": view.waited.as_secs_f64(),
        "draining": view.is_draining,
        "buckets": below.map(|(below, _)| node(views, below)).collect::<Vec<_>>(),
    })
}

/// Requests of a bucket that were refused for a full queue, or waited too long.
pub(super) fn dropped(view: &BucketView) -> u64 {
    view.refused + view.timed_out
}
