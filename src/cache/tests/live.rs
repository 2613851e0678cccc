//! Responses that are read while they arrive: collapsed forwarding, failure and purge, with seeds.

use super::*;
use crate::cache::body::Body;
use crate::cache::fill::{FillEnd, FillLead, FillSink, FillStart, FillWait, FillWaiter};
use crate::cache::live::{LiveEnd, LiveFill, LiveReader, Sleeper, WINDOW, Wake};
use crate::cache::purge::{PurgeMode, Selector, Ticket};
use crate::cache::storability::PendingObject;
use crate::cache::store::Store;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const TIMEOUT: Duration = Duration::from_secs(10);

/// The greatest stored object in these tests.
const LARGEST: u64 = 300_000;

#[derive(Debug, Default)]
struct Mail(Mutex<Vec<(u64, FillEnd)>>);

impl Mail {
    fn sleeper(self: &Arc<Self>, exchange: u64) -> Sleeper {
        Sleeper { sink: Arc::clone(self) as Arc<dyn Wake>, exchange }
    }

    fn take(&self) -> Vec<(u64, FillEnd)> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }
}

impl Wake for Mail {
    fn wake(&self, exchange: u64) {
        self.tell(exchange, FillEnd::More);
    }
}

impl FillSink for Mail {
    fn tell(&self, exchange: u64, end: FillEnd) {
        self.0.lock().expect("no panic").push((exchange, end));
    }
}

/// A response of this length, stated or not.
fn begin(etag: u64, len: usize, is_sized: bool) -> PendingObject {
    let lines = format!("Cache-Control: max-age=600\nETag: \"{etag}\"");
    let lines = parse(&lines);
    let body = if is_sized { BodyLength::Sized(len as u64) } else { BodyLength::Chunked };
    let response = CacheResponse { body, ..response(200, &lines, len) };
    let options = Options { max_object_bytes: LARGEST, ..options() };
    admit(&get("/", &[]), &response, &options).expect("cacheable")
}

fn bytes(body: &Body) -> Vec<u8> {
    body.slices(0..body.len()).flatten().copied().collect()
}

fn ticket() -> Ticket {
    Store::new(64 << 20).ticket()
}

#[test]
fn a_reader_gets_what_has_come_and_what_follows() {
    let mail = Arc::new(Mail::default());
    let mut pending = begin(1, 200_000, true);
    pending.push(&[1; 100_000], Moment::ZERO).expect("room");
    let fill = pending.publish(ticket(), Moment::ZERO);
    assert_eq!(fill.len, Some(200_000));
    let mut reader = LiveReader::new(fill, mail.sleeper(7)).expect("it lives");
    let first = reader.read(70_000);
    assert_eq!((bytes(&first.bytes), first.end), (vec![1; 70_000], None));
    assert_eq!(reader.read(70_000).bytes.len(), 30_000);
    assert!(reader.read(1).bytes.is_empty() && mail.take().is_empty());
    pending.push(&[2; 50_000], Moment::ZERO).expect("room");
    pending.push(&[3; 50_000], Moment::ZERO).expect("room");
    assert!(matches!(*mail.take(), [(7, FillEnd::More)]), "it is woken once");
    let object = pending.finish().expect("whole");
    let rest = reader.read(u64::MAX);
    assert_eq!((bytes(&rest.bytes), rest.end), ([[2; 50_000], [3; 50_000]].concat(), Some(LiveEnd::Whole)));
    assert_eq!(object.body.len(), 200_000);
}

#[test]
fn a_fill_that_dies_tells_its_readers_and_takes_no_more() {
    let mail = Arc::new(Mail::default());
    let mut pending = begin(1, 20, true);
    let fill = pending.publish(ticket(), Moment::ZERO);
    let mut reader = LiveReader::new(Arc::clone(&fill), mail.sleeper(1)).expect("it lives");
    pending.push(b"0123456789", Moment::ZERO).expect("room");
    assert_eq!(reader.read(99).end, None);
    assert!(reader.read(99).bytes.is_empty());
    drop(pending);
    assert!(matches!(*mail.take(), [(1, FillEnd::More)]));
    assert_eq!(reader.read(99).end, Some(LiveEnd::Cut));
    assert!(LiveReader::new(fill, mail.sleeper(2)).is_none());
}

