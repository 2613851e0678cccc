use super::*;
use crate::cluster::{BackendId, BackendUrl};
use crate::net::mailbox::{MailboxReceiver, mailbox};
use mio::{Events, Poll, Token, Waker};
use std::collections::{HashMap, HashSet};
use std::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(10);

/// A core that only reads its mail.
struct Core {
    poll: Poll,
    receiver: MailboxReceiver<RouteEvent>,
    clock: Clock,
}

impl Core {
    fn new(clock: Clock) -> (Self, Subscribers) {
        let poll = Poll::new().expect("a poll");
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
        let (sender, receiver) = mailbox(1024, waker);
        let subscribers = Subscribers::default();
        subscribers.join(sender);
        (Self { poll, receiver, clock }, subscribers)
    }

    /// Waits until the addresses of `backend` are reported.
    fn hear_of(&mut self, backend: &Backend) {
        let deadline = self.clock.now() + PATIENCE;
        let mut events = Events::with_capacity(4);
        loop {
            while let Some(event) = self.receiver.receive() {
                if matches!(event, RouteEvent::Addresses { backend: id } if id == backend.id()) {
                    return;
                }
            }
            let left = deadline.since(self.clock.now());
            assert!(!left.is_zero(), "nothing was told of {}", backend.endpoint());
            self.poll.poll(&mut events, Some(left)).expect("a poll");
        }
    }
}

/// The replies of the simulated resolver; tests change them.
#[derive(Default)]
struct Zone {
    resolver: Mutex<HashMap<&'static str, Vec<&'static str>>>,
}

impl Zone {
    fn set(&self, host: &'static str, addresses: &[&'static str]) {
        self.resolver.lock().expect("the zone").insert(host, addresses.to_vec());
    }

    fn reply(&self, host: &str, port: u16) -> io::Result<Found> {
        let resolver = self.resolver.lock().expect("the zone");
        let found = resolver.get(host).ok_or(io::ErrorKind::NotFound)?;
        let addresses = found.iter().map(|ip| (SocketAddr::new(ip.parse().expect("an address"), port), 1)).collect();
        Ok(Found { addresses, ttl: None })
    }
}

fn backend(id: u64, url: &str) -> Arc<Backend> {
    Arc::new(Backend::new(BackendId::new(id), BackendUrl::parse(url).expect("a good URL").endpoint().clone()))
}

fn known(addresses: &[&str]) -> Addresses {
    Addresses::Known(addresses.iter().map(|address| address.parse().expect("an address")).collect())
}

#[test]
fn names_are_looked_up_at_once_and_again_and_failures_keep_what_is_known() {
    let clock = Clock::new();
    let (mut core, subscribers) = Core::new(clock);
    let zone = Arc::new(Zone::default());
    let (asked, asks) = mpsc::channel();
    let resolve = {
        let zone = Arc::clone(&zone);
        move |host: &str, port| {
            let reply = zone.reply(host, port);
            let _ = asked.send(());
            reply
        }
    };
    zone.set("app.internal", &["10.0.0.1", "10.0.0.2"]);
    let resolver =
        DnsResolver::start(Box::new(resolve), Duration::from_millis(2), subscribers, clock).expect("threads");
    let app = backend(1, "http://app.internal:81");
    resolver.add(&app);
    core.hear_of(&app);
    assert_eq!(app.addresses(), known(&["10.0.0.1:81", "10.0.0.2:81"]));

    let some_lookups = || {
        while asks.try_recv().is_ok() {}
        for _ in 0..5 {
            asks.recv_timeout(PATIENCE).expect("a look-up");
        }
    };
    zone.set("app.internal", &["10.0.0.2", "10.0.0.1"]);
    some_lookups();
    assert_eq!(app.addresses(), known(&["10.0.0.1:81", "10.0.0.2:81"]), "another order is no news");
    zone.set("app.internal", &[]);
    some_lookups();
    assert_eq!(app.addresses(), known(&["10.0.0.1:81", "10.0.0.2:81"]), "a failure keeps what is known");
    assert!(core.receiver.receive().is_none());

    zone.set("app.internal", &["10.0.0.3"]);
    core.hear_of(&app);
    assert_eq!(app.addresses(), known(&["10.0.0.3:81"]));

    let late = backend(2, "http://late.internal");
    resolver.add(&late);
    core.hear_of(&late);
    assert_eq!(late.addresses(), Addresses::NotFound);
    zone.set("late.internal", &["10.0.0.4"]);
    core.hear_of(&late);
    assert_eq!(late.addresses(), known(&["10.0.0.4:80"]));

    let gone = Arc::downgrade(&late);
    drop(late);
    // A look-up that ends just now may still hold it.
    let deadline = clock.now() + PATIENCE;
    while gone.strong_count() > 0 {
        assert!(clock.now() < deadline, "the schedule holds a backend alive");
        some_lookups();
    }
}

#[test]
fn the_schedule_forgets_backends_that_are_gone() {
    let mut schedule = Schedule { purge_at: MIN_PURGE, ..Schedule::default() };
    let kept = backend(1, "http://app.internal");
    for number in 0..10 * MIN_PURGE as u64 {
        schedule.purge();
        let backend = if number % 100 == 0 { Arc::downgrade(&kept) } else { Weak::new() };
        schedule.due.insert((Moment::ZERO, number), Task { backend, retry: FIRST_RETRY });
        assert!(schedule.due.len() <= MIN_PURGE);
    }
}

#[test]
fn names_that_hang_hold_up_neither_new_ones_nor_the_end() {
    let clock = Clock::new();
    let (mut core, subscribers) = Core::new(clock);
    let (hold, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let (entered, entries) = mpsc::channel();
    let replied = Mutex::new(HashSet::new());
    // A name with "slow" resolves at the first time and hangs at every refresh.
    let resolve = move |host: &str, port| {
        let is_first = replied.lock().expect("a set").insert(host.to_owned());
        if host.starts_with("slow") && !is_first {
            let _ = entered.send(());
            let _ = held.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
        Ok(Found { addresses: vec![(SocketAddr::from(([10, 0, 0, 1], port)), 1)], ttl: None })
    };
    let resolver =
        DnsResolver::start(Box::new(resolve), Duration::from_millis(1), subscribers, clock).expect("threads");
    let slow: Vec<_> = (0..8).map(|number| backend(number, &format!("http://slow{number}.internal"))).collect();
    for backend in &slow {
        resolver.add(backend);
        core.hear_of(backend);
    }
    for _ in 1..THREADS {
        entries.recv_timeout(PATIENCE).expect("a refresh that hangs");
    }
    for number in 100..200 {
        let new = backend(number, &format!("http://new{number}.internal"));
        resolver.add(&new);
        core.hear_of(&new);
    }
    let before = clock.now();
    drop(resolver);
    assert!(clock.now().since(before) < PATIENCE);
    drop(hold);
}
