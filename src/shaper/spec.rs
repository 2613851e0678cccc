//! The option `buckets`: the tree of buckets as written, checked.

use super::json::{Json, quoted};
use super::share::{self, Share};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// The name of the tree's root, which holds unclassified requests.
pub(super) const ROOT: &str = "root";

/// The greatest number of buckets in a tree, without the root.
pub const MAX_BUCKETS: usize = 60;
/// The greatest number of buckets from the root's child down to a leaf.
pub const MAX_DEPTH: usize = 8;
/// The longest name in bytes: it is written in a header field.
const MAX_NAME: usize = 64;
/// The longest queue of a bucket.
const MAX_QUEUE: f64 = 1_000_000.0;
/// The longest time in a queue, in seconds: a day.
const MAX_TIMEOUT: f64 = 86_400.0;
/// The greatest number of faults that are reported.
const MAX_FAULTS: usize = 50;

/// A fault at one place of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The path to the place, as in `buckets["VIP"].queueLimit`.
    pub path: String,
    /// The problem: the value found, and the one expected.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

/// The faults of a text, in the order of the text.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, path: &str, problem: impl Into<String>) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(Fault { path: path.to_owned(), problem: problem.into() });
        }
    }

    pub(super) fn found(&mut self, path: &str, value: &Json, expected: &str) {
        self.add(path, format!("found {}, expected {expected}", value.describe()));
    }

    pub(super) fn or<T>(self, value: T) -> Result<T, Vec<Fault>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}

/// A checked tree of buckets.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Spec {
    pub(super) buckets: Vec<BucketSpec>,
}

/// One bucket, and the buckets in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BucketSpec {
    pub(super) name: Box<str>,
    pub(super) share: Share,
    /// `None` inherits from the parent.
    pub(super) queue_limit: Option<u32>,
    /// `None` inherits from the parent.
    pub(super) queue_timeout: Option<Duration>,
    pub(super) children: Vec<BucketSpec>,
}

impl Spec {
    /// Parses the JSON text of the option `buckets`. All faults are found at once.
    ///
    /// ```text
    /// {"VIP": "5..20 %", "Jail": "1..5 t", "Main": {"share": "50..70 %", "queueLimit": 64, "queueTimeout": 5,
    ///  "buckets": {"Upload": "50 %"}}}
    /// ```
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader::default();
        let path = "buckets";
        let buckets = match Json::parse(text) {
            Ok(value) => reader.read_buckets(&value, path, 1),
            Err(error) => {
                reader.faults.add(path, format!("no JSON: {error}"));
                Vec::new()
            }
        };
        if reader.names.len() > MAX_BUCKETS {
            reader.faults.add(path, format!("{} buckets, at most {MAX_BUCKETS} are possible", reader.names.len()));
        }
        reader.faults.or(Self { buckets })
    }

    /// The names of all buckets but the root, parents first.
    pub(super) fn names(&self) -> Vec<&str> {
        fn add<'s>(buckets: &'s [BucketSpec], names: &mut Vec<&'s str>) {
            for bucket in buckets {
                names.push(&bucket.name);
                add(&bucket.children, names);
            }
        }
        let mut names = Vec::new();
        add(&self.buckets, &mut names);
        names
    }
}

impl Spec {
    /// The part of each bucket's own requests in `whole`, by the rates at this size of the tree, and that of requests of no
    /// bucket. The own part of a bucket that contains buckets is what these leave of its rate.
    pub fn weights(&self, size: u32, whole: u32) -> (Vec<(&str, u32)>, u32) {
        let mut weights = Vec::new();
        let (size, whole) = (share::fine(size.max(1)), u64::from(whole));
        let part = |fine: u64| u32::try_from(fine.saturating_mul(whole) / size).unwrap_or(u32::MAX);
        let rest = add_weights(&self.buckets, size, &part, &mut weights);
        (weights, part(rest))
    }
}

/// Adds the weights of these buckets of a parent with this rate. Returns what they leave of it.
fn add_weights<'s>(
    buckets: &'s [BucketSpec],
    parent: u64,
    part: &impl Fn(u64) -> u32,
    weights: &mut Vec<(&'s str, u32)>,
) -> u64 {
    let mut rest = parent;
    for bucket in buckets {
        let rate = bucket.share.fine_rate(parent);
        rest = rest.saturating_sub(rate);
        let place = weights.len();
        weights.push((&*bucket.name, 0));
        let own = add_weights(&bucket.children, rate, part, weights);
        weights[place].1 = part(own);
    }
    rest
}

