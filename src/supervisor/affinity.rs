//! Which worker runs on which processor.

use crate::config::Settings;
use core_affinity::CoreId;
use std::fmt;

/// Where a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On this processor and no other.
    Pinned(usize),
    /// Where the system puts it.
    Anywhere,
}

impl Place {
    /// Moves the calling thread there.
    pub(super) fn take(self) {
        if let Self::Pinned(id) = self
            && !core_affinity::set_for_current(CoreId { id })
        {
            log::warn!("a worker could not be pinned to processor {id}; it runs where the system puts it");
        }
    }
}

/// Processors were asked for that this process may not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    missing: Vec<usize>,
    usable: Vec<usize>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { missing, usable } = self;
        write!(f, "server.cpus: processors {missing:?} are not there for this process; it may use {usable:?}")
    }
}

/// A place for each worker: as many as `server.workers` says, else one a processor.
pub(super) fn choose(settings: &Settings) -> Result<Vec<Place>, Fault> {
    let usable: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    plan(settings.workers, settings.cpus.as_deref(), settings.pin, usable)
}

fn plan(workers: Option<usize>, cpus: Option<&[usize]>, pin: bool, usable: Vec<usize>) -> Result<Vec<Place>, Fault> {
    let cpus = cpus.unwrap_or(&usable);
    let missing: Vec<usize> = cpus.iter().copied().filter(|cpu| !usable.contains(cpu)).collect();
    if !missing.is_empty() {
        return Err(Fault { missing, usable });
    }
    let workers = workers.unwrap_or(cpus.len()).max(1);
    let place = |number: usize| match cpus.get(number % cpus.len().max(1)) {
        Some(cpu) if pin => Place::Pinned(*cpu),
        _ => Place::Anywhere,
    };
    Ok((0..workers).map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        use Place::{Anywhere, Pinned};
        let plan = |workers, cpus, pin| plan(workers, cpus, pin, vec![0, 1, 3]);
        assert_eq!(plan(None, None, true), Ok(vec![Pinned(0), Pinned(1), Pinned(3)]));
        assert_eq!(plan(Some(2), None, true), Ok(vec![Pinned(0), Pinned(1)]));
        assert_eq!(plan(Some(3), Some(&[3, 0]), true), Ok(vec![Pinned(3), Pinned(0), Pinned(3)]));
        assert_eq!(plan(None, Some(&[3, 0]), false), Ok(vec![Anywhere, Anywhere]));
        let fault = Fault { missing: vec![2, 9], usable: vec![0, 1, 3] };
        assert_eq!(plan(None, Some(&[2, 3, 9]), true), Err(fault));
    }
}
