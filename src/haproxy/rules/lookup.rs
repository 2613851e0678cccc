//! Tables for many values: networks, and prefixes of texts. A look-up replaces a comparison with each value.

use ipnet::IpNet;
use std::collections::HashMap;
use std::net::IpAddr;

/// Networks. The smallest one that contains an address is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    places: HashMap<IpNet, usize>,
    /// The different lengths of prefixes, the longest first.
    lengths: Vec<u8>,
}

impl Networks {
    /// Adds a network; the first of two equal ones stays.
    pub fn add(&mut self, net: IpNet, place: usize) {
        self.places.entry(net).or_insert(place);
        if let Err(at) = self.lengths.binary_search_by(|length| net.prefix_len().cmp(length)) {
            self.lengths.insert(at, net.prefix_len());
        }
    }

    /// The place of the smallest network that contains an address. An IPv4 address within IPv6 is looked up in both
    /// families, as in HAProxy (configuration.txt section 7.1.6).
    pub fn find(&self, ip: IpAddr) -> Option<usize> {
        let other = match ip {
            IpAddr::V4(ip) => Some(IpAddr::V6(ip.to_ipv6_mapped())),
            IpAddr::V6(ip) => {
                let octets = ip.octets();
                let six_to_four = ip.segments()[0] == 0x2002;
                let inside = six_to_four.then(|| [octets[2], octets[3], octets[4], octets[5]].into());
                ip.to_ipv4().or(inside).map(IpAddr::V4)
            }
        };
        self.find_exact(ip).or_else(|| self.find_exact(other?))
    }

    fn find_exact(&self, ip: IpAddr) -> Option<usize> {
        let mut networks = self.lengths.iter().filter_map(|length| IpNet::new(ip, *length).ok());
        networks.find_map(|net| self.places.get(&net.trunc()).copied())
    }
}

/// Prefixes. The longest one of a text is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// In order: the text, its place, and where in this list the longest one stands that it begins with.
    sorted: Vec<(Box<[u8]>, usize, Option<usize>)>,
}

impl Prefixes {
    /// A table of texts; the first of two equal ones stays.
    pub fn new<'t>(texts: impl Iterator<Item = &'t [u8]>) -> Self {
        let mut sorted: Vec<_> = texts.enumerate().map(|(place, text)| (Box::from(text), place, None)).collect();
        sorted.sort();
        sorted.dedup_by(|later, earlier| later.0 == earlier.0);
        let mut prefixes = Self { sorted };
        for index in 1..prefixes.sorted.len() {
            let parent = prefixes.longest(&prefixes.sorted[index].0, Some(index - 1));
            prefixes.sorted[index].2 = parent;
        }
        prefixes
    }

    /// The place of the longest prefix of a text.
    pub fn find(&self, text: &[u8]) -> Option<usize> {
        // All prefixes of a text precede it in the order, and the last of them has the others as its own prefixes.
        let behind = self.sorted.partition_point(|(known, ..)| **known <= *text);
        let found = self.longest(text, behind.checked_sub(1))?;
        self.sorted.get(found).map(|(_, place, _)| *place)
    }

    /// Calls `see` with the length of each prefix of a text, the longest first, until it returns true; returns whether it
    /// did.
    pub fn any(&self, text: &[u8], mut see: impl FnMut(usize) -> bool) -> bool {
        let behind = self.sorted.partition_point(|(known, ..)| **known <= *text);
        let mut found = self.longest(text, behind.checked_sub(1));
        while let Some((known, _, parent)) = found.and_then(|index| self.sorted.get(index)) {
            if see(known.len()) {
                return true;
            }
            // The prefixes of this one are prefixes of the text too.
            found = *parent;
        }
        false
    }

    fn longest(&self, text: &[u8], mut from: Option<usize>) -> Option<usize> {
        while let Some(index) = from {
            let (known, _, parent) = self.sorted.get(index)?;
            if text.starts_with(known) {
                return Some(index);
            }
            from = *parent;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_is_found() {
        let texts = ["/a", "/a/b", "/a/b/c", "/b", "/a/bb", "/a", "/z/y/x"];
        let prefixes = Prefixes::new(texts.iter().map(|text| text.as_bytes()));
        let table = [
            ("/a", Some(0)),
            ("/a/", Some(0)),
            ("/a/b", Some(1)),
            ("/a/bb", Some(4)),
            ("/a/ba", Some(1)),
            ("/a/b/c/d", Some(2)),
            ("/a/c", Some(0)),
            ("/b/", Some(3)),
            ("/c", None),
            ("/", None),
            ("", None),
            ("/z/y", None),
            ("/z/y/xx", Some(6)),
        ];
        for (text, expected) in table {
            assert_eq!(prefixes.find(text.as_bytes()), expected, "{text}");
        }
        // An empty one is what every text begins with.
        assert_eq!(Prefixes::new([&b""[..], b"a"].into_iter()).find(b"b"), Some(0));
        assert_eq!(Prefixes::default().find(b"a"), None);
    }

    /// Against the search one by one, with texts of two letters so that many begin alike.
    #[test]
    fn tables_find_what_a_search_finds() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut text = |most: usize| -> Vec<u8> { (0..rng.usize(0..=most)).map(|_| rng.u8(b'a'..=b'b')).collect() };
        for _ in 0..200 {
            let texts: Vec<_> = (0..20).map(|_| text(6)).collect();
            let prefixes = Prefixes::new(texts.iter().map(Vec::as_slice));
            for _ in 0..20 {
                let text = text(8);
                let longest = texts.iter().filter(|known| text.starts_with(known)).max_by_key(|known| known.len());
                let found = prefixes.find(&text).map(|place| &texts[place]);
                assert_eq!(found, longest, "{text:?} among {texts:?}");
                let mut lengths = Vec::new();
                prefixes.any(&text, |len| {
                    lengths.push(len);
                    false
                });
                let expected = (0..=text.len()).rev().filter(|len| texts.iter().any(|known| **known == text[..*len]));
                assert_eq!(lengths, expected.collect::<Vec<_>>(), "{text:?} among {texts:?}");
            }
        }
    }

    #[test]
    fn addresses_are_found_in_both_families() {
        let mut networks = Networks::default();
        for (place, net) in ["10.0.0.0/8", "10.1.0.0/16", "::ffff:192.0.2.0/120", "2001:db8::/32"].iter().enumerate() {
            networks.add(net.parse().expect("a network"), place);
        }
        let table = [
            ("10.2.0.1", Some(0)),
            ("10.1.0.1", Some(1)),
            ("::ffff:10.1.0.1", Some(1)),
            ("2002:a01:1::1", Some(1)),
            ("192.0.2.9", Some(2)),
            ("2001:db8::1", Some(3)),
            ("::1", None),
            ("11.0.0.1", None),
        ];
        for (ip, expected) in table {
            assert_eq!(networks.find(ip.parse().expect("an address")), expected, "{ip}");
        }
    }
}
