//! `compression`: the selection of responses to compress, and the changes of their heads. The conditions are those of
//! HAProxy 2.6 (configuration.txt, `compression`, and its `flt_http_comp.c`).

use super::head::Head;
use crate::haproxy::model::Compression;

/// The coding of a compressed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip` (RFC 1952).
    Gzip,
    /// `deflate` (RFC 1950).
    Deflate,
    /// `raw-deflate`: RFC 1951 under the name `deflate`, for some old browsers.
    RawDeflate,
}

impl Coding {
    fn of(algorithm: &str) -> Option<Self> {
        match algorithm {
            "gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "raw-deflate" => Some(Self::RawDeflate),
            _ => None,
        }
    }

    /// The value of `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate | Self::RawDeflate => "deflate",
        }
    }
}

/// The settings of the two proxies of a request; the backend first.
pub(super) type Both<'a> = [Option<&'a Compression>; 2];

fn settings<'a>(both: Both<'a>) -> impl Iterator<Item = &'a Compression> {
    both.into_iter().flatten()
}

/// The coding that a request accepts; of several the one with the highest quality, and then the first of the file. With
/// `compression offload` the server does not see `Accept-Encoding`.
pub(super) fn accepted(both: Both<'_>, request: &mut Head) -> Option<Coding> {
    let algorithms = &settings(both).find(|settings| !settings.algorithms.is_empty())?.algorithms;
    let coding = best(algorithms, request);
    if settings(both).any(|settings| settings.offload) {
        request.remove_named("accept-encoding");
    }
    coding
}

fn best(algorithms: &[String], request: &Head) -> Option<Coding> {
    if request.value_of("user-agent").is_some_and(is_old_browser) {
        return None;
    }
    let (mut best, mut best_quality) = (None, 0);
    request.each_field(&mut |name, value| {
        if !name.eq_ignore_ascii_case(b"accept-encoding") {
            return false;
        }
        for item in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let (token, quality) = split_quality(item);
            let is_it = |algorithm: &&String| {
                let name = Coding::of(algorithm).map_or("identity", Coding::name);
                token == b"*" || token.eq_ignore_ascii_case(name.as_bytes())
            };
            if let Some(algorithm) = algorithms.iter().find(is_it).filter(|_| quality > best_quality) {
                (best, best_quality) = (Coding::of(algorithm), quality);
            }
        }
        false
    });
    best
}

/// A coding and its quality in thousandths.
fn split_quality(item: &[u8]) -> (&[u8], u16) {
    let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let token = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
    let thousandths = |text: &[u8]| {
        let quality: f32 = std::str::from_utf8(text).ok()?.parse().ok()?;
        (0.0..=1.0).contains(&quality).then_some(quality * 1000.0)
    };
    let quality = quality.map_or(Some(1000.0), thousandths).unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 1000")]
    (token, quality as u16)
}

/// Browsers identified as Mozilla/4 get no compressed bodies, except Internet Explorer from 6 SP2 on.
fn is_old_browser(agent: &[u8]) -> bool {
    let Some(rest) = agent.strip_prefix(b"Mozilla/4") else { return false };
    let version = memchr::memmem::find(rest, b" MSIE ").and_then(|at| rest.get(at + 6));
    let is_six = version == Some(&b'6') && memchr::memmem::find(rest, b"SV1").is_some();
    !(is_six || version.is_some_and(|version| (b'7'..=b'9').contains(version)))
}

/// Marks a response as compressed in its head, if the conditions hold. Returns whether they do.
pub(super) fn apply(coding: Coding, both: Both<'_>, response: &mut Head) -> bool {
    if !matches!(response.status(), Some(200..=203)) || !may_be_compressed(both, response) {
        return false;
    }
    response.remove_named("content-length");
    if response.value_of("transfer-encoding").is_none() {
        response.add("Transfer-Encoding", b"chunked");
    }
    response.add("Content-Encoding", coding.name().as_bytes());
    response.add("Vary", b"Accept-Encoding");
    // The bytes differ, so the entity tag becomes a weak one (RFC 9110 section 8.8.3.3).
    if let Some(tag) = response.value_of("etag").filter(|tag| tag.starts_with(b"\"")) {
        let weak = [b"W/", tag].concat();
        response.remove_named("etag");
        response.add("ETag", &weak);
    }
    true
}

