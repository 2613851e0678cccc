//! The transfer of the object cache to the successor, over a stream that the successor inherits and reads while it
//! serves. A successor of an older version ignores it, and a predecessor of an older version has none.
//!
//! The objects come first, within [`PATIENCE`]. Purges and invalidations by requests that the predecessor still
//! finishes come between and behind them. The successor keeps objects that it has stored itself, and drops received
//! objects that were purged in it. If the transfer ends early, a purge may be missing: the successor drops all objects.

use crate::base::clock::Clock;
use crate::cache::body::{BodyBuilder, BodyFault};
use crate::cache::portable::{self, Change, MAGIC, Message, PREFIX, PortableObject};
use crate::cache::purge::{PurgeMode, Selector, Ticket};
use crate::cache::store::Store;
use crate::net::fd_passing::{stream_of_parent, stream_to_child};
use std::env;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The environment variable with the descriptor number of the stream.
const STREAM: &str = "SLUICE_OBJECTS";

/// The limit of the transfer of all objects, and of a successor that does not read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes written or read at once.
const ROOM: usize = 256 * 1024;

/// Makes the stream, and passes its descriptor number to a successor. The other end has to be closed once the successor
/// has started.
pub(super) fn open(store: Option<&Arc<Store>>, command: &mut Command) -> Option<(ObjectSender, UnixStream)> {
    command.env_remove(STREAM);
    let store = Arc::clone(store?);
    let opened = stream_to_child().and_then(|(near, far)| {
        near.set_write_timeout(Some(PATIENCE))?;
        Ok((near, far))
    });
    match opened {
        Ok((stream, far)) => {
            command.env(STREAM, far.as_raw_fd().to_string());
            // No change is missed, from before the successor serves.
            let changes = store.changes();
            Some((ObjectSender { store, stream, changes }, far))
        }
        Err(error) => {
            log::warn!(
                "upgrade: making a stream for the object cache: {error}; the new process begins with an empty one"
            );
            None
        }
    }
}

/// The inherited stream; `None` if the predecessor has none. To be taken once, at the start.
pub(super) fn take() -> Option<io::Result<UnixStream>> {
    let number = env::var(STREAM).ok()?;
    let number = number
        .parse()
        .map_err(|_| io::Error::new(ErrorKind::InvalidInput, format!("{STREAM} is {number:?}, which is no number")));
    Some(number.and_then(stream_of_parent))
}

/// The sender of the objects.
pub(super) struct ObjectSender {
    store: Arc<Store>,
    stream: UnixStream,
    changes: Receiver<Change>,
}

/// The thread that sends them.
pub(super) struct Sending {
    store: Arc<Store>,
    thread: JoinHandle<()>,
}

impl ObjectSender {
    /// Starts the thread once the successor serves.
    pub(super) fn start(self) -> Option<Sending> {
        let Self { store, stream, changes } = self;
        // The files are the successor's from now on, and changes are sent to it.
        store.tier().into_iter().for_each(|tier| tier.end());
        let own = Arc::clone(&store);
        let run = move || {
            let mut count = 0;
            match send(&own, &changes, stream, &mut count, Clock::new()) {
                Ok(()) => log::debug!("upgrade: the object cache has moved"),
                Err(error) => {
                    log::warn!("upgrade: {count} objects of the cache were handed over, and no more can be: {error}");
                }
            }
            own.end_changes();
        };
        match thread::Builder::new().name("objects".into()).spawn(run) {
            Ok(thread) => Some(Sending { store, thread }),
            Err(error) => {
                log::warn!("upgrade: starting a thread for the object cache: {error}");
                store.end_changes();
                None
            }
        }
    }
}

impl Sending {
    /// Waits until everything is sent: no request of this process changes the cache any more.
    pub(super) fn finish(self) {
        self.store.end_changes();
        if self.thread.join().is_err() {
            log::error!("the thread of the object cache had panicked");
        }
    }
}

