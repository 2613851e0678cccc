//! A response being filled, in the view of waiting requests: the head, the body so far, and the rest as it arrives.
//!
//! One request writes, and any number of requests read, each at its own pace. The same bytes are stored afterwards. If
//! they turn out not to be storable, the readers get them all the same: the writer is then held back while a reader is
//! more than [`WINDOW`] behind.

use super::body::{Body, BodyBudget, BodyBuilder, BodyFault};
use super::object::Object;
use super::purge::Ticket;
use crate::base::clock::Moment;
use crate::base::slice_ext::SliceExt;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a body that are kept for its readers if it is not stored.
pub const WINDOW: u64 = 256 * 1024;

/// The mailbox of one worker.
pub trait Wake: Send + Sync + fmt::Debug {
    /// Notifies a request that there are bytes to read, or that readers have caught up.
    fn wake(&self, exchange: u64);
}

/// A handle that wakes a request.
#[derive(Clone, Debug)]
pub struct Sleeper {
    /// The mailbox of its worker.
    pub sink: Arc<dyn Wake>,
    /// Its id in the worker.
    pub exchange: u64,
}

impl Sleeper {
    fn wake(&self) {
        self.sink.wake(self.exchange);
    }
}

/// A response whose body is still arriving.
#[derive(Debug)]
pub struct LiveFill {
    /// The response without a body.
    pub head: Object,
    /// The length of its body, if stated.
    pub len: Option<u64>,
    /// The start of the fill: later requests do not get it if the object was purged since.
    pub ticket: Ticket,
    body: Arc<LiveBody>,
}

impl LiveFill {
    /// The time at which the last byte, or the head, arrived.
    pub fn moved_at(&self) -> Moment {
        Moment::from_micros(self.body.moved_at.load(Relaxed))
    }
}

/// A body in progress.
#[derive(Debug)]
struct LiveBody {
    state: Mutex<State>,
    moved_at: AtomicU64,
}

#[derive(Debug)]
struct State {
    builder: BodyBuilder,
    end: Option<LiveEnd>,
    /// The positions of readers; `None` is a free slot.
    readers: Vec<Option<Place>>,
    /// Number of readers, and of those that wait.
    count: usize,
    waiting: usize,
    /// The body is not stored, and kept only for its readers.
    is_passing: bool,
    /// The writer, if it waits for its readers.
    writer: Option<Sleeper>,
}

#[derive(Debug)]
struct Place {
    at: u64,
    sleeper: Option<Sleeper>,
}

/// The end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveEnd {
    /// It is complete.
    Whole,
    /// It is incomplete: the fill has failed.
    Cut,
}

impl LiveBody {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake_readers(&mut self) {
        if std::mem::take(&mut self.waiting) > 0 {
            let sleepers = self.readers.iter_mut().flatten().filter_map(|place| place.sleeper.take());
            sleepers.for_each(|sleeper| sleeper.wake());
        }
    }

    /// Drops bytes that all readers have read, in a body that is not stored.
    fn pass(&mut self) {
        if self.is_passing {
            self.builder.drop_before(self.least());
        }
    }

    /// The position of the slowest reader.
    fn least(&self) -> u64 {
        self.readers.iter().flatten().map(|place| place.at).min().unwrap_or(self.builder.received())
    }

    fn is_full(&self) -> bool {
        self.is_passing && self.builder.received() - self.least() > WINDOW
    }

    fn wake_writer(&mut self) {
        if self.writer.is_some() && !self.is_full() {
            self.writer.take().iter().for_each(Sleeper::wake);
        }
    }
}

/// The writer. If it is dropped without an end, the fill has failed.
#[derive(Debug)]
pub struct LiveWriter(Written);

/// A body is shared once it has readers to come: most come whole in one read, and have none.
#[derive(Debug)]
enum Written {
    Alone(BodyBuilder),
    Shared(Arc<LiveBody>),
    Over,
}

impl LiveWriter {
    /// An empty body.
    pub fn new(builder: BodyBuilder) -> Self {
        Self(Written::Alone(builder))
    }

    /// The view for waiting requests.
    pub fn publish(&mut self, head: Object, ticket: Ticket, now: Moment) -> Arc<LiveFill> {
        let body = match std::mem::replace(&mut self.0, Written::Over) {
            Written::Alone(builder) => Arc::new(LiveBody::new(builder)),
            Written::Shared(body) => body,
            Written::Over => Arc::new(LiveBody::new(BodyBuilder::empty())),
        };
        self.0 = Written::Shared(Arc::clone(&body));
        // The arrival of the head counts too.
        body.moved_at.fetch_max(now.as_micros(), Relaxed);
        let len = body.lock().builder.stated();
        Arc::new(LiveFill { head, len, ticket, body })
    }

    /// See [`BodyBuilder::limit_to`]. To be called before [`LiveWriter::publish`].
    pub fn limit_to(&mut self, bytes: u64, budget: &Arc<BodyBudget>) -> Result<(), BodyFault> {
        match &mut self.0 {
            Written::Alone(builder) => builder.limit_to(bytes, budget),
            Written::Shared(body) => body.lock().builder.limit_to(bytes, budget),
            Written::Over => Ok(()),
        }
    }

