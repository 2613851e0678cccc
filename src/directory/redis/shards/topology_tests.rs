use super::*;

/// Id, port, epoch and slots of a master.
type Master = (&'static str, u16, u64, Vec<(u16, u16)>);

/// A cluster of masters, as any of them sees it.
#[derive(Clone)]
struct Model(Vec<Master>);

const LAST: u16 = SLOTS as u16 - 1;

impl Model {
    fn three() -> Self {
        Self(vec![("a", 1, 1, vec![(0, 99)]), ("b", 2, 2, vec![(100, 199)]), ("c", 3, 3, vec![(200, LAST)])])
    }

    fn view(&self, own: &str) -> View {
        let line = |(id, port, epoch, slots): &Master| {
            let slots: Vec<_> = slots.iter().map(|(first, last)| format!("{first}-{last}")).collect();
            let own = if *id == own { "myself," } else { "" };
            format!("{id} 10.0.0.1:{port}@1 {own}master - 0 0 {epoch} connected {}\n", slots.join(" "))
        };
        View::parse(&self.0.iter().map(line).collect::<String>(), &at(1), false)
    }
}

fn at(port: u16) -> Address {
    Address { host: "10.0.0.1".into(), port }
}

fn history(name: &str, before: &str, offset: u64) -> Identity {
    Identity::of(&format!(
        "role:master\r\nmaster_replid:{name}\r\nmaster_replid2:{before}\r\nmaster_repl_offset:{offset}\r\n\
         second_repl_offset:{}\r\n",
        if before == "0" { "-1".to_owned() } else { offset.to_string() }
    ))
}

struct Scene {
    topology: Topology,
    model: Model,
    /// The numbers of the watching threads.
    watches: BTreeMap<Address, u64>,
    sessions: u64,
}

impl Scene {
    /// All masters are watched.
    fn new() -> Self {
        let model = Model::three();
        let mut scene = Self { topology: Topology::new(&[]), model, watches: BTreeMap::new(), sessions: 0 };
        let change = scene.hear(ShardEvent::Found(scene.model.view("a")));
        assert_eq!((change.start.len(), change.find), (3, false));
        for (port, id) in [(1, "a"), (2, "b"), (3, "c")] {
            assert!(!scene.topology.is_settled());
            let change = scene.link(port, id, history(id, "0", 10));
            assert_eq!(change.linked.expect("linked").continuity, Continuity::Same);
        }
        assert!(scene.topology.is_settled());
        assert_eq!(scene.topology.map().missing(), 0);
        scene
    }

    fn hear(&mut self, event: ShardEvent) -> Change {
        let change = self.topology.hear(event, true);
        self.watches.extend(change.start.iter().map(|(address, number, _)| (address.clone(), *number)));
        change
    }

    fn link(&mut self, port: u16, id: &str, identity: Identity) -> Change {
        self.sessions += 1;
        let (watch, session) = (self.watches[&at(port)], self.sessions);
        self.hear(ShardEvent::Linked { watch, session, address: at(port), view: self.model.view(id), identity })
    }

    fn lose(&mut self, port: u16) -> Change {
        let watch = self.watches[&at(port)];
        self.hear(ShardEvent::Lost { watch, address: at(port), problem: "gone".into(), is_replica: false })
    }

    /// A watched server has the present view.
    fn look(&mut self, id: &str) -> Change {
        let session = self.topology.map().nodes.iter().find(|node| *node.id == *id).expect("watched").session;
        self.hear(ShardEvent::Viewed { session, view: self.model.view(id) })
    }

    fn owner(&self, slot: u16) -> Option<&str> {
        self.topology.map().owner(slot).map(|owner| &*owner.id)
    }
}

#[test]
fn slots_of_a_lost_master_have_no_owner_until_its_heir_is_watched() {
    for (identity, expected) in [
        (history("heir", "b", 11), Continuity::Same),
        (history("heir", "b", 5), Continuity::Behind { by: 6 }),
        (history("other", "0", 99), Continuity::Other),
    ] {
        let mut scene = Scene::new();
        scene.topology.note_offset("b", 10);
        let change = scene.lose(2);
        assert_eq!(change.lost, Some((at(2), "gone".to_owned())));
        assert!(!change.find && change.map.is_some() && change.moved.is_none());
        assert_eq!((scene.owner(99), scene.owner(100), scene.owner(200)), (Some("a"), None, Some("c")));
        // One of the others learns of the heir. It is not asked before it is watched.
        scene.model.0[1] = ("heir", 4, 4, vec![(100, 199)]);
        let change = scene.look("a");
        assert_eq!(change.start.iter().map(|(address, ..)| address.port).collect::<Vec<_>>(), [4]);
        assert_eq!((scene.owner(100), scene.topology.map().missing()), (None, 100));
        let linked = scene.link(4, "heir", identity).linked.expect("linked");
        assert_eq!((linked.continuity, linked.slots.len()), (expected, 100));
        assert_eq!(scene.owner(100), Some("heir"));
    }
}

#[test]
fn a_master_that_is_back_without_its_data_is_noticed() {
    let mut scene = Scene::new();
    scene.lose(3);
    let linked = scene.link(3, "c", history("c", "0", 12)).linked.expect("linked");
    assert_eq!(linked.continuity, Continuity::Same);
    scene.lose(3);
    let linked = scene.link(3, "c", history("new", "0", 1)).linked.expect("linked");
    assert_eq!(linked.continuity, Continuity::Other);
}

#[test]
fn moved_slots_are_told_and_an_older_view_does_not_move_them_back() {
    let mut scene = Scene::new();
    let before = scene.model.view("a");
    scene.model.0[0].3 = vec![(0, 49)];
    scene.model.0[2].2 = 9;
    scene.model.0[2].3 = vec![(50, 99), (200, LAST)];
    let moved = scene.look("c").moved.expect("moved");
    assert_eq!(moved.len(), 50);
    assert!((50..100).all(|slot| moved.contains(slot)));
    assert_eq!((scene.owner(49), scene.owner(50)), (Some("a"), Some("c")));
    // The others hear of it later.
    let session = scene.topology.map().nodes[0].session;
    let change = scene.hear(ShardEvent::Viewed { session, view: before });
    assert!(change.map.is_none() && change.moved.is_none());
    assert!(scene.look("a").moved.is_none());
}

#[test]
fn a_master_without_slots_is_watched_and_a_replica_is_not() {
    let mut scene = Scene::new();
    scene.model.0.push(("d", 4, 0, Vec::new()));
    assert_eq!(scene.look("b").start.len(), 1);
    assert!(!scene.topology.is_settled());
    scene.link(4, "d", history("d", "0", 1));
    assert!(scene.topology.is_settled());
    // It becomes a replica: its thread tells so, and no view has it as a master.
    scene.model.0.pop();
    ["a", "b", "c"].into_iter().for_each(|id| drop(scene.look(id)));
    let watch = scene.watches[&at(4)];
    assert_eq!(scene.lose(4).stop, [watch]);
    assert_eq!(scene.topology.addresses(), [at(1), at(2), at(3)]);
}

#[test]
fn a_server_that_cannot_be_read_is_watched_anew_and_reports_of_its_earlier_thread_are_ignored() {
    let mut scene = Scene::new();
    let earlier = scene.watches[&at(1)];
    let change = scene.hear(ShardEvent::Unreadable { session: 1, problem: "silence".into() });
    assert_eq!((change.stop, change.start.len()), (vec![earlier], 1));
    assert!(change.start[0].2, "it waits");
    assert_eq!(scene.owner(0), None);
    let late = ShardEvent::Lost { watch: earlier, address: at(1), problem: "late".into(), is_replica: false };
    assert!(scene.hear(late).failed.is_none());
    let again = scene.hear(ShardEvent::Unreadable { session: 1, problem: "silence".into() });
    assert!(again.start.is_empty() && again.lost.is_none());
    scene.link(1, "a", history("a", "0", 10));
    assert_eq!(scene.owner(0), Some("a"));
}

#[test]
fn with_no_server_left_the_servers_are_found_again() {
    let mut scene = Scene::new();
    assert!(!scene.lose(1).find && !scene.lose(2).find);
    assert!(scene.lose(3).find);
    assert!(!scene.topology.is_linked());
    assert_eq!(scene.topology.addresses().len(), 3);
    assert!(scene.hear(ShardEvent::NotFound { problem: "refused".into() }).find);
    scene.link(2, "b", history("b", "0", 10));
    assert!(!scene.hear(ShardEvent::NotFound { problem: "refused".into() }).find);
}

#[test]
fn a_snapshot_knows_the_shards_that_it_came_from() {
    let scene = Scene::new();
    let lines = scene.topology.to_lines();
    assert_eq!(lines, ["shard=a,offset=10", "shard=b,offset=10", "shard=c,offset=10"]);
    for (heir, expected) in [
        (history("x", "b", 20), Continuity::Same),
        (history("b", "0", 7), Continuity::Behind { by: 3 }),
        (history("y", "0", 20), Continuity::Other),
    ] {
        let mut topology = Topology::new(&lines);
        let view = Model::three().view("a");
        let change = topology.hear(ShardEvent::Found(view), false);
        let identities = [history("a", "0", 10), heir, history("c", "0", 11)];
        for (((address, watch, _), identity), id) in change.start.into_iter().zip(identities).zip(["a", "b", "c"]) {
            let (session, view) = (watch, Model::three().view(id));
            topology.hear(ShardEvent::Linked { watch, session, address, view, identity }, false);
        }
        assert_eq!(topology.take_continuity(), expected);
        assert_eq!(topology.take_continuity(), Continuity::Same, "it is told once");
    }
}
