//! What a request costs this program, part by part, each beside an obvious reference.
//!
//! `cargo bench` runs all; `cargo bench head` those whose names have it.

use divan::{Bencher, black_box};
use sluice::base::clock::Moment;
use sluice::base::wheel::Wheel;
use sluice::cluster::{Cluster, ClusterSpec, Options, Route};
use sluice::route::{self, Cache};
use sluice::shaper::{Admission, BucketId, Classifier, QueueLimits, RequestView, Rules, Shaper, Spec};
use sluice::wire::chunked::{Chunked, Part};
use sluice::wire::forwarded::{Mode, Peer, Policy};
use sluice::wire::limits::Limits;
use sluice::wire::request::{ForwardContext, RequestHead, fields};
use sluice::wire::response::{Persistence, ResponseEncoding, ResponseHead};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn main() {
    divan::main();
}

const REQUEST: &[u8] = b"GET /articles/2026/11/20/index.html?page=2 HTTP/1.1\r\nHost: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: http://www.example.com/articles/\r\nConnection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nUpgrade-Insecure-Requests: 1\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Fri, 20 Nov 2026 09:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\nContent-Length: 5120\r\nLast-Modified: Fri, 20 Nov 2026 08:00:00 GMT\r\n\
    Connection: keep-alive\r\nETag: \"abc\"\r\nCache-Control: max-age=60\r\n\r\n";

/// What a program asks that adds no fields of its own, and what it gets.
const PLAIN_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n";

const PLAIN_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Fri, 20 Nov 2026 09:00:00 GMT\r\n\
    Content-Type: application/octet-stream\r\nContent-Length: 140\r\nConnection: keep-alive\r\n\r\n";

fn request(name: &str) -> &'static [u8] {
    if name == "plain" { PLAIN_REQUEST } else { REQUEST }
}

fn response(name: &str) -> &'static [u8] {
    if name == "plain" { PLAIN_RESPONSE } else { RESPONSE }
}

#[divan::bench(args = ["plain", "browser"])]
fn head_parse_request(name: &str) -> usize {
    let mut room = fields();
    let head = RequestHead::parse(black_box(request(name)), &mut room).expect("a good head").expect("a whole head");
    head.len
}

#[divan::bench(args = ["plain", "browser"])]
fn head_parse_request_reference_httparse(name: &str) -> usize {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(black_box(request(name))).expect("a good head").unwrap()
}

#[divan::bench(args = ["plain", "browser"])]
fn head_rewrite_request(bencher: Bencher<'_, '_>, name: &str) {
    let policy = Policy { trusted: Vec::new(), mode: Mode::Append };
    let peer = Peer { address: [192, 0, 2, 1].into(), local_port: 80, secure: false, tls: None };
    let forward = ForwardContext {
        peer: &peer,
        policy: &policy,
        via: Some("sluice"),
        request_id: None,
        request_start: None,
        may_lack_host: false,
    };
    let mut out = Vec::with_capacity(4096);
    let bytes = request(name);
    bencher.bench_local(|| {
        let mut room = fields();
        let head = RequestHead::parse(black_box(bytes), &mut room).expect("a good head").expect("a whole head");
        out.clear();
        head.write(&forward, &mut out).expect("a good host");
        out.len()
    });
}

#[divan::bench(args = ["plain", "browser"])]
fn head_rewrite_response(bencher: Bencher<'_, '_>, name: &str) {
    let encoding =
        ResponseEncoding { chunked: false, to_http11: true, persistence: Persistence::Implied, via: Some("sluice") };
    let mut out = Vec::with_capacity(4096);
    let bytes = response(name);
    bencher.bench_local(|| {
        let mut room = fields();
        let head = ResponseHead::parse(black_box(bytes), &mut room, false).expect("good").expect("whole");
        out.clear();
        head.write(&encoding, &mut out);
        out.len()
    });
}

/// The reference of both rewrites: the bytes are copied as they came.
#[divan::bench]
fn head_rewrite_reference_copy(bencher: Bencher<'_, '_>) {
    let mut out = Vec::with_capacity(4096);
    bencher.bench_local(|| {
        out.clear();
        out.extend_from_slice(black_box(REQUEST));
        out.len()
    });
}

