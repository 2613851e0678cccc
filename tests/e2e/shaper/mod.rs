//! Fairness between classes of requests: x0's table of the TokenShaper over HTTP, one token a request in flight.

mod api;
mod limits;
mod tenants;

use crate::admin::Admin;
use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::{Setup, frontend};
use crate::support::tls::Authority;
use crate::support::{HOST, PATIENCE, canned, until, worker_has_caught_up};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Keeps each request until its path is opened.
#[derive(Default)]
struct Doors {
    open: Mutex<BTreeSet<String>>,
    changed: Condvar,
}

impl Doors {
    fn open(&self, path: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        self.changed.notify_all();
    }

    fn pass(&self, path: &str) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (open, _) = self
            .changed
            .wait_timeout_while(open, PATIENCE, |open| !open.contains(path))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(open.contains(path), "waited in vain for the door of {path}");
    }
}

/// x0's fixture.
fn fixture() -> Value {
    json!({"vip": "10..30 %", "main": {"share": "50..70 %", "buckets": {"upload": "50 %"}}})
}

/// Rules for buckets of these names: each is chosen by the field `X-Class`.
fn rules(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"header": ["X-Class", name], "bucket": name})).collect()
}

/// A cluster of one backend that keeps its requests, the views of its buckets, and clients.
struct Bench {
    admin: Admin,
    backend: Backend,
    doors: Arc<Doors>,
    clients: BTreeMap<String, Client>,
}

impl Bench {
    fn start(capacity: u32, buckets: Value) -> Self {
        Self::start_with(capacity, buckets, |setup| setup)
    }

    fn start_with(capacity: u32, buckets: Value, change: impl FnOnce(Setup) -> Setup) -> Self {
        let doors = Arc::new(Doors::default());
        let inner = Arc::clone(&doors);
        let backend = Backend::serve(move |request, conn| {
            inner.pass(request.head.target());
            conn.send(canned::ok(request.head.target()));
        });
        let setup = Setup::for_backends([format!("{}#capacity={capacity}", backend.url())]);
        let setup = setup.option(HOST, "buckets", buckets).option(HOST, "bucketHeader", true);
        let setup = setup.option(HOST, "classify", rules(&["vip", "main", "upload"]));
        Self { admin: Admin::start(change(setup.workers(2))), backend, doors, clients: BTreeMap::new() }
    }

    /// Replaces capacity and options.
    fn write(&self, capacity: u32, options: &Value) {
        let url = format!("{}#capacity={capacity}", self.backend.url());
        let frontends = json!({ HOST: frontend(HOST, [url]) });
        self.admin.proxy.write_routes_text(&json!({"frontends": frontends, "options": { HOST: options }}).to_string());
    }

    /// The options of the fixture with other buckets.
    fn with_buckets(&self, buckets: &Value) -> Value {
        json!({"buckets": buckets, "bucketHeader": true, "classify": rules(&["vip", "main", "upload"])})
    }

    /// Sends a request of a class under a name of its own.
    fn send(&mut self, class: &str, name: &str) {
        let mut client = self.admin.proxy.client();
        client.send(format!("GET /{name} HTTP/1.1\r\nHost: {HOST}\r\nX-Class: {class}\r\nX-Debug: 1\r\n\r\n"));
        self.clients.insert(name.to_owned(), client);
    }

    /// Sends a request, and waits until the backend has it.
    fn get(&mut self, class: &str, name: &str) {
        let before = self.backend.heads();
        self.send(class, name);
        self.backend.until_heads(before + 1);
    }

    /// Waits until the backend has read so many whole requests.
    fn until_requests(&self, count: usize) {
        until(&format!("{count} requests at the backend"), || self.backend.requests().len() >= count);
    }

    /// Sends a request, and waits until it waits.
    fn enqueue(&mut self, class: &str, name: &str) {
        let before = self.number(class, "waiting");
        self.send(class, name);
        until(&format!("{name} waits in {class}"), || self.number(class, "waiting") == before + 1);
    }