    /// Appends bytes. A fault is reported once: the body is not stored. Its readers, if any, get the bytes all the same
    /// ([`LiveWriter::has_readers`]).
    pub fn push(&mut self, bytes: &[u8], now: Moment) -> Result<(), BodyFault> {
        match &mut self.0 {
            Written::Alone(builder) => builder.push(bytes),
            Written::Shared(body) => body.push(bytes, now),
            Written::Over => Ok(()),
        }
    }

    /// Whether the body has readers.
    pub fn has_readers(&self) -> bool {
        matches!(&self.0, Written::Shared(body) if body.lock().count > 0)
    }

    /// Whether readers have yet to catch up. If so, `sleeper` is woken once they have.
    pub fn is_held(&self, sleeper: Option<&Sleeper>) -> bool {
        let Written::Shared(body) = &self.0 else { return false };
        let mut state = body.lock();
        let is_held = state.is_full();
        state.writer = sleeper.filter(|_| is_held).cloned();
        is_held
    }

    /// Ends the body and returns it for storing.
    pub fn finish(mut self) -> Result<Body, BodyFault> {
        match std::mem::replace(&mut self.0, Written::Over) {
            Written::Alone(mut builder) => builder.finish(),
            Written::Shared(body) => body.finish(),
            Written::Over => Err(BodyFault::Incomplete),
        }
    }
}

impl LiveBody {
    fn new(builder: BodyBuilder) -> Self {
        let (readers, writer) = (Vec::new(), None);
        let state = State { builder, end: None, readers, count: 0, waiting: 0, is_passing: false, writer };
        Self { state: Mutex::new(state), moved_at: AtomicU64::new(0) }
    }

    fn push(&self, bytes: &[u8], now: Moment) -> Result<(), BodyFault> {
        self.moved_at.store(now.as_micros(), Relaxed);
        let mut state = self.lock();
        let before = state.builder.received();
        let pushed = state.builder.push(bytes);
        if pushed.is_err() && state.count > 0 && !state.is_passing {
            state.is_passing = true;
            state.builder.lift_limits();
            let added = usize::try_from(state.builder.received() - before).unwrap_or(bytes.len());
            // Only more bytes than the head states are refused now, and there are none.
            let _ = state.builder.push(bytes.suffix(added.min(bytes.len())));
        }
        state.pass();
        state.wake_readers();
        pushed
    }

    fn finish(&self) -> Result<Body, BodyFault> {
        let mut state = self.lock();
        let finished = if state.is_passing { Err(BodyFault::TooLarge) } else { state.builder.finish() };
        let is_whole = state.builder.stated().is_none_or(|stated| stated == state.builder.received());
        state.end = Some(if is_whole { LiveEnd::Whole } else { LiveEnd::Cut });
        state.wake_readers();
        finished
    }
}

impl Drop for LiveWriter {
    fn drop(&mut self) {
        if let Written::Shared(body) = &self.0 {
            let mut state = body.lock();
            state.end = Some(LiveEnd::Cut);
            state.wake_readers();
        }
    }
}

/// A reading request. Dropping it ends the read.
#[derive(Debug)]
pub struct LiveReader {
    fill: Arc<LiveFill>,
    place: usize,
    sleeper: Sleeper,
}

/// The result of a read.
#[derive(Debug)]
pub struct LiveRead {
    /// The bytes; empty if there are no new ones, and the reader is woken once there are.
    pub bytes: Body,
    /// The end, if it follows these bytes.
    pub end: Option<LiveEnd>,
}

impl LiveReader {
    /// A reader from the beginning. `None` if the fill has failed, or has dropped its beginning: none of the response
    /// may be sent then.
    pub fn new(fill: Arc<LiveFill>, sleeper: Sleeper) -> Option<Self> {
        let mut state = fill.body.lock();
        if state.end == Some(LiveEnd::Cut) || state.is_passing {
            return None;
        }
        state.count += 1;
        let place = state.readers.iter().position(Option::is_none).unwrap_or_else(|| {
            state.readers.push(None);
            state.readers.len() - 1
        });
        if let Some(free) = state.readers.get_mut(place) {
            *free = Some(Place { at: 0, sleeper: None });
        }
        drop(state);
        Some(Self { fill, place, sleeper })
    }

    /// The response.
    pub fn fill(&self) -> &LiveFill {
        &self.fill
    }

    /// Takes at most `most` of the next bytes.
    pub fn read(&mut self, most: u64) -> LiveRead {
        let mut state = self.fill.body.lock();
        let (len, end) = (state.builder.received(), state.end);
        let at = state.readers.get(self.place).and_then(Option::as_ref).map_or(len, |place| place.at);
        let bytes = state.builder.part(at, most);
        let next = at + bytes.len();
        let sleeps = bytes.is_empty() && end.is_none();
        if let Some(Some(place)) = state.readers.get_mut(self.place) {
            let slept = place.sleeper.is_some();
            (place.at, place.sleeper) = (next, sleeps.then(|| self.sleeper.clone()));
            state.waiting = state.waiting + usize::from(sleeps) - usize::from(slept);
        }
        state.pass();
        state.wake_writer();
        LiveRead { bytes, end: end.filter(|_| next == len) }
    }
}

impl Drop for LiveReader {
    fn drop(&mut self) {
        let mut state = self.fill.body.lock();
        if let Some(place) = state.readers.get_mut(self.place).and_then(Option::take) {
            state.count -= 1;
            state.waiting -= usize::from(place.sleeper.is_some());
        }
        state.pass();
        state.wake_writer();
    }
}
