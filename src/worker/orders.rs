//! What a worker is told.

use super::handover::Heir;
use super::{Entrance, TlsParts, Worker};
use crate::net::tls::BackendTls;
use crate::page::Pages;
use std::sync::Arc;

/// What the supervisor, or another worker, tells a worker.
#[derive(Debug)]
pub enum Order {
    /// Use these pages from now on.
    Pages(Arc<Pages>),
    /// Receive clients so from now on.
    Tls(TlsParts),
    /// Talk so to backends that are connected to from now on.
    BackendTls(BackendTls),
    /// Accept nothing more, finish what is under way, end.
    Stop,
    /// The same, but clients are not closed: those that can move go to this heir. Told again, it is another heir.
    HandOver(Heir),
    /// Somebody has arrived at the landing.
    Arrivals,
    /// Accept at these doors from now on, and at no others.
    Doors(Vec<Entrance>),
    /// Answer the question of this number in the [`Vitals`](super::Vitals).
    Report(u64),
    /// What a test has the worker's thread do.
    #[cfg(test)]
    Do(Deed),
}

/// Something for a worker's thread to do, such as to panic.
#[cfg(test)]
pub struct Deed(pub Box<dyn FnOnce() + Send>);

#[cfg(test)]
impl std::fmt::Debug for Deed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deed")
    }
}

impl Worker {
    #[cold]
    pub(super) fn read_mail(&mut self) {
        self.read_news();
        while let Some(order) = self.orders.receive() {
            match order {
                Order::Pages(pages) => self.core.pages = pages,
                Order::Tls(parts) => self.refurnish(parts.reception, &parts.doors),
                Order::BackendTls(tls) => self.backend_tls = Some(tls),
                Order::Stop => self.begin_to_leave(None),
                Order::HandOver(heir) => self.begin_to_leave(Some(heir)),
                Order::Arrivals => {}
                Order::Doors(entrances) => self.change_doors(entrances),
                Order::Report(question) => self.report(question),
                #[cfg(test)]
                Order::Do(Deed(deed)) => deed(),
            }
        }
        self.receive_arrivals();
    }
}
