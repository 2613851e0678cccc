//! The order of fills and removals: each removal begins an epoch, and a fill or a load that began before it does
//! not store a removed key again.

use super::purge::Ticket;
use quick_cache::DefaultHashBuilder;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Number of cells with the epoch at which a key last changed. Keys that share a cell can only lose a fill, or a load, to
/// each other.
const CELLS: usize = 65_536;

#[derive(Debug)]
pub(super) struct Epochs {
    newest: AtomicU64,
    hasher: DefaultHashBuilder,
    /// When a key was last purged or invalidated.
    invalidated: Cells,
    /// When an object of a key last replaced another one, or was dropped alone: no earlier object may come from the disk.
    /// Without a disk there is none of it.
    superseded: Option<Cells>,
}

#[derive(Debug)]
struct Cells(Box<[AtomicU64]>);

impl Epochs {
    pub(super) fn new(has_disk: bool) -> Self {
        Self {
            newest: AtomicU64::new(1),
            hasher: DefaultHashBuilder::default(),
            invalidated: Cells::new(),
            superseded: has_disk.then(Cells::new),
        }
    }

    /// Marks the beginning of a fill.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.newest.load(SeqCst))
    }

    /// Begins an epoch.
    pub(super) fn begin(&self) -> u64 {
        self.newest.fetch_add(1, SeqCst) + 1
    }

    /// Begins an epoch with the invalidation of a key: no fill or load of it that began before is stored.
    pub(super) fn invalidate(&self, key: &[u8]) -> u64 {
        let epoch = self.begin();
        self.invalidated.mark(self.hash(key), epoch);
        epoch
    }

    /// Begins an epoch with the change of one object of a key: no earlier one comes from the disk. The fill that brings it goes
    /// on.
    pub(super) fn supersede(&self, key: &[u8]) -> u64 {
        let epoch = self.begin();
        self.superseded.iter().for_each(|cells| cells.mark(self.hash(key), epoch));
        epoch
    }

    /// Whether a key was invalidated since.
    pub(super) fn was_invalidated(&self, key: &[u8], since: Ticket) -> bool {
        self.invalidated.is_newer(self.hash(key), since)
    }

    /// Whether an object of a key was replaced or dropped since.
    pub(super) fn was_superseded(&self, key: &[u8], since: Ticket) -> bool {
        self.superseded.as_ref().is_some_and(|cells| cells.is_newer(self.hash(key), since))
    }

    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }
}

impl Cells {
    fn new() -> Self {
        Self((0..CELLS).map(|_| AtomicU64::new(0)).collect())
    }

    fn mark(&self, hash: u64, epoch: u64) {
        if let Some(cell) = self.cell(hash) {
            cell.fetch_max(epoch, SeqCst);
        }
    }

    fn is_newer(&self, hash: u64, ticket: Ticket) -> bool {
        self.cell(hash).is_some_and(|cell| cell.load(SeqCst) > ticket.0)
    }

    fn cell(&self, hash: u64) -> Option<&AtomicU64> {
        let [low, high, ..] = hash.to_le_bytes();
        self.0.get(usize::from(u16::from_le_bytes([low, high])) % CELLS)
    }
}
