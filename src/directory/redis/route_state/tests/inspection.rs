//! Access of the directory's simulation to the route state.

use super::*;

impl RouteState {
    /// Checks the invariants.
    pub(in crate::directory::redis) fn check(&self) {
        self.catalog.check();
    }

    /// Whether the hold's time has begun.
    pub(in crate::directory::redis) fn has_seen_route(&self) -> bool {
        self.guard.ends_at().is_some()
    }

    pub(in crate::directory::redis) fn pending_hosts(&self) -> usize {
        self.pending.len()
    }
}

/// The report of a write arrives after the reply that shows it: another core still holds that the host is unknown.
#[test]
fn a_report_that_a_look_up_has_overtaken_reaches_all_cores() {
    let mut scene = Scene::new();
    scene.up(true);
    scene.ask("a");
    scene.reply_all(|_| Reading::Unknown);
    scene.state.ask(SubscriberId(1), "a".into(), None, scene.now);
    scene.reply_all(|_| found("a", &["http://one"], &[]));
    assert_eq!(scene.told(), ["a is unknown", "a is one"]);
    scene.touch("a");
    assert_eq!(scene.told(), ["changed: a"]);
    scene.reply_all(|_| found("a", &["http://one"], &[]));
    // From now on all cores hold the same.
    scene.touch("a");
    scene.reply_all(|_| found("a", &["http://one"], &[]));
    assert!(scene.told().is_empty());
    scene.touch("a");
    scene.reply_all(|_| Reading::Unknown);
    assert_eq!(scene.told(), ["changed: a"]);
}

/// Two orders to connect may cross with the end of the connection before: the second one finds look-ups in flight.
#[test]
fn a_second_connection_leaves_no_look_up_of_the_first_one_open() {
    let mut scene = Scene::new();
    scene.up(true);
    scene.ask("a");
    let (ticket, hosts) = scene.batch();
    assert_eq!(hosts, ["a"]);
    scene.up(true);
    let (second, hosts) = scene.batch();
    assert_eq!(hosts, ["a"], "it is read again");
    scene.reply(ticket, "a", Reading::Unknown);
    assert!(scene.told().is_empty());
    scene.reply(second, "a", found("a", &["http://one"], &[]));
    assert_eq!(scene.told(), ["a is one"]);
}
