//! What others have for the thread that probes: clusters that need a look.
//!
//! A cluster stands here once, however often it needs a look, so this never outgrows the clusters. Nothing is lost, and
//! whoever adds one waits for no longer than the thread takes to read the list.

use crate::cluster::{Admission, HealthWatcher};
use crate::net::tls::BackendTls;
use mio::Waker;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Below this number of clusters no purge is worth its walk.
const MIN_PURGE: usize = 256;

/// The inbox of the thread that probes.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    waker: Waker,
}

#[derive(Debug)]
struct State {
    /// Every cluster that needed a look once, by the address of its admission, and whether it needs one now.
    clusters: HashMap<usize, (Weak<Admission>, bool)>,
    to_see: Vec<usize>,
    purge_at: usize,
    tls: Option<BackendTls>,
    has_new_tls: bool,
    is_stopped: bool,
}

impl Inbox {
    /// An empty one, whose owner's poll `waker` ends.
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

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("waking the thread of health probes: {error}");
        }
    }

    /// The clusters that need a look.
    pub(super) fn take(&self) -> Vec<Weak<Admission>> {
        let State { clusters, to_see, .. } = &mut *self.state();
        let mut seen = |id: usize| {
            let (admission, is_to_see) = clusters.get_mut(&id)?;
            *is_to_see = false;
            Some(Weak::clone(admission))
        };
        std::mem::take(to_see).into_iter().filter_map(&mut seen).collect()
    }

    /// Has all known clusters looked at again.
    pub(super) fn renew(&self) {
        let State { clusters, to_see, has_new_tls, tls, .. } = &mut *self.state();
        *to_see = clusters.keys().copied().collect();
        clusters.values_mut().for_each(|(_, is_to_see)| *is_to_see = true);
        *has_new_tls = tls.is_some();
    }

    /// How backends are talked to over TLS from now on, where that is new.
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
        // The address belongs to nothing else for as long as the `Weak` is here.
        let id = Arc::as_ptr(admission) as usize;
        let (_, is_to_see) = clusters.entry(id).or_insert_with(|| (Arc::downgrade(admission), false));
        if !std::mem::replace(is_to_see, true) {
            to_see.push(id);
            self.wake();
        }
    }
}