fn hosts(count: usize) -> Vec<Arc<str>> {
    (0..count).map(|number| format!("host-{number}.example.com").into()).collect()
}

fn route_of(host: &str) -> Arc<Route> {
    let spec = ClusterSpec { created: 0, key: host, id: "site", entries: Vec::new(), options: &Options::none() };
    Arc::new(Route::new(host, Cluster::edit(None, spec, Moment::ZERO)))
}

/// Hosts in rotation: with many, each look-up is a miss of the processor's caches.
#[divan::bench(args = [1, 1_000, 100_000])]
fn route_hit(bencher: Bencher<'_, '_>, count: usize) {
    let hosts = hosts(count);
    let settings = route::Settings { capacity: count, ttl: Duration::ZERO, unknown_capacity: 1 };
    let mut cache = Cache::new(&settings);
    hosts.iter().for_each(|host| cache.put_found(Arc::clone(host), route_of(host)));
    let mut next = hosts.iter().cycle();
    bencher.bench_local(|| cache.get(next.next().expect("a host")).is_some());
}

#[divan::bench(args = [1, 1_000, 100_000])]
fn route_hit_reference_hash_map(bencher: Bencher<'_, '_>, count: usize) {
    let hosts = hosts(count);
    let map: HashMap<Arc<str>, Arc<Route>> = hosts.iter().map(|host| (Arc::clone(host), route_of(host))).collect();
    let mut next = hosts.iter().cycle();
    bencher.bench_local(|| map.get(&**next.next().expect("a host")).cloned().is_some());
}

/// A miss, and the answer that takes the place of the oldest entry.
#[divan::bench]
fn lru_miss(bencher: Bencher<'_, '_>) {
    let hosts = hosts(2_000);
    let frontends: Vec<_> = hosts.iter().map(|host| route_of(host)).collect();
    let settings = route::Settings { capacity: 1_000, ttl: Duration::ZERO, unknown_capacity: 1 };
    let mut cache = Cache::new(&settings);
    let mut next = hosts.iter().zip(&frontends).cycle();
    bencher.bench_local(|| {
        let (host, frontend) = next.next().expect("a host");
        assert!(cache.get(host).is_none());
        cache.put_found(Arc::clone(host), Arc::clone(frontend));
    });
}

