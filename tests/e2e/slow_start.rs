//! `slowStart`: the share of a new backend and its usable capacity rise together, on all cores alike.
//!
//! The bounds hold on a machine of any speed: they are those of the latest moment at which a request can have been assigned.

use crate::clusters::{Holding, sends, write};
use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until};
use serde_json::json;
use sluice::base::clock::Clock;
use std::time::Duration;

const SLOW_START: Duration = Duration::from_millis(1500);

#[test]
fn the_usable_capacity_of_a_new_backend_rises_to_the_whole() {
    const CAPACITY: usize = 16;
    let (steady, new) = (Backend::always(canned::ok("steady")), Holding::new());
    let proxy = Setup::for_backends([steady.url()]).workers(2).start();
    proxy.client().get(HOST, "/").expect_ok("steady");
    let clock = Clock::new();
    let began = clock.now();
    let urls = [new.with(&format!("capacity={CAPACITY}")), steady.url()];
    write(&proxy, &urls, &json!({"scheduler": "chance", "slowStart": "1500ms"}));
    let (mut held, mut refused) = (Vec::new(), 0);
    until("it has all its requests", || {
        let before = (steady.heads(), new.backend.heads());
        let client = sends(&proxy, "/held");
        until("a backend has the request", || (steady.heads(), new.backend.heads()) != before);
        if steady.heads() > before.0 {
            refused += 1;
            return false;
        }
        held.push(client);
        let elapsed = clock.now().since(began).as_secs_f64() / SLOW_START.as_secs_f64();
        let usable = (CAPACITY as f64 * elapsed).ceil().max(1.0);
        assert!(held.len() as f64 <= usable, "{} requests after {elapsed:.3} of its slow start", held.len());
        held.len() == CAPACITY
    });
    assert!(refused > 0);
    let before = steady.heads();
    sends(&proxy, "/more").response_to("GET").expect_ok("steady");
    assert_eq!((steady.heads(), new.backend.heads()), (before + 1, CAPACITY), "never more than its capacity");
    new.turnstile.let_through(CAPACITY);
    held.iter_mut().for_each(|client| client.response_to("GET").expect_ok("/held"));
}

#[test]
fn the_share_of_a_new_backend_rises_to_the_whole() {
    let backends = [Backend::always(canned::ok("steady")), Backend::always(canned::ok("new"))];
    let urls = backends.each_ref().map(Backend::url);
    let proxy = Setup::for_backends([urls[0].clone()]).workers(2).start();
    proxy.client().get(HOST, "/").expect_ok("steady");
    let clock = Clock::new();
    let began = clock.now();
    // Its own value goes before that of the frontend.
    let list = [urls[0].clone(), format!("{}#slowStart=1500ms", urls[1])];
    write(&proxy, &list, &json!({"scheduler": "rr", "slowStart": "1h"}));
    let mut client = proxy.client();
    let (mut all, mut of_new) = (0, 0);
    loop {
        let is_new = client.get(HOST, "/").text() == "new";
        if clock.now().since(began) > SLOW_START / 4 {
            break;
        }
        (all, of_new) = (all + 1, of_new + usize::from(is_new));
    }
    // A quarter of its weight beside a whole one is a fifth of the requests.
    assert!(of_new <= all / 5 + 3, "{of_new} of {all} requests in the first quarter");
    until("it has half of the requests", || {
        let of_new = (0..20).filter(|_| client.get(HOST, "/").text() == "new").count();
        of_new == 10
    });
    assert!(clock.now().since(began) > SLOW_START / 2, "too early");
}
