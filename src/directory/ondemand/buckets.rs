//! The buckets of a cluster in x0d's form: a tree of fractions.

use super::Refusal;
use crate::shaper::{self, BucketView};
use serde_json::{Value as Json, json};

/// Ten-thousandths in a whole.
const WHOLE: u16 = 10_000;

/// The name of the tree's root.
pub(super) const ROOT: &str = "root";

/// A bucket, and the buckets in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) name: Box<str>,
    /// The assured share, in ten-thousandths of the parent's.
    pub(super) rate: u16,
    pub(super) ceil: u16,
    pub(super) children: Vec<Bucket>,
}

/// A fraction such as `0.25`, to four decimals, in ten-thousandths.
pub(super) fn read_fraction(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + decimals.len() == 0 || !is_plain(whole) || !is_plain(decimals) || whole.len() > 3 {
        return None;
    }
    let decimals = decimals.trim_end_matches('0');
    if decimals.len() > 4 {
        return None;
    }
    let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let parts: u32 = format!("{decimals:0<4}").parse().ok()?;
    u16::try_from(whole * u32::from(WHOLE) + parts).ok().filter(|parts| *parts <= WHOLE)
}

/// A fraction in the form that [`read_fraction`] reads.
pub(super) fn fraction(parts: u16) -> String {
    (f64::from(parts) / f64::from(WHOLE)).to_string()
}

impl Bucket {
    /// The bucket in the form of a view, with its present load.
    pub(super) fn json(&self, live: &[BucketView]) -> Json {
        let [rate, ceil] = [self.rate, self.ceil].map(|parts| f64::from(parts) / f64::from(WHOLE));
        view(&self.name, [rate.into(), ceil.into()], &self.children, live)
    }

    /// The bucket in the form of the option `buckets`.
    fn option(&self) -> Json {
        let [rate, ceil] = [self.rate, self.ceil].map(|parts| f64::from(parts) / 100.0);
        let share = format!("{rate}..{ceil} %");
        if self.children.is_empty() {
            return share.into();
        }
        json!({ "share": share, "buckets": option(&self.children) })
    }
}

/// The root of the tree in the form of a view.
pub(super) fn root_json(buckets: &[Bucket], live: &[BucketView]) -> Json {
    view(ROOT, [1.into(), 1.into()], buckets, live)
}

fn view(name: &str, [rate, ceil]: [Json; 2], children: &[Bucket], live: &[BucketView]) -> Json {
    let mut shown = json!({
        "name": name,
        "rate": rate,
        "ceil": ceil,
        "children": children.iter().map(|child| child.json(live)).collect::<Vec<_>>(),
    });
    if let Some(live) = live.iter().find(|live| live.name == name && !live.is_draining) {
        shown["token-rate"] = live.rate.into();
        shown["token-ceil"] = live.ceil.into();
        shown["stats"] = json!({
            "load": { "current": live.held, "max": live.held_max, "total": live.taken },
            "queued": { "current": live.queued, "max": live.queued_max, "total": live.queued_total },
            "dropped": live.refused + live.timed_out,
        });
    }
    shown
}

fn option(buckets: &[Bucket]) -> Json {
    buckets.iter().map(|bucket| (bucket.name.to_string(), bucket.option())).collect::<serde_json::Map<_, _>>().into()
}

/// The text of the option `buckets`; `None` without buckets.
pub(super) fn option_text(buckets: &[Bucket]) -> Option<String> {
    (!buckets.is_empty()).then(|| option(buckets).to_string())
}

/// The bucket of this name, anywhere in the tree.
pub(super) fn find<'b>(buckets: &'b [Bucket], name: &str) -> Option<&'b Bucket> {
    buckets.iter().find_map(|bucket| if *bucket.name == *name { Some(bucket) } else { find(&bucket.children, name) })
}

pub(super) fn find_mut<'b>(buckets: &'b mut [Bucket], name: &str) -> Option<&'b mut Bucket> {
    buckets.iter_mut().find_map(
        |bucket| {
            if *bucket.name == *name { Some(bucket) } else { find_mut(&mut bucket.children, name) }
        },
    )
}