/// A body that turns out to be too large reaches its readers, a window at a time.
#[test]
fn what_is_not_stored_reaches_its_readers() {
    let mail = Arc::new(Mail::default());
    let mut pending = begin(1, 0, false);
    let fill = pending.publish(ticket(), Moment::ZERO);
    let mut reader = LiveReader::new(Arc::clone(&fill), mail.sleeper(1)).expect("it lives");
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    let mut faults = 0;
    while sent.len() < 1_000_000 {
        let piece: Vec<u8> = (0..40_000).map(|number| (sent.len() / 40_000 + number) as u8).collect();
        faults += u32::from(pending.push(&piece, Moment::ZERO).is_err());
        sent.extend(piece);
        if pending.is_held(Some(&mail.sleeper(0))) {
            assert!((sent.len() - got.len()) as u64 > WINDOW);
            while pending.is_held(Some(&mail.sleeper(0))) {
                mail.take();
                got.extend(bytes(&reader.read(30_000).bytes));
            }
            assert!(mail.take().iter().all(|(to, _)| *to == 0), "the one who writes was woken");
        }
    }
    assert_eq!(faults, 1);
    assert!(LiveReader::new(fill, mail.sleeper(2)).is_none(), "its beginning is gone");
    assert!(pending.finish().is_err());
    loop {
        let read = reader.read(100_000);
        got.extend(bytes(&read.bytes));
        if read.end.is_some() {
            assert_eq!(read.end, Some(LiveEnd::Whole));
            break;
        }
    }
    assert!(got == sent);
}

/// The present action of a request in the simulation.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are a handful of them")]
enum Doing {
    Fills {
        lead: Option<FillLead>,
        pending: Option<PendingObject>,
        version: u64,
        at: usize,
        ticket: Ticket,
        is_held: bool,
    },
    Waits(FillWait),
    Reads {
        reader: LiveReader,
        version: u64,
        at: usize,
        sleeps: bool,
    },
}

struct World {
    random: fastrand::Rng,
    store: Arc<Store>,
    mail: Arc<Mail>,
    post: Vec<(u64, FillEnd)>,
    doing: BTreeMap<u64, (u64, Doing)>,
    /// The version of the backend's content.
    version: u64,
    last: u64,
    deaths: usize,
    /// Number of requests by their end: complete, cut, without a fill.
    ends: [usize; 3],
}

/// The length of a version's response, and one of its bytes.
fn len_of(version: u64) -> usize {
    [0, 1, 65_536, 100_000, 299_000, 500_000][version as usize % 6]
}

fn byte_of(version: u64, at: usize) -> u8 {
    (version as usize * 31 + at / 97) as u8
}

fn version_of(fill: &LiveFill) -> u64 {
    let tag = fill.head.etag.as_ref().expect("a tag").as_bytes();
    std::str::from_utf8(&tag[1..tag.len() - 1]).expect("text").parse().expect("a number")
}

