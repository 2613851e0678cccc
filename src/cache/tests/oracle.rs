//! A comparison with `http-cache-semantics`: whether a stored response is reused for a request without a backend. Each
//! difference has a known reason.

use super::*;
use crate::cache::lookup::{Decision, decide};
use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy};

#[derive(Debug)]
struct Case {
    first: String,
    status: u16,
    stored: String,
    second: String,
    now: u64,
}

fn pick<'a>(random: &mut fastrand::Rng, choices: &[&'a str]) -> &'a str {
    choices[random.usize(0..choices.len())]
}

fn some(random: &mut fastrand::Rng, most: usize, choices: &[&str]) -> Vec<String> {
    (0..random.usize(0..=most)).map(|_| pick(random, choices).to_owned()).collect()
}

impl Case {
    fn new(random: &mut fastrand::Rng) -> Self {
        let times = ["0", "5", "60", "600", "x"];
        let mut directives =
            some(random, 2, &["public", "public", "public", "private", "no-store", "no-cache", "must-revalidate"]);
        for name in ["max-age", "s-maxage"] {
            if random.bool() {
                directives.push(format!("{name}={}", pick(random, &times)));
            }
        }
        directives.extend(some(
            random,
            1,
            &["proxy-revalidate", "immutable", "foo", "private=\"x-a\"", "no-cache=\"x-a\""],
        ));
        let mut stored = some(
            random,
            2,
            &["Vary: X-A", "Vary: X-A", "Vary: *", "ETag: \"a\"", "ETag: \"a\"", "Set-Cookie: a=b", "Age: 5"],
        );
        if !directives.is_empty() {
            stored.push(format!("Cache-Control: {}", directives.join(", ")));
        }
        if random.bool() {
            stored.push(format!("Expires: {}", http_date(random.i64(-10..60))));
        }
        if random.bool() {
            stored.push(format!("Date: {}", http_date(0)));
        }
        let first = some(random, 2, &["Authorization: x", "X-A: 1", "X-A: 2", "Accept: a"]);
        let mut second = some(random, 1, &["X-A: 1", "X-A: 2"]);
        let client = ["no-cache", "max-age=0", "max-age=5", "min-fresh=5", "max-stale", "max-stale=5", "foo"];
        let client = some(random, 2, &client);
        if !client.is_empty() {
            second.push(format!("Cache-Control: {}", client.join(", ")));
        }
        Self {
            first: first.join("\n"),
            status: *random.choice(&[200, 203, 204, 301, 302, 404, 410, 500, 503]).expect("a status"),
            stored: stored.join("\n"),
            second: second.join("\n"),
            now: random.u64(0..70),
        }
    }

    fn ours(&self) -> bool {
        let options = Options { obey_clients: true, ..options() };
        let Ok(object) = store_with(&self.first, self.status, &self.stored, b"", &options) else { return false };
        let fields = parse(&self.second);
        let is_selected = object.variant.is_selected_by(&mut RequestValues::of(Fields(&fields)));
        let decision = decide(&get("/", &fields), Some(&object), false, &options, at(self.now));
        is_selected && matches!(decision, Decision::Hit | Decision::Stale)
    }

    fn oracle(&self) -> bool {
        let request = |lines: &str| {
            let builder = http::Request::get("http://h/");
            parse(lines).iter().fold(builder, |b, header| b.header(header.name, header.value)).body(()).expect("valid")
        };
        let builder = http::Response::builder().status(self.status);
        let stored = parse(&self.stored);
        let response = stored.iter().fold(builder, |b, header| b.header(header.name, header.value));
        let response = response.body(()).expect("valid");
        let policy = CachePolicy::new_options(&request(&self.first), &response, zero(), CacheOptions::default());
        let reuse = policy.before_request(&request(&self.second), at(self.now));
        policy.is_storable() && matches!(reuse, BeforeRequest::Fresh(_))
    }

    /// Why this cache decides `ours` and the oracle does not.
    fn difference(&self, ours: bool) -> Option<&'static str> {
        let stored = |text: &str| self.stored.contains(text);
        let second = |text: &str| self.second.contains(text);
        let states_lifetime = ["max-age", "s-maxage", "Expires"].iter().any(|text| stored(text));
        let is_useless = !states_lifetime && (!stored("ETag") || self.status != 200);
        let table = [
            (true, stored("=\"x-a\""), "the oracle takes directives with fields for those without (5.2.2.4, 5.2.2.7)"),
            (true, stored("proxy-revalidate"), "the oracle takes such a response for stale at once (5.2.2.8)"),
            (true, second("max-stale=5"), "the oracle wants less than max-stale, the RFC at most it (5.2.1.2)"),
            (true, self.status >= 500, "the oracle does not store every server error that states a lifetime (3)"),
            (true, stored("immutable") && second("max-age="), "the oracle lets a reload of what never changes through"),
            (false, stored("immutable"), "the oracle gives such a response a day where it states no lifetime"),
            (false, stored("no-cache") && second("max-stale"), "no-cache is stronger than max-stale (5.2.2.4)"),
            (false, stored("proxy-revalidate") && second("max-stale"), "nor is such a response served stale (5.2.2.8)"),
            (false, stored("s-maxage") && second("max-stale"), "nor is one with s-maxage (5.2.2.10)"),
            (
                false,
                stored("Set-Cookie"),
                "the oracle stores cookies of public responses, this cache unless told never",
            ),
            (false, is_useless && second("max-stale"), "what states no lifetime and has no validator is not stored"),
            (false, self.first.matches("X-A").count() > 1, "the oracle compares the first line of a field alone (4.1)"),
        ];
        table.iter().find_map(|(is_ours, applies, why)| (*is_ours == ours && *applies).then_some(*why))
    }
}

#[test]
fn reuse_is_what_another_implementation_says() {
    let (mut same, mut reused, mut explained) = (0, 0, 0);
    for seed in 0..60_000 {
        let case = Case::new(&mut fastrand::Rng::with_seed(seed));
        let (ours, oracle) = (case.ours(), case.oracle());
        if ours == oracle {
            same += 1;
            reused += u32::from(ours);
        } else {
            assert!(case.difference(ours).is_some(), "seed {seed}: ours {ours}, oracle {oracle}: {case:#?}");
            explained += 1;
        }
    }
    // Most cases have to agree, with both results, or the comparison has no value.
    assert!(same > 50_000 && reused > 2_500 && explained > 0, "{same} agree, {reused} reused, {explained} explained");
}
