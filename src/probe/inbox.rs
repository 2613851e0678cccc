//! The inbox of the probe thread: clusters that it has to examine.
//!
//! A cluster is listed once, however often it is added, so the inbox never outgrows the number of clusters. No entry is
//! lost, and adding one waits at most for the thread to read the list.

use crate::cluster::{Admission, HealthWatcher};
use crate::net::tls::BackendTls;
use mio::Waker;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Below this number of clusters a purge is not worth its cost.
const MIN_PURGE: usize = 256;

/// The inbox of the probe thread.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    waker: Waker,
}

#[derive(Debug)]
struct State {
    /// Every cluster that was ever added, by the address of its admission, and whether it has to be examined now.
    clusters: HashMap<usize, (Weak<Admission>, bool)>,
    to_see: Vec<usize>,
    purge_at: usize,
    tls: Option<BackendTls>,
    has_new_tls: bool,
    is_stopped: bool,
}

impl Inbox {
    /// An empty inbox; `waker` interrupts its owner's poll.
    pub(super) fn new(waker: Waker, tls: Option<BackendTls>) -> Self {
        let state = State {
            clusters: HashMap::new(),
            to_see: Vec::new(),
            purge_at: MIN_PURGE,
            has_new_tls: tls.is_some(),
            tls,
            is_stopped: false,
        };
        Self { state: Mutex::new(state), waker }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread.
    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("waking the thread of health probes: {error}");
        }
    }

    /// The clusters to examine.
    pub(super) fn take(&self) -> Vec<Weak<Admission>> {
        let State { clusters, to_see, .. } = &mut *self.state();
        let mut seen = |id: usize| {
            let (admission, is_to_see) = clusters.get_mut(&id)?;
            *is_to_see = false;
            Some(Weak::clone(admission))
        };
        std::mem::take(to_see).into_iter().filter_map(&mut seen).collect()
    }

    /// Adds all known clusters again.
    pub(super) fn renew(&self) {
        let State { clusters, to_see, has_new_tls, tls, .. } = &mut *self.state();
        *to_see = clusters.keys().copied().collect();
        clusters.values_mut().for_each(|(_, is_to_see)| *is_to_see = true);
        *has_new_tls = tls.is_some();
    }

    /// New TLS settings for backends, if they have changed.
    pub(super) fn take_tls(&self) -> Option<BackendTls> {
        let State { has_new_tls, tls, .. } = &mut *self.state();
        if std::mem::take(has_new_tls) { tls.clone() } else { None }
    }

    pub(super) fn set_tls(&self, tls: BackendTls) {
        let state = &mut *self.state();
        (state.tls, state.has_new_tls) = (Some(tls), true);
        self.wake();
    }

    pub(super) fn stop(&self) {
        self.state().is_stopped = true;
        self.wake();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state().is_stopped
    }
}

impl HealthWatcher for Inbox {
    fn look_at(&self, admission: &Arc<Admission>) {
        let State { clusters, to_see, purge_at, .. } = &mut *self.state();
        if clusters.len() >= *purge_at {
            clusters.retain(|_, (admission, is_to_see)| *is_to_see || admission.strong_count() > 0);
            *purge_at = MIN_PURGE.max(2 * clusters.len());
        }
        // The address is not reused while the `Weak` exists.
        let id = Arc::as_ptr(admission) as usize;
        let (_, is_to_see) = clusters.entry(id).or_insert_with(|| (Arc::downgrade(admission), false));
        if !std::mem::replace(is_to_see, true) {
            to_see.push(id);
            self.wake();
        }
    }
}