impl World {
    fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let store = Arc::new(Store::new(64 << 20));
        let (mail, post, doing) = (Arc::default(), Vec::new(), BTreeMap::new());
        Self { random, store, mail, post, doing, version: 0, last: 0, deaths: 0, ends: [0; 3] }
    }

    fn arrive(&mut self) {
        self.last += 1;
        let found = self.store.get(b"k", &mut RequestValues::of(Fields(&[])));
        match found.object {
            Some(object) if object.is_fresh(zero()) => {
                assert_eq!(object.body.len(), len_of(self.version) as u64, "what was purged is served");
            }
            _ => self.join(self.last, self.version, 0),
        }
    }

    /// A request that was sent when the backend had version `since`.
    fn join(&mut self, request: u64, since: u64, joins: u32) {
        let waiter = FillWaiter { sink: Arc::clone(&self.mail) as Arc<dyn FillSink>, exchange: request };
        let ticket = self.store.ticket();
        match self.store.fills().join(&b"k"[..].into(), waiter, true, TIMEOUT, Moment::ZERO) {
            FillStart::Lead(lead) => self.lead(request, since, lead, ticket),
            FillStart::Wait(wait, _) => drop(self.doing.insert(request, (since, Doing::Waits(wait)))),
            FillStart::Stream(fill, _) => self.read(request, since, fill, joins),
            FillStart::Pass => self.ends[2] += 1,
        }
    }

    fn lead(&mut self, request: u64, since: u64, lead: FillLead, ticket: Ticket) {
        lead.begin(Moment::ZERO);
        let version = self.version;
        let doing = Doing::Fills { lead: Some(lead), pending: None, version, at: 0, ticket, is_held: false };
        self.doing.insert(request, (since, doing));
    }

    fn read(&mut self, request: u64, since: u64, fill: Arc<LiveFill>, joins: u32) {
        let version = version_of(&fill);
        if self.store.is_outdated(b"k", &fill.head, fill.ticket) {
            self.ends[2] += 1;
            return;
        }
        assert!(version >= since, "request {request} of version {since} reads version {version}");
        match LiveReader::new(fill, self.mail.sleeper(request)) {
            Some(reader) => {
                let doing = Doing::Reads { reader, version, at: 0, sleeps: false };
                self.doing.insert(request, (since, doing));
            }
            None if joins < 3 => self.join(request, since, joins + 1),
            None => self.ends[2] += 1,
        }
    }

    /// Delivers mail to a request; mail of different fills may overtake each other.
    fn deliver(&mut self) {
        self.post.extend(self.mail.take());
        if self.post.is_empty() {
            return;
        }
        let (request, end) = self.post.remove(0);
        let Some((since, doing)) = self.doing.remove(&request) else { return };
        match (doing, end) {
            (Doing::Waits(_), FillEnd::Lead(lead)) => self.lead(request, since, lead, self.store.ticket()),
            (Doing::Waits(_), FillEnd::Streams(fill)) => self.read(request, since, fill, 0),
            (Doing::Waits(_), FillEnd::Stored | FillEnd::Released) => self.ends[2] += 1,
            (Doing::Reads { reader, version, at, .. }, FillEnd::More) => {
                self.doing.insert(request, (since, Doing::Reads { reader, version, at, sleeps: false }));
            }
            (Doing::Fills { lead, pending, version, at, ticket, .. }, FillEnd::More) => {
                let doing = Doing::Fills { lead, pending, version, at, ticket, is_held: false };
                self.doing.insert(request, (since, doing));
            }
            (doing, _) => drop(self.doing.insert(request, (since, doing))),
        }
    }

    fn change(&mut self) {
        self.version += 1;
        match self.random.u8(0..4) {
            0 => drop(self.store.invalidate(b"k")),
            1 => drop(self.store.make_stale(b"k")),
            2 => drop(self.store.purge(&Selector::All, PurgeMode::Hard)),
            _ => drop(self.store.purge(&Selector::Host(b"h"[..].into()), PurgeMode::Soft)),
        }
    }

    fn act(&mut self, request: u64, may_die: bool) {
        let Some((since, doing)) = self.doing.remove(&request) else { return };
        match doing {
            Doing::Waits(wait) if may_die && self.random.u8(0..8) == 0 => drop(wait),
            Doing::Reads { reader, .. } if may_die && self.random.u8(0..16) == 0 => drop(reader),
            Doing::Fills { lead, pending, .. } if may_die && self.random.u8(0..12) == 0 => {
                self.deaths += 1;
                if self.random.bool() {
                    drop(lead);
                    drop(pending);
                } else {
                    drop(pending);
                    drop(lead);
                }
            }
            Doing::Reads { reader, version, at, sleeps: false } => self.read_on(request, since, reader, version, at),
            Doing::Fills { lead, pending, version, at, ticket, is_held: false } => {
                self.write_on(request, since, (lead, pending), version, (at, ticket));
            }
            doing => drop(self.doing.insert(request, (since, doing))),
        }
    }

    fn read_on(&mut self, request: u64, since: u64, mut reader: LiveReader, version: u64, mut at: usize) {
        let read = reader.read(self.random.u64(1..200_000));
        for byte in bytes(&read.bytes) {
            assert_eq!(byte, byte_of(version, at), "request {request} at {at}");
            at += 1;
        }
        match read.end {
            None => {
                let doing = Doing::Reads { reader, version, at, sleeps: read.bytes.is_empty() };
                self.doing.insert(request, (since, doing));
            }
            Some(LiveEnd::Whole) => {
                assert_eq!(at, len_of(version), "request {request}");
                self.ends[0] += 1;
            }
            Some(LiveEnd::Cut) => {
                assert!(self.deaths > 0, "request {request} is cut, and no filler has died");
                self.ends[1] += 1;
            }
        }
    }

    fn write_on(
        &mut self,
        request: u64,
        since: u64,
        (mut lead, pending): (Option<FillLead>, Option<PendingObject>),
        version: u64,
        (mut at, ticket): (usize, Ticket),
    ) {
        let len = len_of(version);
        let mut pending = pending.unwrap_or_else(|| begin(version, len, len <= 299_000 && version.is_multiple_of(2)));
        if let Some(lead) = lead.as_mut().filter(|_| self.random.bool()) {
            lead.publish(&pending.publish(ticket, Moment::ZERO));
        }
        let piece: Vec<u8> = (at..len.min(at + self.random.usize(0..80_000))).map(|at| byte_of(version, at)).collect();
        let mut is_over = false;
        if pending.push(&piece, Moment::ZERO).is_err() {
            lead.take().into_iter().for_each(|lead| lead.uncacheable(Moment::ZERO));
            is_over = !pending.has_readers();
        }
        at += piece.len();
        if is_over {
            self.ends[2] += 1;
        } else if at == len {
            let stored = pending.finish().map(|object| self.store.insert(&b"k"[..], object, ticket, &options()));
            match (lead, stored) {
                (Some(lead), Ok(Ok(_))) => lead.stored(),
                (Some(lead), _) => lead.release(),
                (None, stored) => assert!(!matches!(stored, Ok(Ok(_))), "too large, and stored"),
            }
            self.ends[0] += 1;
        } else {
            let is_held = pending.is_held(Some(&self.mail.sleeper(request)));
            let doing = Doing::Fills { lead, pending: Some(pending), version, at, ticket, is_held };
            self.doing.insert(request, (since, doing));
        }
    }
}

