//! `retryOn`: the failures of a backend after which a request goes to another one.

use crate::support::backend::Backend;
use crate::support::proxy::{Proxy, Setup};
use crate::support::{HOST, canned, unused_address};

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy";

/// A node whose requests go to `first` while that may serve, and then to `second`.
fn start(first: &str, second: &Backend, retry_on: &str) -> Proxy {
    let setup = Setup::for_backends([first.to_owned(), second.url()]).option(HOST, "scheduler", "chance");
    setup.option(HOST, "retryOn", retry_on).start()
}

#[test]
fn a_response_that_is_named_sends_the_request_elsewhere() {
    let overloaded = canned::sized("529 Site Is Overloaded", "over");
    let unavailable = canned::sized("503 Service Unavailable", "down");
    let bad_gateway = canned::sized("502 Bad Gateway", "bad");
    let (get, post) = (canned::get(HOST, "/"), canned::post(HOST, "/", "data"));
    let default = "connect,close,timeout";
    let gateway_timeout = canned::sized("504 Gateway Timeout", "late");
    let table: [(&[u8], &str, &str, u16, &str); 12] = [
        (BUSY.as_bytes(), default, &get, 503, "busy"),
        (BUSY.as_bytes(), "busy", &get, 200, "other"),
        // It has done nothing with it, so twice is not once too often.
        (BUSY.as_bytes(), "busy", &post, 200, "other"),
        (BUSY.as_bytes(), "503", &get, 503, "busy"),
        (&overloaded, "busy", &post, 200, "other"),
        (&unavailable, "busy", &get, 503, "down"),
        (&unavailable, "503", &get, 200, "other"),
        (&unavailable, "503", &post, 503, "down"),
        (&bad_gateway, "504, 502", &get, 200, "other"),
        (&bad_gateway, "503,504", &get, 502, "bad"),
        (&gateway_timeout, "504", &get, 200, "other"),
        (&gateway_timeout, "502", &get, 504, "late"),
    ];
    for (response, retry_on, request, status, body) in table {
        let (first, second) = (Backend::always(response), Backend::always(canned::ok("other")));
        let proxy = start(&first.url(), &second, retry_on);
        let found = proxy.client().exchange(request);
        let name = format!("{retry_on}: {}", String::from_utf8_lossy(response));
        assert_eq!((found.status(), found.text()), (status, body.to_owned()), "{name}");
        assert_eq!((first.heads(), second.heads()), (1, usize::from(status == 200)), "{name}");
        if second.heads() == 1 {
            let sent = second.only_request();
            assert_eq!(sent.body.is_empty(), request == get, "{name}: the body goes along");
        }
    }
}

#[test]
fn a_busy_backend_is_not_marked_and_the_last_response_is_passed_on() {
    let (first, second) = (Backend::always(BUSY), Backend::always(BUSY));
    let proxy = start(&first.url(), &second, "busy");
    let mut client = proxy.client();
    for round in 1..=3 {
        let found = client.get(HOST, "/");
        assert_eq!((found.status(), found.text(), found.head.get("retry-after")), (503, "busy".to_owned(), Some("7")));
        assert_eq!((first.heads(), second.heads()), (round, round));
    }
    assert!(!proxy.stderr().contains("marked dead"), "{}", proxy.stderr());
}

#[test]
fn a_backend_without_room_is_not_waited_for() {
    let gate = std::sync::Arc::new(crate::support::Gate::default());
    let (first, inner) = (Backend::always(BUSY), std::sync::Arc::clone(&gate));
    let second = Backend::serve(move |request, conn| {
        inner.pass();
        conn.send(canned::ok(request.head.target()));
    });
    let urls = [first.url(), format!("{}#capacity=1", second.url())];
    let setup = Setup::for_backends(urls).option(HOST, "scheduler", "chance");
    let proxy = setup.option(HOST, "retryOn", "busy").start();
    let mut holder = proxy.client();
    holder.send(canned::get(HOST, "/held"));
    second.until_heads(1);
    let found = proxy.client().get(HOST, "/");
    assert_eq!((found.status(), found.text()), (503, "busy".to_owned()));
    gate.open();
    holder.response_to("GET").expect_ok("/held");
}

#[test]
fn failures_that_are_not_named_end_the_request() {
    let other = Backend::always(canned::ok("other"));
    let nowhere = format!("http://{}", unused_address());
    assert_eq!(start(&nowhere, &other, "close,timeout").client().get(HOST, "/").status(), 502);
    start(&nowhere, &other, "connect").client().get(HOST, "/").expect_ok("other");
    let closing = Backend::raw(|conn| drop(conn.head()));
    assert_eq!(start(&closing.url(), &other, "none").client().get(HOST, "/").status(), 502);
    start(&closing.url(), &other, "close").client().get(HOST, "/").expect_ok("other");
    let silent = Backend::serve(|_, _| {});
    let impatient = |retry_on: &str| {
        let setup = Setup::for_backends([silent.url(), other.url()]).option(HOST, "scheduler", "chance");
        setup.option(HOST, "retryOn", retry_on).option(HOST, "responseTimeout", "150ms").start()
    };
    assert_eq!(impatient("connect,close").client().get(HOST, "/").status(), 504);
    impatient("timeout").client().get(HOST, "/").expect_ok("other");
}