    /// Lets a request end, which is its class's.
    fn put(&mut self, class: &str, name: &str) {
        self.doors.open(&format!("/{name}"));
        let response = self.client(name).response_to("GET");
        response.expect_ok(&format!("/{name}"));
        assert_eq!(response.head.get("X-Director-Bucket"), Some(class), "{name}");
    }

    /// Expects a response of the proxy itself.
    fn expect_refused(&mut self, class: &str, name: &str, reason: &str) {
        let response = self.client(name).response_to("GET");
        let found = (response.status(), response.head.get("X-Debug-Error"), response.head.get("X-Director-Bucket"));
        assert_eq!(found, (503, Some(reason), Some(class)), "{name}");
    }

    fn client(&mut self, name: &str) -> Client {
        self.clients.remove(name).unwrap_or_else(|| panic!("no request {name}"))
    }

    /// The buckets by their names.
    fn buckets(&self) -> BTreeMap<String, Value> {
        fn add(bucket: &Value, all: &mut BTreeMap<String, Value>) {
            all.insert(bucket["name"].as_str().unwrap_or_default().to_owned(), bucket.clone());
            bucket["buckets"].as_array().into_iter().flatten().for_each(|below| add(below, all));
        }
        let mut all = BTreeMap::new();
        add(&self.admin.json(&format!("/v1/frontends/{HOST}"))["buckets"], &mut all);
        all
    }

    /// A number of a bucket's view; 0 before the frontend is in use.
    fn number(&self, bucket: &str, key: &str) -> u64 {
        let response = self.admin.get(&format!("/v1/frontends/{HOST}"));
        if response.status() == 404 {
            return 0;
        }
        self.buckets().get(bucket).and_then(|bucket| bucket[key].as_u64()).unwrap_or(0)
    }

    /// Waits until the buckets have these rates and ceils.
    fn until_sizes(&self, expected: &[(&str, u64, u64)]) {
        for (name, rate, ceil) in expected {
            until(&format!("{name} has {rate} of {ceil}"), || {
                (self.number(name, "rate"), self.number(name, "ceil")) == (*rate, *ceil)
            });
        }
    }

    /// Waits until the buckets use so many tokens, and so many beyond their rates.
    fn until_held(&self, expected: &[(&str, u64, u64)]) {
        for (name, held, over) in expected {
            until(&format!("{name} uses {held}, {over} over its rate"), || {
                (self.number(name, "actual"), self.number(name, "over")) == (*held, *over)
            });
        }
    }

    /// Sends requests of a class until one is refused, with names of this beginning; how many were not.
    fn get_all(&mut self, class: &str, prefix: &str) -> usize {
        for number in 0.. {
            let (name, waited) = (format!("{prefix}{number}"), self.number(class, "refused"));
            let heads = self.backend.heads();
            self.send(class, &name);
            until(&format!("{name} is served or refused"), || {
                self.backend.heads() > heads || self.number(class, "refused") > waited
            });
            if self.backend.heads() == heads {
                self.expect_refused(class, &name, "queue_full");
                return number;
            }
        }
        unreachable!("a cluster without an end")
    }
}

const FIXTURE_AT_10: [(&str, u64, u64); 4] = [("vip", 1, 3), ("main", 5, 7), ("upload", 2, 3), ("root", 10, 10)];

#[test]
fn tokens_are_counted_at_the_bucket_and_the_root() {
    let mut bench = Bench::start_with(10, fixture(), |setup| setup.option(HOST, "queueLimit", 0));
    bench.get("vip", "1");
    bench.until_sizes(&FIXTURE_AT_10);
    bench.until_held(&[("vip", 1, 0), ("root", 1, 0)]);
    bench.put("vip", "1");
    bench.until_held(&[("vip", 0, 0), ("root", 0, 0)]);
    for (number, over) in [(1, 0), (2, 1), (3, 2)] {
        bench.get("vip", &format!("a{number}"));
        bench.until_held(&[("vip", number, over), ("root", number, 0)]);
    }
    bench.send("vip", "a4");
    bench.expect_refused("vip", "a4", "queue_full");
    bench.until_held(&[("vip", 3, 2), ("root", 3, 0)]);
    bench.put("vip", "a1");
    bench.until_held(&[("vip", 2, 1), ("root", 2, 0)]);
    bench.put("vip", "a2");
    bench.until_held(&[("vip", 1, 0), ("root", 1, 0)]);
    bench.put("vip", "a3");
    bench.until_held(&[("vip", 0, 0), ("main", 0, 0), ("upload", 0, 0), ("root", 0, 0)]);
}