/// Clients come and leave, fills end in every manner, and the object changes. Each read gives a single version from
/// beginning to end, and none that was purged before the request came. Nothing is cut unless its fill has failed, and
/// every request ends.
#[test]
fn every_reader_gets_one_version() {
    let mut ends = [0; 3];
    for seed in 0..150 {
        let mut world = World::new(seed);
        for _ in 0..300 {
            let someone: Vec<u64> = world.doing.keys().copied().collect();
            match world.random.u8(0..20) {
                0..=5 => world.arrive(),
                6 => world.change(),
                7..=12 => world.deliver(),
                _ if someone.is_empty() => {}
                _ => {
                    let request = someone[world.random.usize(0..someone.len())];
                    world.act(request, true);
                }
            }
        }
        for _ in 0..2000 {
            world.deliver();
            let someone: Vec<u64> = world.doing.keys().copied().collect();
            someone.into_iter().for_each(|request| world.act(request, false));
            if world.doing.is_empty() {
                break;
            }
        }
        assert!(world.doing.is_empty(), "seed {seed}: {:?} never end", world.doing.keys());
        assert_eq!(world.store.fills().under_way(), 0, "seed {seed}");
        ends.iter_mut().zip(world.ends).for_each(|(sum, end)| *sum += end);
    }
    assert!(ends.iter().all(|count| *count > 100), "{ends:?}");
}
