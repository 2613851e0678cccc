//! Which watched server owns which slot, what has to be read again, and which servers to watch. Pure.
//!
//! Each watched master reports its view of the cluster. A slot belongs to the server that claims it with the highest
//! configuration epoch in any view, as the servers themselves decide it. It has an owner here only while that server is
//! watched.

use super::super::address::Address;
use super::super::connect::{Continuity, Identity};
use super::nodes::View;
use super::slots::{SLOTS, SlotSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Prefix of a line of a snapshot with the identity of a shard.
const SHARD: &str = "shard=";

/// A server that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::directory::redis) struct WatchedNode {
    pub(in crate::directory::redis) id: Box<str>,
    pub(in crate::directory::redis) address: Address,
    /// The number of the connection that watches it.
    pub(in crate::directory::redis) session: u64,
}

/// The watched servers and the owners of slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::directory::redis) struct SlotMap {
    pub(super) nodes: Vec<WatchedNode>,
    owners: Vec<Option<u16>>,
}

impl SlotMap {
    /// A map without a server.
    pub(in crate::directory::redis) fn empty() -> Self {
        Self { nodes: Vec::new(), owners: vec![None; SLOTS] }
    }

    /// The owners among these servers according to these views. Other owners count as absent.
    pub(super) fn new<'v>(nodes: Vec<WatchedNode>, views: impl Iterator<Item = &'v View>) -> Self {
        let places: BTreeMap<&str, u16> = nodes.iter().map(|node| &*node.id).zip(0..).collect();
        let mut claims: Vec<Option<(u64, &str)>> = vec![None; SLOTS];
        for node in views.flat_map(|view| &view.nodes).filter(|node| node.is_master) {
            for (first, last) in &node.slots {
                for claim in &mut claims[usize::from(*first)..=usize::from(*last)] {
                    if claim.is_none_or(|(epoch, _)| epoch < node.epoch) {
                        *claim = Some((node.epoch, &node.id));
                    }
                }
            }
        }
        let owners = claims.into_iter().map(|claim| places.get(claim?.1).copied()).collect();
        drop(places);
        Self { nodes, owners }
    }

    /// The watched owner of a slot.
    pub(in crate::directory::redis) fn owner(&self, slot: u16) -> Option<&WatchedNode> {
        let place = (*self.owners.get(usize::from(slot))?)?;
        self.nodes.get(usize::from(place))
    }

    /// The watched server at this address.
    pub(super) fn at(&self, address: &Address) -> Option<&WatchedNode> {
        self.nodes.iter().find(|node| node.address == *address)
    }

    /// Number of slots without an owner.
    pub(in crate::directory::redis) fn missing(&self) -> usize {
        self.owners.iter().filter(|owner| owner.is_none()).count()
    }
}

/// A report about a server. `watch` is the number of its watching thread.
#[derive(Debug)]
pub(in crate::directory::redis) enum ShardEvent {
    /// The servers, as seen by one of them that is not watched.
    Found(View),
    /// No server of the cluster replies.
    NotFound { problem: String },
    /// A master is watched.
    Linked { watch: u64, session: u64, address: Address, view: View, identity: Identity },
    /// A watched server has another view.
    Viewed { session: u64, view: View },
    /// A server is not watched any more, or could not be.
    Lost { watch: u64, address: Address, problem: String, is_replica: bool },
    /// A look-up could not reach a watched server.
    Unreadable { session: u64, problem: String },
    /// A look-up was redirected to a server that is not watched.
    Redirected(Address),
}

/// The consequences of an event.
#[derive(Debug, Default)]
pub(in crate::directory::redis) struct Change {
    /// Servers to watch, each with the number for its thread, and whether it has to wait before.
    pub(in crate::directory::redis) start: Vec<(Address, u64, bool)>,
    /// Threads to end.
    pub(in crate::directory::redis) stop: Vec<u64>,
    /// The servers have to be found: none is watched.
    pub(in crate::directory::redis) find: bool,
    /// The new map, if it is another one.
    pub(in crate::directory::redis) map: Option<Arc<SlotMap>>,
    /// A server that is not watched any more.
    pub(in crate::directory::redis) lost: Option<(Address, String)>,
    /// A server that could not be watched, and whether that has to be known.
    pub(in crate::directory::redis) failed: Option<(Address, String, bool)>,
    /// A server that is watched from now on.
    pub(in crate::directory::redis) linked: Option<Linked>,
    /// Slots with another owner than before.
    pub(in crate::directory::redis) moved: Option<SlotSet>,
}

/// A server that is watched from now on.
#[derive(Debug)]
pub(in crate::directory::redis) struct Linked {
    pub(in crate::directory::redis) address: Address,
    /// The relation of its data to the data known of its slots.
    pub(in crate::directory::redis) continuity: Continuity,
    /// Its slots.
    pub(in crate::directory::redis) slots: SlotSet,
}

#[derive(Debug)]
struct Link {
    session: u64,
    id: Arc<str>,
    view: View,
}

/// A watching thread.
#[derive(Debug)]
struct Watch {
    number: u64,
    link: Option<Link>,
    /// The first attempt has ended.
    has_tried: bool,
}