#[derive(Default)]
struct Reader {
    faults: Faults,
    names: BTreeSet<String>,
}

impl Reader {
    fn read_buckets(&mut self, value: &Json, path: &str, depth: usize) -> Vec<BucketSpec> {
        let Json::Object(members) = value else {
            self.faults.found(path, value, "an object of buckets, as in {\"VIP\": \"5..20 %\"}");
            return Vec::new();
        };
        if depth > MAX_DEPTH {
            self.faults.add(path, format!("buckets in buckets, deeper than {MAX_DEPTH} levels"));
            return Vec::new();
        }
        let mut buckets = Vec::new();
        let mut sum = 0;
        for (name, value) in members {
            let path = format!("{path}[{}]", quoted(name));
            let Some(bucket) = self.read_bucket(name, value, &path, depth) else { continue };
            let before = sum;
            sum += bucket.share.rate_parts();
            if share::is_over_whole(sum) && !share::is_over_whole(before) {
                let problem = format!(
                    "the rates of this bucket and its siblings add up to {}, more than the 100 % of their parent: \
                     lower one of them",
                    share::percent(sum)
                );
                self.faults.add(&path, problem);
            }
            self.check_name(name, &path);
            buckets.push(bucket);
        }
        buckets
    }

    fn check_name(&mut self, name: &str, path: &str) {
        let is_printable = name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if name == ROOT {
            self.faults.add(path, "the root of the tree is no bucket of its own: choose another name");
        } else if name.trim().len() != name.len() || name.is_empty() || name.len() > MAX_NAME || !is_printable {
            self.faults.add(path, format!("a name has 1 to {MAX_NAME} visible ASCII characters"));
        } else if !self.names.insert(name.to_owned()) {
            self.faults.add(path, "another bucket of the tree has this name: names are unique in the whole tree");
        }
    }

    fn read_bucket(&mut self, name: &str, value: &Json, path: &str, depth: usize) -> Option<BucketSpec> {
        let mut bucket = None;
        let (mut queue_limit, mut queue_timeout, mut children) = (None, None, Vec::new());
        match value {
            Json::Text(text) => bucket = self.read_share(text, path),
            Json::Object(members) => {
                if !members.iter().any(|(key, _)| key == "share") {
                    self.faults.add(path, "has no \"share\", as in {\"share\": \"5..20 %\"}");
                }
                for (key, value) in members {
                    let path = format!("{path}.{key}");
                    match (key.as_str(), value) {
                        ("share", Json::Text(text)) => bucket = self.read_share(text, &path),
                        ("share", _) => self.faults.found(&path, value, "a text, as in \"5..20 %\""),
                        ("buckets", _) => children = self.read_buckets(value, &path, depth + 1),
                        ("queueLimit", _) => queue_limit = self.read_limit(value, &path),
                        ("queueTimeout", _) => queue_timeout = self.read_timeout(value, &path),
                        _ => self.faults.add(
                            &path,
                            "is not known here: a bucket has \"share\", \"buckets\", \"queueLimit\" and \"queueTimeout\"",
                        ),
                    }
                }
            }
            _ => self.faults.found(path, value, "a share, as in \"5..20 %\", or an object with one"),
        }
        Some(BucketSpec { name: name.into(), share: bucket?, queue_limit, queue_timeout, children })
    }

    fn read_share(&mut self, text: &str, path: &str) -> Option<Share> {
        match Share::parse(text) {
            Ok(share) => Some(share),
            Err(fault) => {
                self.faults.add(path, format!("found {}, {}", quoted(text), fault.text()));
                None
            }
        }
    }

    fn read_limit(&mut self, value: &Json, path: &str) -> Option<u32> {
        match value {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
            Json::Number(number) if (0.0..=MAX_QUEUE).contains(number) && number.fract() == 0.0 => Some(*number as u32),
            _ => {
                self.faults.found(path, value, "a whole number of requests from 0 (no queue) to 1000000");
                None
            }
        }
    }

    fn read_timeout(&mut self, value: &Json, path: &str) -> Option<Duration> {
        match value {
            Json::Number(number) if (0.001..=MAX_TIMEOUT).contains(number) => Some(Duration::from_secs_f64(*number)),
            _ => {
                self.faults.found(path, value, "seconds from 0.001 to 86400");
                None
            }
        }
    }
}
