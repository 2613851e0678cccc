//! Backends that are killed and restarted one at a time, under load: no request may fail.

use crate::support::backend::Backend;
use crate::support::proxy::Setup;
use crate::support::{HOST, canned, until};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

const CLIENTS: usize = 4;
const ROUNDS: usize = 6;

/// How many requests a backend must have had before it counts as back in service.
const IN_SERVICE: usize = 50;

/// Tells the clients that it is over, however the test ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn no_request_fails_while_backends_come_and_go() {
    let mut backends = [Backend::always(canned::ok("ok")), Backend::always(canned::ok("ok"))];
    let urls: Vec<String> = backends.iter().map(Backend::url).collect();
    let proxy = Setup::for_backends(urls).set("deadBackendTTL", 0.1).start();
    let (over, responses) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _over = Over(&over);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (proxy, over, responses) = (&proxy, &over, &responses);
                scope.spawn(move || {
                    let mut client = proxy.client();
                    for turn in 0.. {
                        if over.load(Ordering::SeqCst) {
                            break;
                        }
                        client.send(canned::get(HOST, &format!("/{number}/{turn}")));
                        let response = client.try_response_to("GET");
                        let response = response.unwrap_or_else(|ended| panic!("request /{number}/{turn}: {ended}"));
                        assert_eq!(response.status(), 200, "request /{number}/{turn}: {}", response.head);
                        responses.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let one_failed = || clients.iter().any(thread::ScopedJoinHandle::is_finished);
        for round in 0..ROUNDS {
            let backend = &mut backends[round % 2];
            let heads = backend.heads();
            until("the backend is in service", || backend.heads() >= heads + IN_SERVICE || one_failed());
            backend.kill();
            let before = responses.load(Ordering::SeqCst);
            let served = || responses.load(Ordering::SeqCst) >= before + IN_SERVICE;
            until("the other one serves", || served() || one_failed());
            backend.start();
            let heads = backend.heads();
            until("the backend is back", || backend.heads() >= heads + IN_SERVICE || one_failed());
        }
    });
}