/// The cluster. See the module.
#[derive(Debug)]
pub(in crate::directory::redis) struct Topology {
    watches: BTreeMap<Address, Watch>,
    map: Arc<SlotMap>,
    /// The last watched owner of each slot.
    last_owners: Vec<Option<Arc<str>>>,
    /// The data of each master, by id.
    identities: BTreeMap<Arc<str>, Identity>,
    /// Data of a snapshot that no server has continued yet.
    restored: Vec<Identity>,
    /// Data of a server was other or older than known while nothing was read.
    unproven: Option<Continuity>,
    count: u64,
}

impl Topology {
    /// A cluster that is not known yet. The known routes came from the shards in these lines of a snapshot.
    pub(in crate::directory::redis) fn new(lines: &[String]) -> Self {
        let shards = lines.iter().filter_map(|line| line.strip_prefix(SHARD));
        let restored = shards.filter_map(|line| Identity::from_lines(line.split(',').map(str::to_owned).collect()));
        Self {
            watches: BTreeMap::new(),
            map: Arc::new(SlotMap::empty()),
            last_owners: vec![None; SLOTS],
            identities: BTreeMap::new(),
            restored: restored.collect(),
            unproven: None,
            count: 0,
        }
    }

    /// The identities of the shards, in the form of a snapshot.
    pub(in crate::directory::redis) fn to_lines(&self) -> Vec<String> {
        let owners: BTreeSet<&Arc<str>> = self.last_owners.iter().flatten().collect();
        let known = owners.into_iter().filter_map(|id| self.identities.get(id)).chain(&self.restored);
        known.map(|identity| format!("{SHARD}{}", identity.to_lines().join(","))).collect()
    }

    /// The current map.
    pub(in crate::directory::redis) fn map(&self) -> &Arc<SlotMap> {
        &self.map
    }

    /// Whether any server is watched.
    pub(in crate::directory::redis) fn is_linked(&self) -> bool {
        self.watches.values().any(|watch| watch.link.is_some())
    }

    /// Whether every known master is watched, or an attempt has failed: more will not be known in a moment.
    pub(in crate::directory::redis) fn is_settled(&self) -> bool {
        self.is_linked() && self.watches.values().all(|watch| watch.has_tried)
    }

    /// The addresses of the known masters.
    pub(in crate::directory::redis) fn addresses(&self) -> Vec<Address> {
        self.watches.keys().cloned().collect()
    }

    /// The relation of the data of all watched servers to the known data, for a start after nothing was read.
    pub(in crate::directory::redis) fn take_continuity(&mut self) -> Continuity {
        let lost = (!self.restored.is_empty()).then_some(Continuity::Other);
        self.restored.clear();
        worst(self.unproven.take().into_iter().chain(lost))
    }

    /// Records a position of the data of a server.
    pub(in crate::directory::redis) fn note_offset(&mut self, id: &str, offset: u64) {
        if let Some(identity) = self.identities.get_mut(id) {
            identity.offset = Some(offset);
        }
    }

    /// Handles an event. `is_read`: the known data is being read, so that a consequence for it takes effect at once.
    pub(in crate::directory::redis) fn hear(&mut self, event: ShardEvent, is_read: bool) -> Change {
        let mut change = Change::default();
        match event {
            ShardEvent::Found(view) => {
                let found: Vec<_> = view.masters().map(|node| node.address.clone()).collect();
                found.into_iter().for_each(|address| self.watch(address, false, &mut change));
                change.find = self.watches.is_empty();
            }
            ShardEvent::NotFound { problem: _ } => change.find = !self.is_linked(),
            ShardEvent::Redirected(address) => self.watch(address, false, &mut change),
            ShardEvent::Linked { watch, session, address, view, identity } => {
                let Some(own) = view.own() else { return change };
                let id: Arc<str> = Arc::from(&*own.id);
                let Some(known) = self.watches.get_mut(&address).filter(|known| known.number == watch) else {
                    return change;
                };
                known.has_tried = true;
                let continuity = self.continuity(&id, &view, &identity);
                self.identities.insert(Arc::clone(&id), identity);
                if !is_read {
                    self.unproven = Some(worst(self.unproven.into_iter().chain([continuity])));
                }
                let slots = slots_of(&view);
                change.linked = Some(Linked { address: address.clone(), continuity, slots });
                if let Some(known) = self.watches.get_mut(&address) {
                    known.link = Some(Link { session, id, view });
                }
            }
            ShardEvent::Viewed { session, view } => {
                let link = self.watches.values_mut().filter_map(|watch| watch.link.as_mut());
                if let Some(link) = link.into_iter().find(|link| link.session == session) {
                    link.view = view;
                }
            }
            ShardEvent::Lost { watch, address, problem, is_replica } => {
                let Some(known) = self.watches.get_mut(&address).filter(|known| known.number == watch) else {
                    return change;
                };
                let is_first = !std::mem::replace(&mut known.has_tried, true);
                match known.link.take() {
                    Some(_) => change.lost = Some((address, problem)),
                    None => change.failed = Some((address, problem, is_first && !is_replica)),
                }
                change.find = !self.is_linked();
            }
            ShardEvent::Unreadable { session, problem } => {
                let found = self
                    .watches
                    .iter()
                    .find(|(_, watch)| watch.link.as_ref().is_some_and(|link| link.session == session));
                if let Some((address, watch)) = found {
                    let address = address.clone();
                    change.stop.push(watch.number);
                    self.watches.remove(&address);
                    self.watch(address.clone(), true, &mut change);
                    change.lost = Some((address, problem));
                }
            }
        }
        self.choose_watches(&mut change);
        self.update_map(&mut change);
        change
    }