fn chunks(size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..65_536 / size {
        body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        body.resize(body.len() + size, b'x');
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

/// 64 KiB of data in chunks of this size.
#[divan::bench(args = [16, 1_024, 16_384])]
fn chunked_decode(bencher: Bencher<'_, '_>, size: usize) {
    let body = chunks(size);
    bencher.bench_local(|| {
        let (mut chunked, mut at, mut data) = (Chunked::new(&Limits::default()), 0, 0);
        loop {
            match chunked.decode(black_box(&body[at..])).expect("good chunks") {
                Part::Framing(len) => at += len,
                Part::Data(len) => (at, data) = (at + len, data + len),
                Part::End { .. } | Part::Incomplete => return data,
            }
        }
    });
}

/// The reference: all bytes looked at once, by the fastest search there is.
#[divan::bench(args = [16, 1_024, 16_384])]
fn chunked_decode_reference_memchr(bencher: Bencher<'_, '_>, size: usize) {
    let body = chunks(size);
    bencher.bench_local(|| memchr::memchr_iter(b'\n', black_box(&body)).count());
}

const TIMERS: u64 = 10_000;

/// A deadline moves on, as with every request of a connection.
#[divan::bench]
fn timer_wheel_set(bencher: Bencher<'_, '_>) {
    let mut wheel = Wheel::new(Moment::ZERO);
    let mut timers: Vec<_> = (0..TIMERS).map(|owner| wheel.insert(owner)).collect();
    let mut now = Moment::ZERO;
    let mut next = (0..timers.len()).cycle();
    bencher.bench_local(|| {
        now = now + Duration::from_micros(10);
        wheel.set(&mut timers[next.next().expect("a timer")], now + Duration::from_secs(30));
    });
}

#[divan::bench]
fn timer_wheel_set_reference_b_tree(bencher: Bencher<'_, '_>) {
    let mut tree = BTreeMap::new();
    let mut deadlines: Vec<Moment> = (0..TIMERS).map(Moment::from_micros).collect();
    tree.extend(deadlines.iter().enumerate().map(|(owner, deadline)| ((*deadline, owner), ())));
    let (mut now, mut owner) = (Moment::ZERO, 0);
    bencher.bench_local(|| {
        now = now + Duration::from_micros(10);
        owner = (owner + 1) % deadlines.len();
        tree.remove(&(deadlines[owner], owner));
        deadlines[owner] = now + Duration::from_secs(30);
        tree.insert((deadlines[owner], owner), ());
    });
}

/// Four classes, as in docs/shaper.md; the last is at its limit and has a waiter, where `is_saturated`.
fn shaper(is_saturated: bool) -> (Shaper<u32>, BucketId) {
    let spec = r#"{"VIP": "5..20 %", "Upload": "5..10 %", "Backend": "1..10 t", "Jail": "1..1 t"}"#;
    let spec = Spec::parse(spec).expect("a good spec");
    let shaper = Shaper::new(1_000, &spec, QueueLimits { limit: 10, timeout: Duration::from_secs(60) });
    let jail = shaper.bucket("Jail").expect("a bucket");
    for waiter in 0..if is_saturated { 2 } else { 0 } {
        black_box(shaper.admit(jail, waiter, Moment::ZERO, |_, _| {}));
    }
    let vip = shaper.bucket("VIP").expect("a bucket");
    (shaper, vip)
}

fn take_and_give_back((shaper, bucket): &(Shaper<u32>, BucketId)) {
    match shaper.admit(black_box(*bucket), 0, Moment::ZERO, |_, _| {}) {
        Admission::Token(token) => shaper.give_back(token, Moment::ZERO, |_, _| {}),
        other => panic!("{other:?}"),
    }
}

/// A token of a bucket is taken and given back; nobody waits.
#[divan::bench(threads = [1, 2])]
fn shaper_token(bencher: Bencher<'_, '_>) {
    let shaper = shaper(false);
    bencher.bench(|| take_and_give_back(&shaper));
}

/// The same while a request of another bucket waits, so that takers and givers pass through the lock.
#[divan::bench(threads = [1, 2])]
fn shaper_token_beside_a_waiter(bencher: Bencher<'_, '_>) {
    let shaper = shaper(true);
    bencher.bench(|| take_and_give_back(&shaper));
}

/// The reference: one counter of all cores.
#[divan::bench(threads = [1, 2])]
fn shaper_token_reference_atomic(bencher: Bencher<'_, '_>) {
    let counter = AtomicU64::new(0);
    bencher.bench(|| {
        black_box(counter.fetch_add(1, Ordering::SeqCst));
        counter.fetch_sub(1, Ordering::SeqCst)
    });
}

/// The other reference: the two counters under a lock.
#[divan::bench(threads = [1, 2])]
fn shaper_token_reference_mutex(bencher: Bencher<'_, '_>) {
    let counters = Mutex::new([0_u32; 2]);
    bencher.bench(|| {
        counters.lock().expect("no panic").iter_mut().for_each(|counter| *counter += 1);
        counters.lock().expect("no panic").iter_mut().for_each(|counter| *counter -= 1);
    });
}

/// The bucket of a browser's request, which the last of four rules has.
#[divan::bench]
fn shaper_classify(bencher: Bencher<'_, '_>) {
    let spec = Spec::parse(r#"{"VIP": "5..20 %", "Upload": "5..10 %"}"#).expect("a good spec");
    let rules = r#"[{"header": ["X-Class", "vip"], "bucket": "VIP"}, {"cookie": ["class", "vip"], "bucket": "VIP"},
        {"network": "10.0.0.0/8", "bucket": "VIP"}, {"pathRegex": "^/articles/[0-9]+/", "bucket": "Upload"}]"#;
    let rules = Rules::parse(rules, &spec).expect("good rules");
    let classifier = Classifier::bind(&rules, &spec, &shaper(false).0);
    let line_end = memchr::memchr(b'\n', REQUEST).expect("a request line");
    let request = RequestView {
        host: "www.example.com",
        method: b"GET",
        target: b"/articles/2026/11/20/index.html?page=2",
        fields: &REQUEST[line_end + 1..],
        client: [192, 0, 2, 1].into(),
        tls_name: None,
        is_trusted: false,
    };
    bencher.bench_local(|| classifier.classify(black_box(&request)).bucket);
}
