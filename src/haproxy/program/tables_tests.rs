//! Many values, and long ones: tables find what a comparison one by one finds, and no step takes time beyond its share.

use super::*;
use crate::base::clock::Clock;
use crate::haproxy::rules::{Side, TextMatch, TextPattern};
use crate::haproxy::{Environment, Source, load};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Texts of a few letters, so that many are alike.
#[test]
fn tables_match_what_single_patterns_match() {
    let seed = 11;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut text = |most: usize| -> Vec<u8> { (0..rng.usize(0..=most)).map(|_| b"aAb./"[rng.usize(..5)]).collect() };
    let methods =
        [TextMatch::Equal, TextMatch::Begin, TextMatch::End, TextMatch::Contain, TextMatch::Folder, TextMatch::Domain];
    let mut found = [0; 6];
    for round in 0..600 {
        let (method, ignore_case) = (methods[round % 6], round % 4 < 2);
        let patterns: Vec<_> = (0..12)
            .map(|_| {
                let text = text(5);
                let text = if ignore_case { text.to_ascii_lowercase() } else { text };
                TextPattern { text: text.into(), ignore_case }
            })
            .collect();
        let matching = Matching::Text(method, patterns);
        let matcher = compile::matcher(&matching);
        assert_eq!(matches!(matcher, Matcher::Plain(_)), method == TextMatch::Contain && !ignore_case);
        for _ in 0..20 {
            let text = text(9);
            let expected = fits(&matching, Value::Text(&text));
            found[round % 6] += usize::from(expected);
            let text_of = || String::from_utf8_lossy(&text).into_owned();
            assert_eq!(matcher.fits(Value::Text(&text), &mut Vec::new()), expected, "{} in {matching:?}", text_of());
        }
    }
    assert!(
        found.iter().all(|found| (20..1980).contains(found)),
        "seed {seed}: the texts are too much alike: {found:?}"
    );
}

/// A request with one long field.
struct Long {
    value: Vec<u8>,
}

impl RequestView for Long {
    fn method(&self) -> &[u8] {
        b"GET"
    }
    fn target(&self) -> &[u8] {
        b"/"
    }
    fn version(&self) -> (u8, u8) {
        (1, 1)
    }
    fn each_field(&self, _: Side, see: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool {
        see(b"Host", b"www.example.org") || see(b"X", &self.value) || see(b"Cookie", &self.value)
    }
    fn source(&self) -> SocketAddr {
        SocketAddr::from(([10, 9, 8, 7], 4000))
    }
    fn destination(&self) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], 80))
    }
    fn is_tls(&self) -> bool {
        false
    }
}

fn program(lines: &str, list: &str) -> Program {
    let text = format!("frontend f\n mode http\n bind :80\n{lines}\nbackend web\n mode http\n");
    let read = |_: &std::path::Path| Ok(list.into());
    let loaded = load(&[Source { name: "f".into(), bytes: text.into() }], &mut Environment::new([], &read));
    assert_eq!(loaded.verdict(false), crate::haproxy::Verdict::Whole, "{lines}: {:#?}", loaded.findings);
    Program::new(&loaded.model.proxies[0], &loaded.model)
}

/// A field longer than a head may be: a step for each pair of its bytes would take many minutes.
#[test]
fn long_fields_are_compared_in_time_proportional_to_their_length() {
    const LEN: usize = 1 << 17;
    let many = |word: &str| (0..12).map(|number| format!("{word}{number}")).collect::<Vec<_>>().join(" ");
    let criteria = [
        format!("req.hdr(x) {}", many("a.a")),
        format!("req.hdr(x) -m beg {}", many("a.a")),
        format!("req.hdr(x) -m end -i {}", many("a.a")),
        format!("req.hdr(x) -m dom {}", many("a.a")),
        format!("req.hdr(x) -m dir -i {}", many("a/a")),
        "req.hdr(x) -m dom a.b".to_owned(),
        format!("req.hdr(x) -m sub -i {}", many("a,a")),
        "req.hdr(x) -m sub aaaaaaaaaaaaaaaaaab".to_owned(),
        "req.hdr(x) -m reg (a|aa)+b$ (a+)+b".to_owned(),
        "req.hdr(x,-3),lower b".to_owned(),
        "req.fhdr(x),word(7000,.) b".to_owned(),
        "req.fhdr(x),field(-7000,.) b".to_owned(),
        "req.fhdr(x),regsub(a,bb,g) b".to_owned(),
        "req.fhdr(x),url_dec,length -m int 1".to_owned(),
        "req.cook(a) b".to_owned(),
        "req.cook_cnt(a) 7".to_owned(),
        "req.hdr_cnt(x) 7".to_owned(),
    ];
    let mut scratch = Scratch::default();
    let clock = Clock::new();
    let began = clock.now();
    for criterion in criteria {
        let program = program(&format!("use_backend web if {{ {criterion} }}"), "");
        for part in ["a", "a.", "a,", "a;", ",", "a/a.", "%41", "\""] {
            let view = Long { value: part.repeat(LEN / part.len()).into_bytes() };
            program.backend(&view, &mut scratch);
        }
    }
    let took = clock.now().since(began);
    assert!(took < Duration::from_secs(100), "{took:?}");
}

#[test]
fn ten_thousand_networks_are_a_table() {
    let networks = (0..10_000).map(|number| format!("172.{}.{}.0/{}", number / 256, number % 256, 20 + number % 9));
    let list = networks.chain(["10.9.0.0/16".to_owned()]).collect::<Vec<_>>().join("\n");
    let program = program("use_backend web if { src -f list }", &list);
    let view = Long { value: Vec::new() };
    assert_eq!(program.backend(&view, &mut Scratch::default()), Choice::Backend(1));
    let Step::Rule(Some(clause), _) = &program.switch[0] else { panic!("{program:?}") };
    let Tests::Inline(tests) = &clause.any[0][0].1 else { panic!("{clause:?}") };
    let Matcher::Ip(networks) = &tests[0].matcher else { panic!("a chain") };
    // The number of look-ups is that of the different lengths.
    let misses = [IpAddr::from([192, 0, 2, 1]), "2001:db8::1".parse().expect("an address")];
    assert!(misses.into_iter().all(|ip| networks.find(ip).is_none()));
}
