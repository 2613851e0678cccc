//! The candidate patterns of a host, in the order in which they are tried.

use std::borrow::Cow;
use std::iter;

/// The greatest number of labels after `*.` in a candidate pattern.
///
/// Source: Hipache 0.4, `lib/cache.js`, `getDomainsLookup`: of a longer name only the last six labels count, and the
/// star of the longest pattern stands for the first of these. Its test `#wildcard-depth` has
/// `too.deep.quuux.foo.bar.baz.qux.quux` served by `*.foo.bar.baz.qux.quux` and not by `*.quuux.foo.bar.baz.qux.quux`.
pub const MAX_SUFFIX_LABELS: usize = 5;

/// The exact host, then `*.suffix` from the longest suffix to the shortest, then `*`. The first pattern with a list
/// wins. A star stands for one label or more, so `*.foo.bar` is not a candidate of `foo.bar`.
pub fn patterns(host: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let longest = host.rmatch_indices('.').take(MAX_SUFFIX_LABELS).last().map(|(dot, _)| &host[dot + 1..]);
    let suffixes = iter::successors(longest, |suffix| suffix.split_once('.').map(|(_, shorter)| shorter));
    let wildcards = suffixes.map(|suffix| Cow::Owned(format!("*.{suffix}")));
    iter::once(Cow::Borrowed(host)).chain(wildcards).chain(iter::once(Cow::Borrowed("*")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates() {
        let table: &[(&str, &[&str])] = &[
            ("simple", &["simple", "*"]),
            ("foo.bar", &["foo.bar", "*.bar", "*"]),
            ("www.foo.bar", &["www.foo.bar", "*.foo.bar", "*.bar", "*"]),
            ("a.b.c.d.e.f", &["a.b.c.d.e.f", "*.b.c.d.e.f", "*.c.d.e.f", "*.d.e.f", "*.e.f", "*.f", "*"]),
            ("z.a.b.c.d.e.f", &["z.a.b.c.d.e.f", "*.b.c.d.e.f", "*.c.d.e.f", "*.d.e.f", "*.e.f", "*.f", "*"]),
            ("", &["", "*"]),
        ];
        for (host, expected) in table {
            assert_eq!(patterns(host).collect::<Vec<_>>(), *expected, "{host}");
        }
    }

    /// The cases of Hipache's `test/functional/http.js`, `#wildcard-depth` and `#single-wildcard`.
    #[test]
    fn hipaches_own_cases() {
        let lists = [
            "*.quux",
            "*.qux.quux",
            "*.baz.qux.quux",
            "*.bar.baz.qux.quux",
            "foo.bar.baz.qux.quux",
            "*.foo.bar.baz.qux.quux",
            "*.quuux.foo.bar.baz.qux.quux",
        ];
        let table = [
            ("too.deep.quuux.foo.bar.baz.qux.quux", Some("*.foo.bar.baz.qux.quux")),
            ("too.deep.foo.bar.baz.qux.quux", Some("*.foo.bar.baz.qux.quux")),
            ("foo.bar.baz.qux.quux", Some("foo.bar.baz.qux.quux")),
            ("bar.bar.baz.qux.quux", Some("*.bar.baz.qux.quux")),
            ("foo.baz.qux.quux", Some("*.baz.qux.quux")),
            ("foo.qux.quux", Some("*.qux.quux")),
            ("foo.quux", Some("*.quux")),
            ("quux", None),
        ];
        for (host, expected) in table {
            let found = patterns(host).find(|pattern| lists.contains(&pattern.as_ref()));
            assert_eq!(found.as_deref(), expected, "{host}");
        }
    }
}