fn may_be_compressed(both: Both<'_>, response: &Head) -> bool {
    let types = settings(both).find(|settings| !settings.types.is_empty()).map_or(&[][..], |settings| &settings.types);
    let is_prefixed = |value: &[u8], prefix: &str| {
        value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    let has_type = match response.value_of("content-type") {
        Some(value) => {
            !is_prefixed(value, "multipart")
                && (types.is_empty() || types.iter().any(|known| is_prefixed(value, known)))
        }
        None => types.is_empty(),
    };
    let (mut is_refused, mut tags) = (false, 0);
    response.each_field(&mut |name, value| {
        is_refused |= name.eq_ignore_ascii_case(b"content-encoding");
        let mut directives = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        is_refused |= name.eq_ignore_ascii_case(b"cache-control")
            && directives.any(|directive| directive.eq_ignore_ascii_case(b"no-transform"));
        if name.eq_ignore_ascii_case(b"etag") {
            tags += 1;
            let opaque = value.strip_prefix(b"W/").unwrap_or(value);
            is_refused |= !(opaque.len() >= 2 && opaque.starts_with(b"\"") && opaque.ends_with(b"\""));
        }
        false
    });
    has_type && !is_refused && tags <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        let mut head = Head::default();
        head.load(text.as_bytes());
        head
    }

    #[test]
    fn the_coding_is_what_the_client_likes_best() {
        let table = [
            ("Accept-Encoding: gzip, deflate", Some(Coding::Gzip)),
            ("Accept-Encoding: gzip;q=0.5, deflate", Some(Coding::Deflate)),
            ("Accept-Encoding: gzip;q=0, br", None),
            ("Accept-Encoding: br\r\nAccept-Encoding: GZIP", Some(Coding::Gzip)),
            ("Accept-Encoding: *", Some(Coding::Gzip)),
            ("Accept-Encoding: gzip;q=x", None),
            ("Accept: gzip", None),
            ("Accept-Encoding: gzip\r\nUser-Agent: Mozilla/4.0 (compatible; MSIE 5.5)", None),
            ("Accept-Encoding: gzip\r\nUser-Agent: Mozilla/4.0 (compatible; MSIE 6.0; SV1)", Some(Coding::Gzip)),
            ("Accept-Encoding: gzip\r\nUser-Agent: Mozilla/5.0", Some(Coding::Gzip)),
        ];
        let algorithms = ["gzip", "deflate", "identity"].map(str::to_owned);
        for (lines, expected) in table {
            let request = head(&format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n"));
            assert_eq!(best(&algorithms, &request), expected, "{lines}");
        }
    }

    #[test]
    fn a_head_says_that_its_body_is_compressed_or_stays() {
        let table = [
            ("200 OK\r\nContent-Length: 9", true),
            ("203 X\r\nContent-Length: 9\r\nETag: W/\"a\"", true),
            ("204 No Content", false),
            ("404 Not Found\r\nContent-Length: 9", false),
            ("200 OK\r\nContent-Encoding: br", false),
            ("200 OK\r\nCache-Control: public, no-transform", false),
            ("200 OK\r\nETag: a", false),
            ("200 OK\r\nETag: \"a\"\r\nETag: \"b\"", false),
            ("200 OK\r\nContent-Type: multipart/mixed", false),
        ];
        for (lines, expected) in table {
            let mut response = head(&format!("HTTP/1.1 {lines}\r\n\r\n"));
            assert_eq!(apply(Coding::Gzip, [None, None], &mut response), expected, "{lines}");
            assert_eq!(response.is_changed(), expected, "{lines}");
        }
        let mut response = head("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nETag: \"a\"\r\nA: b\r\n\r\n");
        assert!(apply(Coding::Deflate, [None, None], &mut response));
        let expected = "HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\nContent-Encoding: deflate\r\n\
                        Vary: Accept-Encoding\r\nETag: W/\"a\"\r\n\r\n";
        assert_eq!(std::str::from_utf8(response.bytes()), Ok(expected));
    }
}