#[test]
fn sizes_follow_the_capacity_and_the_shares_at_once() {
    let mut bench = Bench::start_with(10, fixture(), |setup| setup.option(HOST, "queueLimit", 0));
    bench.get("root", "first");
    for (size, vip, main, upload) in [
        (11, (1, 3), (5, 7), (2, 3)),
        (100, (10, 30), (50, 70), (25, 35)),
        (200, (20, 60), (100, 140), (50, 70)),
        (4, (0, 1), (2, 2), (1, 1)),
        (1, (0, 0), (0, 0), (0, 0)),
        (10, (1, 3), (5, 7), (2, 3)),
    ] {
        let mut options = bench.with_buckets(&fixture());
        options["queueLimit"] = json!(0);
        bench.write(size, &options);
        let of = |name, (rate, ceil): (u64, u64)| (name, rate, ceil);
        bench.until_sizes(&[
            ("root", size.into(), size.into()),
            of("vip", vip),
            of("main", main),
            of("upload", upload),
        ]);
    }
    bench.write(11, &bench.with_buckets(&fixture()));
    bench.until_sizes(&[("root", 11, 11)]);
    for (share, main, upload) in [("60..70 %", (6, 7), (3, 3)), ("50..80 %", (5, 8), (2, 4))] {
        let buckets = json!({"vip": "10..30 %", "main": {"share": share, "buckets": {"upload": "50 %"}}});
        bench.write(10, &bench.with_buckets(&buckets));
        bench.until_sizes(&[("main", main.0, main.1), ("upload", upload.0, upload.1)]);
    }
    // The request of before has stayed, and is served.
    bench.until_held(&[("root", 1, 0)]);
    bench.put("root", "first");
}

#[test]
fn a_bucket_serves_its_queue_in_order() {
    let mut bench = Bench::start(10, fixture());
    (1..=3).for_each(|number| bench.get("vip", &format!("{number}")));
    bench.enqueue("vip", "A");
    bench.enqueue("vip", "B");
    assert_eq!(bench.backend.heads(), 3, "the ceil of vip is 3");
    assert_eq!(bench.number("vip", "queued"), 2);
    // Others are not held up.
    bench.get("main", "other");
    bench.put("main", "other");
    bench.put("vip", "1");
    bench.until_requests(5);
    assert_eq!(bench.backend.requests()[4].head.target(), "/A");
    assert_eq!(bench.number("vip", "waiting"), 1);
    bench.put("vip", "2");
    bench.until_requests(6);
    assert_eq!(bench.backend.requests()[5].head.target(), "/B");
    ["3", "A", "B"].iter().for_each(|name| bench.put("vip", name));
    bench.until_held(&[("vip", 0, 0), ("root", 0, 0)]);
    until("the waits are counted", || bench.number("vip", "waits") == 2);
}

#[test]
fn a_request_leaves_the_queue_of_its_bucket_by_time_and_with_its_client() {
    let buckets = json!({"vip": {"share": "10..30 %", "queueTimeout": 0.2, "queueLimit": 1}});
    let classify = json!([{"header": ["X-Class", "vip"], "bucket": "vip"}]);
    let mut bench = Bench::start_with(10, buckets, |setup| setup.option(HOST, "classify", classify));
    (1..=3).for_each(|number| bench.get("vip", &format!("{number}")));
    bench.send("vip", "late");
    bench.expect_refused("vip", "late", "queue_timeout");
    until("the time-out is counted", || bench.number("vip", "timed_out") == 1);
    let options = json!({
        "buckets": {"vip": {"share": "10..30 %", "queueLimit": 1}}, "classify": rules(&["vip"]), "bucketHeader": true,
    });
    bench.write(10, &options);
    until("the new time holds", || {
        let view = bench.admin.json(&format!("/v1/frontends/{HOST}"));
        view["options"]["buckets"].as_str().is_some_and(|text| !text.contains("queueTimeout"))
    });
    bench.enqueue("vip", "leaving");
    bench.send("vip", "refused");
    bench.expect_refused("vip", "refused", "queue_full");
    bench.client("leaving").abort();
    until("the one that left is gone", || bench.number("vip", "waiting") == 0);
    assert!(bench.number("vip", "left") >= 1);
    bench.enqueue("vip", "staying");
    bench.put("vip", "1");
    ["2", "3", "staying"].iter().for_each(|name| bench.put("vip", name));
    bench.until_held(&[("vip", 0, 0), ("root", 0, 0)]);
    assert!(bench.backend.requests().iter().all(|request| request.head.target() != "/leaving"));
}