/// Removes the bucket of this name with the buckets in it. Returns whether it existed.
pub(super) fn remove(buckets: &mut Vec<Bucket>, name: &str) -> bool {
    let before = buckets.len();
    buckets.retain(|bucket| *bucket.name != *name);
    buckets.len() < before || buckets.iter_mut().any(|bucket| remove(&mut bucket.children, name))
}

/// Whether another bucket is allowed in this parent. This is checked before the bucket is added, so that the tree never
/// exceeds its depth: all other code walks it recursively.
pub(super) fn check_room(buckets: &[Bucket], parent: Option<&str>) -> Result<(), Refusal> {
    let (count, depth) = (count(buckets), parent.map_or(Some(0), |parent| depth_of(buckets, parent)));
    if count >= shaper::MAX_BUCKETS {
        return Err(Refusal::bad(format!("there are {count} buckets, and more cannot be")));
    }
    if depth.is_some_and(|depth| depth >= shaper::MAX_DEPTH) {
        return Err(Refusal::bad(format!("buckets in buckets, deeper than {} levels", shaper::MAX_DEPTH)));
    }
    Ok(())
}

fn count(buckets: &[Bucket]) -> usize {
    buckets.iter().map(|bucket| 1 + count(&bucket.children)).sum()
}

/// The number of buckets from the root's child down to the one of this name.
fn depth_of(buckets: &[Bucket], name: &str) -> Option<usize> {
    buckets.iter().find_map(|bucket| {
        if *bucket.name == *name { Some(1) } else { depth_of(&bucket.children, name).map(|depth| depth + 1) }
    })
}

/// Checks the tree: rates, ceils and names. An excessive sum of rates is x0d's RateLimitOverflow, an excessive ceil its
/// CeilLimitOverflow.
pub(super) fn check(buckets: &[Bucket]) -> Result<(), Refusal> {
    let Some(text) = option_text(buckets) else { return Ok(()) };
    // A JSON object keeps only the last of two members with one name.
    if let Some(twice) = twice(buckets, &mut std::collections::BTreeSet::new()) {
        return Err(Refusal::bad(format!("a bucket {twice:?} is there already: names are unique in the whole tree")));
    }
    match shaper::Spec::parse(&text) {
        Ok(_) => Ok(()),
        Err(faults) => {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            Err(Refusal::bad(faults.join("; ")))
        }
    }
}

fn twice<'b>(buckets: &'b [Bucket], seen: &mut std::collections::BTreeSet<&'b str>) -> Option<&'b str> {
    buckets.iter().find_map(
        |bucket| {
            if seen.insert(&bucket.name) { twice(&bucket.children, seen) } else { Some(&*bucket.name) }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions() {
        let table = [
            ("0.1", Some(1000)),
            (".3", Some(3000)),
            ("1", Some(10_000)),
            ("1.0000", Some(10_000)),
            ("0.0001", Some(1)),
            ("0", Some(0)),
            ("1.1", None),
            ("-.1", None),
            ("0.00001", None),
            ("", None),
            (".", None),
            ("0,5", None),
            ("1e-1", None),
        ];
        for (text, expected) in table {
            assert_eq!(read_fraction(text), expected, "{text:?}");
        }
        assert_eq!((fraction(1000), fraction(1), fraction(10_000)), ("0.1".into(), "0.0001".into(), "1".into()));
    }

    #[test]
    fn a_tree_is_checked_as_x0d_does() {
        let bucket = |name: &str, rate, ceil, children| Bucket { name: name.into(), rate, ceil, children };
        let fixture = |more| {
            let upload = bucket("upload", 5000, 5000, vec![]);
            let mut tree = vec![bucket("vip", 1000, 3000, vec![]), bucket("main", 5000, 7000, vec![upload])];
            tree.extend(more);
            tree
        };
        assert!(check(&fixture(None)).is_ok());
        let wrong = [
            bucket("more", 4100, 10_000, vec![]),
            bucket("less", 3000, 1000, vec![]),
            bucket("upload", 0, 100, vec![]),
            bucket(ROOT, 0, 100, vec![]),
        ];
        for bucket in wrong {
            assert!(check(&fixture(Some(bucket.clone()))).is_err(), "{bucket:?}");
        }
        let mut tree = fixture(None);
        assert!(remove(&mut tree, "upload") && !remove(&mut tree, "upload") && find(&tree, "main").is_some());
    }
}
