//! Clusters: capacity, roles, the queue, schedulers and options of a frontend.

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::proxy::{Proxy, Setup, frontend};
use crate::support::{HOST, PATIENCE, canned, until, worker_has_caught_up};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Lets a number of requests through.
#[derive(Default)]
pub(crate) struct Turnstile {
    left: Mutex<usize>,
    changed: Condvar,
}

impl Turnstile {
    pub(crate) fn let_through(&self, count: usize) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) += count;
        self.changed.notify_all();
    }

    pub(crate) fn pass(&self) {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut left, _) =
            self.changed.wait_timeout_while(left, PATIENCE, |left| *left == 0).unwrap_or_else(PoisonError::into_inner);
        assert!(*left > 0, "waited in vain to be let through");
        *left -= 1;
    }
}

/// A backend that keeps requests for `/held…` until they are let through, and notes how many it had at once.
pub(crate) struct Holding {
    pub(crate) backend: Backend,
    pub(crate) turnstile: Arc<Turnstile>,
    most: Arc<AtomicUsize>,
    now: Arc<AtomicUsize>,
}

impl Holding {
    pub(crate) fn new() -> Self {
        let (turnstile, most, now) = (Arc::<Turnstile>::default(), Arc::<AtomicUsize>::default(), Arc::default());
        let (inner, peak, has) = (Arc::clone(&turnstile), Arc::clone(&most), Arc::<AtomicUsize>::clone(&now));
        let backend = Backend::serve(move |request, conn| {
            if request.head.target() == "/fail" {
                return conn.send(canned::sized("500 Internal Server Error", "ill"));
            }
            peak.fetch_max(has.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            if request.head.target().starts_with("/held") {
                inner.pass();
            }
            // Before the response: the next request may come as soon as that has left.
            has.fetch_sub(1, Ordering::SeqCst);
            conn.send(canned::ok(request.head.target()));
        });
        Self { backend, turnstile, most, now }
    }

    /// The requests that it has now.
    pub(crate) fn held(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub(crate) fn with(&self, attributes: &str) -> String {
        format!("{}#{attributes}", self.backend.url())
    }
}

/// A client whose request was sent.
pub(crate) fn sends(proxy: &Proxy, path: &str) -> Client {
    let mut client = proxy.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\n\r\n"));
    client
}

/// Replaces the list and the options of the host.
pub(crate) fn write(proxy: &Proxy, urls: &[String], options: &Value) {
    let frontends = json!({ HOST: frontend(HOST, urls.iter().cloned()) });
    proxy.write_routes_text(&json!({"frontends": frontends, "options": { HOST: options }}).to_string());
}

#[track_caller]
pub(crate) fn expect_own(client: &mut Client, status: u16, reason: &str, retry_after: Option<&str>) {
    let response = client.response_to("GET");
    let found = (response.status(), response.head.get("x-debug-error"), response.head.get("retry-after"));
    assert_eq!(found, (status, Some(reason), retry_after));
}

#[test]
fn capacity_holds_over_all_workers_and_every_request_is_served() {
    const CLIENTS: usize = 24;
    let holding = [(); 2].map(|()| Holding::new());
    let proxy = Setup::for_backends(holding.each_ref().map(|one| one.with("capacity=1"))).workers(2).start();
    let mut clients: Vec<_> = (0..CLIENTS).map(|number| sends(&proxy, &format!("/held/{number}"))).collect();
    holding.iter().for_each(|one| one.backend.until_heads(1));
    for one in &holding {
        one.turnstile.let_through(CLIENTS);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.response_to("GET").expect_ok(&format!("/held/{number}"));
    }
    assert_eq!(holding.each_ref().map(|one| one.most.load(Ordering::SeqCst)), [1, 1]);
}

#[test]
fn a_freed_slot_goes_to_the_oldest_and_who_leaves_is_passed_over() {
    let holding = Holding::new();
    let proxy = Setup::for_backends([holding.with("capacity=1")]).workers(1).start();
    // A client that was served before is watched at once when it waits.
    let mut waiting: Vec<_> = (0..5).map(|_| proxy.client()).collect();
    waiting.iter_mut().for_each(|client| client.get(HOST, "/warm").expect_ok("/warm"));
    let mut first = sends(&proxy, "/held/first");
    holding.backend.until_heads(6);
    for (number, client) in waiting.iter_mut().enumerate() {
        client.send(canned::get(HOST, &format!("/held/{number}")));
        worker_has_caught_up(&proxy);
    }
    waiting.remove(2).abort();
    worker_has_caught_up(&proxy);
    holding.turnstile.let_through(1);
    first.response_to("GET").expect_ok("/held/first");
    holding.turnstile.let_through(4);
    for (client, number) in waiting.iter_mut().zip([0, 1, 3, 4]) {
        client.response_to("GET").expect_ok(&format!("/held/{number}"));
    }
    let order: Vec<_> = holding.backend.requests().iter().map(|request| request.head.target().to_owned()).collect();
    assert_eq!(order[5..], ["/held/first", "/held/0", "/held/1", "/held/3", "/held/4"]);
    assert_eq!(holding.backend.connections(), 1, "the connection is kept from one to the next");
}

#[test]
fn standby_helps_in_an_overload_and_backup_in_an_outage_alone() {
    let [active, standby, backup] = [(); 3].map(|()| Holding::new());
    let urls = |flag: &str| {
        vec![
            active.with(&format!("capacity=1{flag}")),
            standby.with(&format!("capacity=1&role=standby{flag}")),
            backup.with("role=backup"),
        ]
    };
    let proxy = Setup::for_backends(urls("")).workers(1).start();
    let mut first = sends(&proxy, "/held/1");
    active.backend.until_heads(1);
    let mut second = sends(&proxy, "/held/2");
    standby.backend.until_heads(1);
    let mut third = sends(&proxy, "/3");
    worker_has_caught_up(&proxy);
    assert_eq!(backup.backend.heads(), 0, "a full cluster queues: it does not spill to its backup");
    // An outage: the request that waits is the backup's at once, and those under way are finished.
    write(&proxy, &urls("&disabled"), &json!({}));
    third.response_to("GET").expect_ok("/3");
    assert_eq!(backup.backend.heads(), 1);
    for (holding, client, path) in [(&active, &mut first, "/held/1"), (&standby, &mut second, "/held/2")] {
        holding.turnstile.let_through(1);
        client.response_to("GET").expect_ok(path);
    }
    assert_eq!([active.backend.heads(), standby.backend.heads()], [1, 1]);
}

#[test]
fn the_queue_has_a_length_and_a_time_and_says_when_to_come_back() {
    let holding = Holding::new();
    let setup = Setup::for_backends([holding.with("capacity=1")]).workers(1);
    let setup = setup.option(HOST, "queueLimit", 1).option(HOST, "queueTimeout", "300ms").option(HOST, "retryAfter", 7);
    let proxy = setup.start();
    let mut first = sends(&proxy, "/held/1");
    holding.backend.until_heads(1);
    let mut second = sends(&proxy, "/2");
    worker_has_caught_up(&proxy);
    expect_own(&mut sends(&proxy, "/3"), 503, "queue_full", Some("7"));
    expect_own(&mut second, 503, "queue_timeout", Some("7"));
    holding.turnstile.let_through(1);
    first.response_to("GET").expect_ok("/held/1");
    second.get(HOST, "/again").expect_ok("/again");
    // No room at all is a limit like any other.
    write(&proxy, &[holding.with("capacity=1")], &json!({"queueLimit": 0, "retryAfter": 0}));
    until("the new limit holds", || {
        let _held = sends(&proxy, "/held/again");
        let mut other = sends(&proxy, "/held/other");
        holding.turnstile.let_through(2);
        let response = other.response_to("GET");
        response.status() == 503 && response.head.get("retry-after").is_none()
    });
}

#[test]
fn caps_of_the_cluster_hold_for_requests_and_tunnels() {
    let holding = Holding::new();
    let proxy = Setup::for_backends([holding.with("")]).workers(2).option(HOST, "maxRequests", 1).start();
    let mut clients: Vec<_> = (0..6).map(|number| sends(&proxy, &format!("/held/{number}"))).collect();
    holding.backend.until_heads(1);
    holding.turnstile.let_through(6);
    clients.iter_mut().for_each(|client| assert_eq!(client.response_to("GET").status(), 200));
    assert_eq!(holding.most.load(Ordering::SeqCst), 1);

    let echo = Backend::raw(|conn| {
        let Some(_) = conn.head() else { return };
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        let byte = conn.bytes(1);
        conn.send(byte);
    });
    let url = format!("{}#capacity=1", echo.url());
    let proxy = Setup::for_backends([url]).workers(1).option(HOST, "maxTunnels", 1).start();
    let upgrade =
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Debug: 1\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    let mut tunnel = proxy.client();
    tunnel.send(&upgrade);
    assert_eq!(tunnel.head().status(), 101);
    let mut other = proxy.client();
    other.send(&upgrade);
    expect_own(&mut other, 503, "tunnel_limit", Some("1"));
    tunnel.send("x");
    assert_eq!(tunnel.bytes(1), b"x");
    drop(tunnel);
    until("the tunnel's place is free", || {
        let mut client = proxy.client();
        client.send(&upgrade);
        client.head().status() == 101
    });
}

#[test]
fn a_disabled_frontend_is_closed_for_maintenance_until_it_is_enabled() {
    let backend = Backend::always(canned::ok("open"));
    let proxy = Setup::for_backends([backend.url()]).option(HOST, "disabled", true).start();
    expect_own(&mut sends(&proxy, "/"), 503, "cluster_disabled", Some("1"));
    write(&proxy, &[backend.url()], &json!({"disabled": false}));
    let mut client = proxy.client();
    until("it is open again", || client.get(HOST, "/").status() == 200);
}

#[test]
fn an_edit_of_attributes_and_options_keeps_the_connection() {
    let backend = Backend::always(canned::ok("well"));
    let proxy = Setup::for_backends([backend.url()]).workers(1).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("well");
    for (attributes, options) in [
        ("capacity=3", json!({"scheduler": "rr"})),
        ("capacity=2&weight=7", json!({"scheduler": "leastLoad", "queueLimit": 3})),
        ("slowStart=5s", json!({"disabled": true})),
    ] {
        write(&proxy, &[format!("{}#{attributes}", backend.url())], &options);
        let is_open = options.get("disabled").is_none();
        if is_open {
            client.get(HOST, "/").expect_ok("well");
        } else {
            until("the edit is known", || client.get(HOST, "/").status() == 503);
        }
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn times_and_sizes_are_those_of_the_frontend() {
    let holding = Holding::new();
    let setup = Setup::for_backends([holding.backend.url()]).route("other.test", [holding.backend.url()]);
    let setup = setup.set("maxBodyBytes", 4).option(HOST, "responseTimeout", "200ms").option(HOST, "retries", 0);
    let proxy = setup.option(HOST, "maxBodyBytes", 8).option("other.test", "maxBodyBytes", 0).start();
    expect_own(&mut sends(&proxy, "/held"), 504, "response_timeout", None);
    holding.turnstile.let_through(1);
    let mut client = proxy.client();
    for (host, body, status) in [(HOST, "12345678", 200), ("other.test", "123456789", 200), (HOST, "123456789", 413)] {
        assert_eq!(client.exchange(canned::post(host, "/", body)).status(), status, "{host} {body}");
    }
}

#[test]
fn a_stream_without_a_length_may_be_silent_for_longer_than_a_body() {
    let turnstile = Arc::new(Turnstile::default());
    let inner = Arc::clone(&turnstile);
    let backend = Backend::serve(move |request, conn| {
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n");
        if request.head.target() == "/stream" {
            inner.pass();
            conn.send("5\r\nagain\r\n0\r\n\r\n");
        } else {
            conn.bytes(1);
        }
    });
    let setup = Setup::for_backends([backend.url()]).route("short.test", [backend.url()]).set("bodyTimeout", 0.1);
    let proxy = setup.option("short.test", "streamTimeout", "150ms").start();
    let mut stream = sends(&proxy, "/stream");
    // By the time that a stream with a short patience was cut, the other has outlived the patience with a body.
    let mut short = proxy.client();
    short.send(canned::get("short.test", "/"));
    assert_eq!(short.head().status(), 200);
    let (rest, _) = short.rest();
    assert_eq!(rest, b"5\r\nevent\r\n", "the missing end tells that it was cut");
    turnstile.let_through(1);
    assert_eq!(stream.response_to("GET").text(), "eventagain");
}

/// How many of `count` requests each of the backends `0` and on gets; `header` is sent with each.
fn shares(proxy: &Proxy, count: usize, header: impl Fn(usize) -> String) -> BTreeMap<String, usize> {
    let mut client = proxy.client();
    let mut shares = BTreeMap::new();
    for number in 0..count {
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n", header(number));
        *shares.entry(client.exchange(request).text()).or_default() += 1;
    }
    shares
}

#[test]
fn each_scheduler_does_as_its_name_says_and_is_switched_live() {
    let backends: Vec<_> = (0..3).map(|number| Backend::always(canned::ok(&number.to_string()))).collect();
    let urls: Vec<_> = backends.iter().zip(1..).map(|(one, weight)| format!("{}#weight={weight}", one.url())).collect();
    let proxy = Setup::for_backends(urls.clone()).workers(1).option(HOST, "scheduler", "rr").start();
    let none = |_: usize| String::new();
    let of = |list: &[(&str, usize)]| {
        list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(shares(&proxy, 60, none), of(&[("0", 10), ("1", 20), ("2", 30)]));
    write(&proxy, &urls, &json!({"scheduler": "chance"}));
    until("the first of the list gets all", || shares(&proxy, 6, none) == of(&[("0", 6)]));
    write(&proxy, &urls, &json!({"scheduler": "hash", "hash": {"key": "header:X-User"}}));
    until("each user has a backend", || {
        let by_user: Vec<_> = (0..64).map(|user| shares(&proxy, 2, |_| format!("X-User: {user}\r\n"))).collect();
        let all: BTreeMap<String, usize> =
            by_user.iter().flatten().map(|(name, count)| (name.clone(), *count)).collect();
        by_user.iter().all(|shares| shares.len() == 1) && all.len() == 3
    });
    write(&proxy, &urls, &json!({"scheduler": "leastLoad"}));
    until("an idle cluster serves from all", || shares(&proxy, 30, none).len() == 3);
    write(&proxy, &urls, &json!({"scheduler": "random"}));
    until("the heaviest gets most", || {
        let shares = shares(&proxy, 300, none);
        shares.len() == 3 && shares["2"] > shares["1"] && shares["1"] > shares["0"]
    });
}

#[test]
fn a_session_stays_at_its_backend_and_moves_on_when_that_is_gone() {
    let backends = [Backend::always(canned::ok("0")), Backend::always(canned::ok("1"))];
    let urls = backends.each_ref().map(Backend::url);
    let proxy = Setup::for_backends(urls.clone()).option(HOST, "sticky.cookie", "node").start();
    let first = proxy.client().get(HOST, "/");
    let set = first.head.get("set-cookie").expect("a cookie").to_owned();
    let (cookie, rest) = set.split_once("; ").expect("attributes");
    assert_eq!(rest, "Path=/; HttpOnly; SameSite=Lax");
    assert!(!cookie.contains("127"), "the address is no client's business: {cookie}");
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nCookie: x=1; {cookie}\r\n\r\n");
    for _ in 0..20 {
        let response = proxy.client().exchange(&request);
        assert_eq!((response.text(), response.head.get("set-cookie")), (first.text(), None));
    }
    // While its backend has another role, the session moves, and is told so: it would never come back.
    let own = usize::from(first.text() == "1");
    let mut roles = urls.clone();
    roles[own].push_str("#role=backup");
    write(&proxy, &roles, &json!({"sticky.cookie": "node"}));
    until("the other one serves and says so", || {
        let response = proxy.client().exchange(&request);
        response.text() == (1 - own).to_string() && response.head.get("set-cookie").is_some()
    });
    let left = usize::from(first.text() == "0");
    write(&proxy, &[urls[left].clone()], &json!({"sticky.cookie": "node"}));
    until("another one serves and says so", || {
        let response = proxy.client().exchange(&request);
        response.text() == left.to_string() && response.head.get("set-cookie").is_some_and(|set| !set.contains(cookie))
    });
}

#[test]
fn a_trusted_client_names_its_backend_and_gets_no_other() {
    let backends = [Backend::always(canned::ok("0")), Backend::always(canned::ok("1"))];
    let urls = backends.each_ref().map(Backend::url);
    let weighed = [urls[0].clone(), format!("{}#weight=0", urls[1])];
    let setup = |networks: Value| {
        Setup::for_backends(weighed.clone()).option(HOST, "backend.header", "X-Node").set("trustedNetworks", networks)
    };
    let named = |name: &str| format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Node: {name}\r\n\r\n");
    let second = named(&backends[1].address().to_string());
    let proxy = setup(json!(["127.0.0.0/8"])).start();
    let mut client = proxy.client();
    client.get(HOST, "/").expect_ok("0");
    client.exchange(&second).expect_ok("1");
    client.exchange(named(&weighed[1])).expect_ok("1");
    // A proxy in front passes on what any client sends.
    let foreign = second.replace("X-Node", "X-Forwarded-For: 192.0.2.1\r\nX-Node");
    client.exchange(&foreign).expect_ok("0");
    assert_eq!(client.exchange(named("10.0.0.1:80")).status(), 503);
    write(&proxy, &[weighed[0].clone(), format!("{}#disabled", urls[1])], &json!({"backend.header": "X-Node"}));
    until("the disabled one is refused", || client.exchange(&second).status() == 503);
    setup(json!([])).start().client().exchange(&second).expect_ok("0");
}

#[test]
fn a_wrong_value_is_named_and_what_held_before_goes_on() {
    let backends = [Backend::always(canned::ok("0")), Backend::always(canned::ok("1"))];
    let urls = backends.each_ref().map(Backend::url);
    let proxy = Setup::for_backends(urls.clone()).option(HOST, "scheduler", "chance").start();
    assert_eq!(shares(&proxy, 1, |_| String::new()), BTreeMap::from([("0".to_owned(), 1)]));
    write(&proxy, &urls, &json!({"scheduler": "fastest", "queueTimeout": "soon", "healthy": 1}));
    until("both are named", || proxy.stderr().contains("queueTimeout: found \"soon\", expected a time"));
    let expected =
        format!("options[{HOST:?}].scheduler: found \"fastest\", expected random, rr, chance, leastLoad or hash");
    assert!(proxy.stderr().contains(&expected), "{}", proxy.stderr());
    write(&proxy, &[format!("{}#capacity=much", urls[0])], &json!({}));
    let expected = format!("frontends[{HOST:?}][1]: capacity is \"much\", expected a whole number");
    until("the attribute is named", || proxy.stderr().contains(&expected));
    assert_eq!(shares(&proxy, 5, |_| String::new()), BTreeMap::from([("0".to_owned(), 5)]));
}