#[test]
fn idle_shares_are_lent_and_come_back_with_the_next_tokens_freed() {
    let buckets = json!({"main": "50..100 %", "vip": "50..100 %"});
    let mut bench =
        Bench::start_with(5, buckets, |setup| setup.option(HOST, "classify", rules(&["vip", "main"])).workers(2));
    (0..5).for_each(|number| bench.get("main", &format!("m{number}")));
    bench.until_held(&[("main", 5, 3), ("vip", 0, 0), ("root", 5, 0)]);
    for name in ["main", "vip"] {
        (0..3).for_each(|number| bench.enqueue(name, &format!("{name}-{number}")));
    }
    for (number, expected) in [(0, "/vip-0"), (1, "/vip-1")] {
        bench.put("main", &format!("m{number}"));
        bench.until_requests(6 + number);
        assert_eq!(bench.backend.requests()[5 + number].head.target(), expected, "vip is below its rate of 2");
    }
    let names: Vec<String> = bench.clients.keys().cloned().collect();
    names.iter().for_each(|name| bench.doors.open(&format!("/{name}")));
    for name in names {
        bench.client(&name).response_to("GET").expect_ok(&format!("/{name}"));
    }
    bench.until_held(&[("main", 0, 0), ("vip", 0, 0), ("root", 0, 0)]);
}

/// x0's own rule lets these orders hold 18, 12 and 10 of 10 tokens.
#[test]
fn the_root_is_never_exceeded_whatever_the_order() {
    let orders: [&[(&str, usize)]; 3] = [
        &[("root", 10), ("vip", 0), ("main", 0), ("upload", 0)],
        &[("vip", 3), ("main", 7), ("upload", 0)],
        &[("upload", 3), ("main", 4), ("vip", 3), ("root", 0)],
    ];
    for order in orders {
        let mut bench = Bench::start_with(10, fixture(), |setup| setup.option(HOST, "queueLimit", 0));
        let taken: Vec<_> = order.iter().map(|(class, _)| (*class, bench.get_all(class, class))).collect();
        assert_eq!(taken, order);
        bench.until_held(&[("root", 10, 0)]);
        let names: Vec<String> = bench.clients.keys().cloned().collect();
        names.iter().for_each(|name| bench.doors.open(&format!("/{name}")));
        names.iter().for_each(|name| bench.client(name).response_to("GET").expect_ok(&format!("/{name}")));
        bench.until_held(&[("root", 0, 0)]);
    }
}