/// Sends the stored objects and the changes, until the store reports no more.
fn send(
    store: &Store,
    changes: &Receiver<Change>,
    stream: impl Write,
    count: &mut u64,
    clock: Clock,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(ROOM, stream);
    out.write_all(MAGIC)?;
    let deadline = clock.now() + PATIENCE;
    for (key, object) in store.objects() {
        changes.try_iter().try_for_each(|change| put(&mut out, portable::encode_change(&change)))?;
        if clock.now() >= deadline {
            log::warn!(
                "upgrade: the object cache takes too long: only {count} objects were handed over in {PATIENCE:?}"
            );
            break;
        }
        let Some(message) = portable::encode_object(&key, &object) else { continue };
        out.write_all(&message)?;
        object.body.slices(0..object.body.len()).try_for_each(|slice| out.write_all(slice))?;
        *count += 1;
    }
    put(&mut out, portable::encode_end())?;
    out.flush()?;
    log::info!("upgrade: {count} objects of the cache were handed over");
    for change in changes {
        put(&mut out, portable::encode_change(&change))?;
        out.flush()?;
    }
    put(&mut out, portable::encode_closed())?;
    out.flush()
}

fn put(out: &mut impl Write, message: Option<Vec<u8>>) -> io::Result<()> {
    match message {
        Some(message) => out.write_all(&message),
        // The successor would go on serving a purged object.
        None => Err(io::Error::new(ErrorKind::InvalidInput, "a purge is too long to be sent")),
    }
}

/// Stores received objects, in its own thread.
pub(super) fn receive(stream: io::Result<UnixStream>, store: &Arc<Store>) {
    let (own, ticket) = (Arc::clone(store), store.ticket());
    let run = move || {
        receive_or_purge(&own, ticket, stream);
    };
    if let Err(error) = thread::Builder::new().name("objects".into()).spawn(run) {
        log::warn!("upgrade: starting a thread for the object cache: {error}; all its objects are dropped");
        store.purge(&Selector::All, PurgeMode::Hard);
    }
}

/// Receives all objects and changes. If that fails, a purge may be among the missing changes: all objects are dropped, and the
/// files of the disk tier too.
fn receive_or_purge(store: &Store, ticket: Ticket, stream: io::Result<impl Read>) -> Received {
    let mut received = Received::default();
    let taken = stream.and_then(|stream| receive_all(store, ticket, stream, &mut received));
    if let Err(error) = taken {
        log::warn!(
            "upgrade: {error} (after {} objects of the cache); a purge may be missing: all objects are dropped",
            received.stored
        );
        store.purge(&Selector::All, PurgeMode::Hard);
    }
    received
}

#[derive(Debug, Default)]
struct Received {
    stored: u64,
    /// Number of objects that were purged, superseded or without room.
    left_out: u64,
}

fn receive_all(store: &Store, ticket: Ticket, stream: impl Read, received: &mut Received) -> io::Result<()> {
    let bad = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
    let mut input = BufReader::with_capacity(ROOM, stream);
    let mut magic = [0; MAGIC.len()];
    input.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(bad("the predecessor sends its objects in another format"));
    }
    let mut room = vec![0; ROOM];
    loop {
        let mut prefix = [0; PREFIX];
        input.read_exact(&mut prefix)?;
        let len = portable::prefix(prefix).ok_or_else(|| bad("a message is too long"))?;
        let mut rest = vec![0; len as usize];
        input.read_exact(&mut rest)?;
        match portable::decode(&rest).ok_or_else(|| bad("a message cannot be understood"))? {
            Message::Object(object) => {
                let is_stored = receive_object(store, ticket, *object, &mut input, &mut room)?;
                received.stored += u64::from(is_stored);
                received.left_out += u64::from(!is_stored);
            }
            Message::Change(change) => store.follow(&change),
            Message::End => {
                let Received { stored, left_out } = received;
                log::info!("upgrade: {stored} objects of the cache were taken over, {left_out} left out");
            }
            Message::Closed => return Ok(()),
        }
    }
}