    fn watch(&mut self, address: Address, waits: bool, change: &mut Change) {
        if self.watches.contains_key(&address) {
            return;
        }
        self.count += 1;
        change.start.push((address.clone(), self.count, waits));
        self.watches.insert(address, Watch { number: self.count, link: None, has_tried: waits });
    }

    /// Watches the masters in all views, and no others.
    fn choose_watches(&mut self, change: &mut Change) {
        let links = self.watches.values().filter_map(|watch| watch.link.as_ref());
        let wanted: BTreeSet<Address> =
            links.flat_map(|link| link.view.masters()).map(|node| node.address.clone()).collect();
        if wanted.is_empty() {
            return;
        }
        let is_idle = |address: &Address, watch: &Watch| {
            let is_own = watch.link.is_some() || !watch.has_tried;
            !is_own && !wanted.contains(address)
        };
        let idle: Vec<_> =
            self.watches.iter().filter(|(address, watch)| is_idle(address, watch)).map(|(at, _)| at.clone()).collect();
        for address in idle {
            change.stop.extend(self.watches.remove(&address).map(|watch| watch.number));
        }
        // A server that announces another address than the one it was found by is watched there already.
        wanted.into_iter().for_each(|address| self.watch(address, false, change));
    }

    fn update_map(&mut self, change: &mut Change) {
        let links = || self.watches.iter().filter_map(|(address, watch)| Some((address, watch.link.as_ref()?)));
        let node = |(address, link): (&Address, &Link)| WatchedNode {
            id: (&*link.id).into(),
            address: address.clone(),
            session: link.session,
        };
        let map = SlotMap::new(links().map(node).collect(), links().map(|(_, link)| &link.view));
        if map == *self.map {
            return;
        }
        let mut moved = SlotSet::none();
        let ids: BTreeMap<&str, Arc<str>> = links().map(|(_, link)| (&*link.id, Arc::clone(&link.id))).collect();
        for slot in 0..SLOTS as u16 {
            let Some(owner) = map.owner(slot) else { continue };
            let last = &mut self.last_owners[usize::from(slot)];
            if last.as_deref() != Some(&*owner.id) {
                moved.insert(slot);
                *last = ids.get(&*owner.id).cloned();
            }
        }
        let owners: BTreeSet<&Arc<str>> = self.last_owners.iter().flatten().chain(ids.values()).collect();
        self.identities.retain(|id, _| owners.contains(id));
        self.map = Arc::new(map);
        change.map = Some(Arc::clone(&self.map));
        change.moved = Some(moved).filter(|moved| !moved.is_empty());
    }

    /// The relation of a server's data to the data known of itself and of the lost owners of its slots.
    fn continuity(&mut self, id: &Arc<str>, view: &View, identity: &Identity) -> Continuity {
        let mut relations = Vec::new();
        self.restored.retain(|restored| match identity.continues(restored) {
            Continuity::Other => true,
            relation => {
                relations.push(relation);
                false
            }
        });
        let linked: BTreeSet<&Arc<str>> =
            self.watches.values().filter_map(|watch| Some(&watch.link.as_ref()?.id)).collect();
        let slots = slots_of(view);
        let owners = self.last_owners.iter().zip(0..).filter(|(_, slot)| slots.contains(*slot));
        let mut before: BTreeSet<&Arc<str>> = owners.filter_map(|(owner, _)| owner.as_ref()).collect();
        before.retain(|owner| !linked.contains(owner));
        before.insert(id);
        let known = before.into_iter().filter_map(|before| Some(identity.continues(self.identities.get(before)?)));
        worst(relations.into_iter().chain(known))
    }
}

/// The slots that the asked server owns.
fn slots_of(view: &View) -> SlotSet {
    let mut slots = SlotSet::none();
    for (first, last) in view.own().into_iter().flat_map(|own| &own.slots) {
        (*first..=*last).for_each(|slot| slots.insert(slot));
    }
    slots
}

fn worst(all: impl Iterator<Item = Continuity>) -> Continuity {
    all.fold(Continuity::Same, |worst, next| match (worst, next) {
        (Continuity::Other, _) | (_, Continuity::Other) => Continuity::Other,
        (Continuity::Behind { by: one }, Continuity::Behind { by: other }) => Continuity::Behind { by: one.max(other) },
        (Continuity::Behind { by }, _) | (_, Continuity::Behind { by }) => Continuity::Behind { by },
        _ => Continuity::Same,
    })
}

#[cfg(test)]
#[path = "topology_tests.rs"]
mod tests;