#[test]
fn a_wrong_tree_is_named_with_its_place_and_the_one_before_stays() {
    let mut bench = Bench::start_with(10, fixture(), |setup| setup.option(HOST, "queueLimit", 0));
    bench.get("vip", "held");
    let inside = |inside: Value| json!({"vip": {"share": "10..30 %", "buckets": inside}});
    let table = [
        (json!({"vip": "10..30 %", "main": "50..70 %", "more": "41..50 %"}), "add up to 101 %"),
        (json!({"more": "110 %"}), "the rate is over 100 %"),
        (json!({"vip": "10..9 %"}), "below the rate"),
        (inside(json!({"a": "100..101 %"})), "the ceil is over 100 %"),
        (inside(json!({"vip": "100 %"})), "another bucket of the tree has this name"),
        (json!({"root": "100 %"}), "the root of the tree is no bucket of its own"),
        (json!(["vip"]), "found a list, expected an object of buckets"),
    ];
    for (buckets, problem) in table {
        bench.write(10, &json!({ "buckets": buckets }));
        until(problem, || {
            let said = bench.admin.proxy.stderr();
            said.lines().any(|line| line.contains(&format!("options[{HOST:?}].buckets")) && line.contains(problem))
        });
        bench.until_sizes(&FIXTURE_AT_10);
    }
    bench.write(10, &json!({"buckets": fixture(), "classify": [{"bucket": "nobody"}]}));
    until("the unknown bucket is named", || {
        bench.admin.proxy.stderr().contains("classify[0].bucket: found \"nobody\", expected a bucket")
    });
    bench.until_held(&[("vip", 1, 0), ("root", 1, 0)]);
    bench.put("vip", "held");
}

#[test]
fn a_live_edit_keeps_tokens_and_queues_and_buckets_can_be_taken_away() {
    let mut bench = Bench::start(10, fixture());
    (1..=3).for_each(|number| bench.get("vip", &format!("{number}")));
    bench.enqueue("vip", "4");
    bench.write(10, &bench.with_buckets(&json!({"vip": "10..40 %", "main": "10 %", "upload": "10 %"})));
    bench.until_requests(4);
    bench.until_held(&[("vip", 4, 3), ("root", 4, 0)]);
    bench.enqueue("vip", "5");
    // Without buckets there is nothing to wait for but a slot.
    bench.write(10, &json!({}));
    bench.until_requests(5);
    until("the buckets are gone", || bench.admin.json(&format!("/v1/frontends/{HOST}"))["buckets"].is_null());
    bench.doors.open("/plain");
    let mut plain = bench.admin.proxy.client();
    until("no response names a bucket", || {
        let response = plain.get(HOST, "/plain");
        response.expect_ok("/plain");
        response.head.get("X-Director-Bucket").is_none()
    });
    // They come back, and count what they have held all the time.
    bench.write(10, &bench.with_buckets(&json!({"vip": "10..40 %"})));
    until("the rules are refused", || bench.admin.proxy.stderr().contains("found \"main\", expected a bucket"));
    let options = json!({"buckets": {"vip": "10..40 %"}, "classify": rules(&["vip"]), "bucketHeader": true});
    bench.write(10, &options);
    bench.until_sizes(&[("vip", 1, 4)]);
    for number in 1..=5 {
        bench.doors.open(&format!("/{number}"));
        bench.client(&number.to_string()).response_to("GET").expect_ok(&format!("/{number}"));
    }
    bench.until_held(&[("vip", 0, 0), ("root", 0, 0)]);
}

#[test]
fn a_cluster_without_a_limit_has_no_buckets_and_says_so() {
    let backend = Backend::always(canned::ok("ok"));
    let setup = Setup::for_backends([backend.url()]).option(HOST, "buckets", fixture());
    let admin = Admin::start(setup.option(HOST, "bucketHeader", true).workers(1));
    let response = admin.proxy.client().get(HOST, "/");
    response.expect_ok("ok");
    assert_eq!(response.head.get("X-Director-Bucket"), None);
    let problem = format!("{HOST}: buckets do not apply: {} has no capacity", backend.url());
    until("the log says so", || admin.proxy.stderr().contains(&problem));
    let options = json!({"buckets": fixture(), "maxRequests": 10});
    let frontends = json!({ HOST: frontend(HOST, [backend.url()]) });
    admin.proxy.write_routes_text(&json!({"frontends": frontends, "options": { HOST: options }}).to_string());
    until("the limit of the cluster is the root", || {
        admin.json(&format!("/v1/frontends/{HOST}"))["buckets"]["rate"] == 10
    });
}