/// Reads a body and stores the object; returns whether it was stored.
fn receive_object(
    store: &Store,
    ticket: Ticket,
    object: PortableObject,
    input: &mut impl Read,
    room: &mut [u8],
) -> io::Result<bool> {
    let len = object.len;
    let mut builder = BodyBuilder::within(len, store.largest(), store.budget());
    let mut left = len;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
        let part = room.split_at_mut(part).0;
        input.read_exact(part)?;
        left -= part.len() as u64;
        builder = builder.and_then(|mut builder| {
            builder.push(part)?;
            Ok(builder)
        });
    }
    let body = builder.and_then(|mut builder| builder.finish());
    let is_stored = match body {
        Ok(body) => {
            let (key, object) = object.with_body(body);
            store.take_over(&key, object, ticket).is_ok()
        }
        Err(BodyFault::TooLarge | BodyFault::NoRoom | BodyFault::Incomplete) => false,
    };
    Ok(is_stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Moment;
    use crate::cache::fields::Fields;
    use crate::cache::freshness::Times;
    use crate::cache::object::Object;
    use crate::cache::options::Options;
    use crate::cache::purge::{PurgeMode, Selector};
    use crate::cache::request::CacheRequest;
    use crate::cache::storability::{CacheResponse, admit};
    use crate::cache::vary::RequestValues;
    use crate::wire::body::BodyLength;
    use httparse::Header;
    use std::time::SystemTime;

    const REQUEST: [Header<'_>; 1] = [Header { name: "X-A", value: b"1" }];

    fn request(host: &'static str) -> CacheRequest<'static> {
        CacheRequest { frontend: host, ..CacheRequest::get(host, "/t", &REQUEST) }
    }

    fn put_object(store: &Store, host: &'static str, body: &[u8]) {
        let fields = [
            ("Cache-Control", "max-age=60, stale-if-error=5"),
            ("ETag", "\"a\""),
            ("Vary", "X-A"),
            ("Age", "7"),
            ("Date", "Tue, 14 Nov 2023 22:13:19 GMT"),
            ("Last-Modified", "Tue, 14 Nov 2023 22:13:00 GMT"),
            ("Surrogate-Key", "red blue"),
            ("X-B", "b"),
        ]
        .map(|(name, value)| Header { name, value: value.as_bytes() });
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        let response = CacheResponse {
            status: 404,
            phrase: "Gone For Now",
            fields: Fields(&fields),
            body: BodyLength::Sized(body.len() as u64),
            times: Times { requested_at: now, received_at: now, received_at_wall: now },
        };
        let options = Options { is_enabled: true, ..Options::default() };
        let mut pending = admit(&request(host), &response, &options).expect("cacheable");
        pending.push(body, Moment::ZERO).expect("room");
        store.insert(host.as_bytes(), pending.finish().expect("whole"), store.ticket(), &options).expect("stored");
    }

    fn find(store: &Store, host: &str) -> Option<Arc<Object>> {
        store.get(host.as_bytes(), &mut RequestValues::of(Fields(&REQUEST))).object
    }

    /// The bytes that a store sends, with these changes among its objects.
    fn sent(store: &Store, changes: &[Change]) -> Vec<u8> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut out = Vec::new();
        let mut count = 0;
        // They are reported while objects are sent, so they may come before, between and behind them.
        changes.iter().for_each(|change| sender.send(change.clone()).expect("a receiver"));
        drop(sender);
        send(store, &receiver, &mut out, &mut count, Clock::new()).expect("room");
        out
    }

    fn take(store: &Store, bytes: &[u8]) -> (io::Result<()>, u64, u64) {
        let mut received = Received::default();
        let taken = receive_all(store, store.ticket(), bytes, &mut received);
        (taken, received.stored, received.left_out)
    }

    #[test]
    fn an_object_arrives_as_it_was() {
        let (old, new) = (Store::new(64 << 20), Store::new(64 << 20));
        let body: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
        put_object(&old, "a", &body);
        put_object(&old, "b", b"");
        let before = find(&old, "a").expect("stored");
        before.count_hit();
        before.soft_purge();
        assert!(matches!(take(&new, &sent(&old, &[])), (Ok(()), 2, 0)));
        let after = find(&new, "a").expect("taken over");
        assert_eq!(told(&before), told(&after));
        assert_eq!((after.hits(), after.is_purged()), (1, true));
        assert_eq!(after.body.slices(0..200_000).collect::<Vec<_>>().concat(), body);
        assert!(!find(&new, "b").expect("taken over").is_purged());
        assert!(new.get(b"a", &mut RequestValues::of(Fields(&[]))).object.is_none(), "its variant too");
        assert_eq!(new.purge(&Selector::Tag { frontend: None, tag: b"blue"[..].into() }, PurgeMode::Hard), 2);
    }

    /// The facts about an object that the rules depend on.
    fn told(object: &Object) -> String {
        let Object { status, phrase, fields, etag, last_modified, date, .. } = object;
        let Object { directives, freshness, variant, origin, tags, .. } = object;
        let head = (status, phrase, fields, etag, last_modified, date);
        format!("{head:?} {:?}", (directives, freshness, variant, origin, tags))
    }

    #[test]
    fn what_is_newer_or_purged_is_left_out() {
        let (old, new) = (Store::new(64 << 20), Store::new(64 << 20));
        ["a", "b", "c", "d"].iter().for_each(|host| put_object(&old, host, b"old"));
        put_object(&new, "a", b"newer");
        let ticket = new.ticket();
        new.invalidate(b"b");
        new.purge(&Selector::Host(b"c"[..].into()), PurgeMode::Soft);
        let mut received = Received::default();
        receive_all(&new, ticket, &*sent(&old, &[]), &mut received).expect("good records");
        assert_eq!((received.stored, received.left_out), (1, 3));
        assert_eq!(find(&new, "a").expect("stored").body.len(), 5);
        assert!(find(&new, "b").is_none() && find(&new, "c").is_none() && find(&new, "d").is_some());
    }

    /// A purge in the old process applies to the new one, at any position among the objects.
    #[test]
    fn changes_are_followed() {
        let table = [
            (Change::Drop(b"a"[..].into()), false),
            (Change::Purge(Selector::All, PurgeMode::Hard), false),
            (Change::Purge(Selector::Frontend("a".into()), PurgeMode::Hard), false),
            (Change::Purge(Selector::Frontend("b".into()), PurgeMode::Hard), true),
            (Change::Purge(Selector::Host(b"a"[..].into()), PurgeMode::Hard), false),
            (
                Change::Purge(Selector::Prefix { host: b"a"[..].into(), prefix: b"/t"[..].into() }, PurgeMode::Hard),
                false,
            ),
            (
                Change::Purge(Selector::Tag { frontend: Some("a".into()), tag: b"red"[..].into() }, PurgeMode::Hard),
                false,
            ),
            (Change::Stale(b"b"[..].into()), true),
        ];
        for (change, stays) in table {
            let (old, new) = (Store::new(64 << 20), Store::new(64 << 20));
            put_object(&old, "a", b"x");
            assert!(take(&new, &sent(&old, std::slice::from_ref(&change))).0.is_ok(), "{change:?}");
            assert_eq!(find(&new, "a").is_some(), stays, "in front: {change:?}");
            let closed = portable::encode_closed().expect("a message");
            let mut behind = sent(&old, &[]);
            behind.truncate(behind.len() - closed.len());
            let behind = [behind, portable::encode_change(&change).expect("a record"), closed].concat();
            let new = Store::new(64 << 20);
            assert!(take(&new, &behind).0.is_ok(), "{change:?}");
            assert_eq!(find(&new, "a").is_some(), stays, "behind: {change:?}");
        }
    }

    /// Any fault ends the transfer, no incomplete object is stored, and nothing is left that a missing purge selects.
    #[test]
    fn what_cannot_be_read_ends_the_transfer() {
        let old = Store::new(64 << 20);
        put_object(&old, "a", b"0123456789");
        let whole = sent(&old, &[]);
        let end = [portable::encode_end(), portable::encode_closed()].map(|message| message.expect("a message").len());
        let receive = |bytes: &[u8]| {
            let new = Store::new(64 << 20);
            put_object(&new, "own", b"text");
            let Received { stored, .. } = receive_or_purge(&new, new.ticket(), Ok(bytes));
            (new, stored)
        };
        for len in 0..whole.len() {
            let (new, stored) = receive(&whole[..len]);
            assert_eq!(stored, u64::from(len >= whole.len() - end[0] - end[1]), "{len}");
            assert!(new.is_empty(), "a purge may be missing behind {len} bytes");
        }
        let (new, _) = receive(&whole);
        assert!(find(&new, "a").is_some() && find(&new, "own").is_some());
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            let place = random.usize(0..bytes.len());
            bytes[place] ^= random.u8(1..);
            // It may be read as something else, but stops no thread and takes no memory.
            receive(&bytes);
        }
        assert!(take(&old, b"another format 1").0.is_err());
        let none: io::Result<&[u8]> = Err(io::Error::other("no descriptor"));
        receive_or_purge(&old, old.ticket(), none);
        assert!(old.is_empty());
    }
}
