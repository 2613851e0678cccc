//! Keys of other spellings.

use super::*;

/// A process that starts knows a route of its snapshot whose key has another spelling: it serves until the keys are known.
#[test]
fn a_known_host_without_a_key_waits_for_the_scan() {
    let record = listing(&["http://10.0.0.1"]).record;
    let routes = SnapshotRoutes::from_iter([("a".into(), kept_route("a", &record))]);
    let mut scene = Scene::with(routes);
    scene.state.await_scan();
    scene.up(true);
    scene.reply_all(|_| Reading::Unknown);
    scene.ask("a");
    scene.ask("b");
    scene.reply_all(|_| Reading::Unknown);
    let told: BTreeSet<_> = scene.told().into_iter().collect();
    assert_eq!(told, ["a is 10.0.0.1", "b is unknown"].map(str::to_owned).into());
    scene.state.note_scan();
    scene.reply_all(|_| Reading::Unknown);
    assert_eq!(scene.told(), ["changed: a"]);
    scene.ask("a");
    scene.reply_all(|_| Reading::Unknown);
    assert_eq!(scene.told(), ["a is unknown"]);
}