#[test]
fn requests_are_classified_by_what_they_are() {
    let backend = Backend::always(canned::ok("ok"));
    let buckets: Value = ["host", "prefix", "regex", "method", "header", "cookie", "network", "named"]
        .iter()
        .map(|name| ((*name).to_owned(), json!("5..50 %")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let classify = json!([
        {"host": "*.other.test", "bucket": "host"},
        {"pathPrefix": "/upload/", "method": ["PUT", "POST"], "bucket": "prefix"},
        {"pathRegex": "\\.(png|jpg)$", "bucket": "regex"},
        {"method": "DELETE", "bucket": "method"},
        {"header": ["X-Class", "vip"], "bucket": "header"},
        {"cookie": "crawler", "bucket": "cookie"},
        {"network": "127.7.0.0/16", "bucket": "network"},
        {"bucketFrom": "X-Bucket"},
    ]);
    let mut setup = Setup::new().set("trustedNetworks", json!(["127.8.0.0/16"])).workers(1).with_access_log();
    setup = setup.set("accessLogFormat", "$target $bucket");
    for host in [HOST, "*.other.test"] {
        setup = setup.route(host, [format!("{}#capacity=20", backend.url())]).option(host, "buckets", buckets.clone());
        setup = setup.option(host, "classify", classify.clone()).option(host, "bucketHeader", true);
    }
    let proxy = setup.start();
    let from = |address: &str| proxy.client_from(address.parse().expect("an address"));
    let table = [
        ("GET", "a.other.test", "/1", "", "127.0.0.1", "host"),
        ("POST", HOST, "/upload/2", "", "127.0.0.1", "prefix"),
        ("GET", HOST, "/upload/3", "", "127.0.0.1", "root"),
        ("GET", HOST, "/4.png?x", "", "127.0.0.1", "regex"),
        ("DELETE", HOST, "/5", "", "127.0.0.1", "method"),
        ("GET", HOST, "/6", "x-class: vip\r\n", "127.0.0.1", "header"),
        ("GET", HOST, "/7", "Cookie: a=b; crawler=1\r\n", "127.0.0.1", "cookie"),
        ("GET", HOST, "/8", "", "127.7.3.4", "network"),
        ("GET", HOST, "/9", "X-Bucket: named\r\n", "127.0.0.1", "root"),
        ("GET", HOST, "/10", "X-Bucket: named\r\n", "127.8.0.1", "named"),
        ("GET", HOST, "/11", "X-Bucket: nobody\r\n", "127.8.0.1", "root"),
        ("GET", HOST, "/12", "X-Forwarded-For: 127.7.1.1\r\n", "127.8.0.1", "network"),
        ("GET", HOST, "/13", "X-Forwarded-For: 127.7.1.1\r\n", "127.0.0.1", "root"),
    ];
    for (method, host, target, fields, source, bucket) in table {
        let body = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}{body}\r\n");
        let response = from(source).exchange(request);
        assert_eq!(response.head.get("X-Director-Bucket"), Some(bucket), "{target}");
    }
    let lines = proxy.log_lines("access.log", table.len());
    for (_, _, target, _, _, bucket) in table {
        assert!(lines.contains(&format!("{target} {bucket}")), "{target}: {lines:?}");
    }
    worker_has_caught_up(&proxy);
}

#[test]
fn the_server_name_of_a_handshake_is_a_class_of_its_own() {
    let (backend, authority) = (Backend::always(canned::ok("ok")), Authority::new());
    let setup = Setup::for_backends([format!("{}#capacity=10", backend.url())]).with_https();
    let setup = setup.default_certificate(&authority.issue(&[HOST, "vip.example.com"]));
    let setup = setup.option(HOST, "buckets", json!({"VIP": "5..50 %"})).option(HOST, "bucketHeader", true);
    let classify = json!([{"tlsName": "vip.example.com", "bucket": "VIP"}]);
    let proxy = setup.option(HOST, "classify", classify).start();
    let bucket = |mut client: Client| client.get(HOST, "/").head.get("X-Director-Bucket").map(str::to_owned);
    let trust = authority.trust();
    assert_eq!(bucket(trust.client(&proxy, "vip.example.com")).as_deref(), Some("VIP"));
    assert_eq!(bucket(trust.client(&proxy, HOST)).as_deref(), Some("root"));
    assert_eq!(bucket(proxy.client()).as_deref(), Some("root"));
}
