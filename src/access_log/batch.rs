//! The core's part: lines go to a batch, batches go to the queue.

use super::format::Format;
use super::losses::Losses;
use super::record::LogRecord;
use super::stamp::Stamps;
use crate::base::clock::{Clock, Moment};
use crossbeam_channel::{Receiver, Sender};
use std::cell::RefCell;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

/// A batch of this size is queued at once. Each time wakes the log's thread, which costs as much as the lines of some
/// hundred requests.
const FULL_BYTES: usize = 128 * 1024;

/// Age at which a batch of any size is queued, if few others wait.
const FLUSH_AGE: Duration = Duration::from_millis(200);

/// Age at which a batch is queued whenever the queue has room.
const LATEST_AGE: Duration = Duration::from_secs(2);

/// The access log of one core. A clone has its own batch and shares the rest. Dropping it queues the lines of its
/// batch.
#[derive(Clone, Debug)]
pub struct Log {
    /// `None` if the log is off.
    lines: Option<RefCell<Lines>>,
    /// One of this many requests is logged.
    sample: u64,
}

impl Log {
    /// A log that discards every line.
    pub const fn off() -> Self {
        Self { lines: None, sample: 1 }
    }

    pub(super) fn new(sender: BatchSender, clock: Clock) -> Self {
        Self { lines: Some(RefCell::new(Lines::new(sender, clock, Format::default()))), sample: 1 }
    }

    /// The same log with this format, for one of `sample` requests.
    pub fn in_format(self, format: &Format, sample: u64) -> Self {
        let of = |lines: RefCell<Lines>| {
            let lines = lines.borrow();
            RefCell::new(Lines::new(lines.sender.clone(), lines.clock, format.clone()))
        };
        Self { lines: self.lines.map(of), sample }
    }

    /// Whether a request that need not be logged is one of the random sample.
    pub fn samples(&self, dice: &mut fastrand::Rng) -> bool {
        self.sample <= 1 || dice.u64(..self.sample) == 0
    }

    /// Whether the lines have more fields than Hipache's. If not, the caller can leave these fields out.
    pub fn is_detailed(&self) -> bool {
        self.lines.as_ref().is_some_and(|lines| lines.borrow().format.is_detailed())
    }

    /// Whether lines are written. If not, the caller need not make a [`LogRecord`].
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Writes the line of a request.
    pub fn write(&self, record: &LogRecord<'_>) {
        if let Some(lines) = &self.lines {
            lines.borrow_mut().write(record);
        }
    }

    /// Queues lines that are old enough. Call it when [`Log::flush_at`] has come.
    pub fn flush(&self, now: Moment) {
        if now >= self.flush_at()
            && let Some(lines) = &self.lines
        {
            lines.borrow_mut().hand_over_or_keep(now);
        }
    }

    /// When [`Log::flush`] has to be called next; [`Moment::NEVER`] if no line waits.
    pub fn flush_at(&self) -> Moment {
        self.lines.as_ref().map_or(Moment::NEVER, |lines| lines.borrow().flush_at)
    }
}

/// Lines on their way to the log's thread.
#[derive(Debug)]
pub(super) struct Batch {
    /// Whole lines.
    pub(super) text: Vec<u8>,
    pub(super) lines: u64,
}

/// The queue from a core to the log's thread, and the buffers that come back.
#[derive(Clone, Debug)]
pub(super) struct BatchSender {
    pub(super) batches: Sender<Batch>,
    /// Buffers are reused, so the steady state allocates none.
    pub(super) spares: Receiver<Vec<u8>>,
    pub(super) losses: Arc<Losses>,
}

/// The greatest size of a batch, so its buffer never grows.
fn batch_limit(format: &Format) -> usize {
    FULL_BYTES + format.line_limit()
}

#[derive(Debug)]
struct Lines {
    batch: Batch,
    /// When the first line of the batch was written.
    since: Moment,
    /// When it will be old enough.
    flush_at: Moment,
    stamps: Stamps,
    format: Format,
    clock: Clock,
    sender: BatchSender,
}

impl Lines {
    fn new(sender: BatchSender, clock: Clock, format: Format) -> Self {
        let batch = Batch { text: Vec::with_capacity(batch_limit(&format)), lines: 0 };
        let stamps = Stamps::new(clock);
        Self { batch, since: Moment::NEVER, flush_at: Moment::NEVER, stamps, format, clock, sender }
    }

    fn write(&mut self, record: &LogRecord<'_>) {
        if self.batch.lines == 0 {
            self.since = record.ended;
            self.flush_at = record.ended + FLUSH_AGE;
        }
        self.format.append(record, &mut self.batch.text, &mut self.stamps);
        self.batch.lines += 1;
        debug_assert!(self.batch.text.len() <= batch_limit(&self.format), "a batch outgrew its buffer");
        if self.batch.text.len() >= FULL_BYTES {
            self.hand_over();
        }
    }

    /// Queues a batch that is old and not full. If others wait already, it is kept and grows: the queue has room for a
    /// number of batches, whatever their size.
    fn hand_over_or_keep(&mut self, now: Moment) {
        let room = self.sender.batches.capacity().unwrap_or(usize::MAX);
        let few = if now.since(self.since) < LATEST_AGE { room.div_ceil(4) } else { room };
        if self.sender.batches.len() >= few {
            self.flush_at = now + FLUSH_AGE;
        } else {
            self.hand_over();
        }
    }

    /// Queues the batch; if the queue is full, the lines are lost and counted.
    fn hand_over(&mut self) {
        if self.batch.lines == 0 {
            return;
        }
        let batch = Batch { text: mem::take(&mut self.batch.text), lines: mem::take(&mut self.batch.lines) };
        self.flush_at = Moment::NEVER;
        self.batch.text = match self.sender.batches.try_send(batch) {
            Ok(()) => self.sender.spares.try_recv().unwrap_or_else(|_| Vec::with_capacity(batch_limit(&self.format))),
            Err(refused) => {
                let mut batch = refused.into_inner();
                self.sender.losses.add_overflowed(batch.lines);
                batch.text.clear();
                batch.text
            }
        };
    }
}

impl Clone for Lines {
    fn clone(&self) -> Self {
        Self::new(self.sender.clone(), self.clock, self.format.clone())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.hand_over();
    }
}
