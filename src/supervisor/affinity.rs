//! The number of workers, and the processor of each.

use super::cgroup;
use crate::config::{CpuList, Settings};
use core_affinity::CoreId;
use std::fmt;
use std::fs;
use std::thread;

/// Processors that the scheduler reserves for programs that name them (`isolcpus=`).
const ISOLATED: &str = "/sys/devices/system/cpu/isolated";

/// The processor of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CpuPlacement {
    /// This processor only.
    Pinned(usize),
    /// Any processor: the system chooses.
    Anywhere,
}

impl CpuPlacement {
    /// Moves the calling thread to this processor.
    pub(super) fn take(self) {
        if let Self::Pinned(id) = self
            && !core_affinity::set_for_current(CoreId { id })
        {
            log::warn!("a worker could not be pinned to processor {id}; it runs where the system puts it");
        }
    }
}

/// The configured processors are not available to this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    missing: Vec<usize>,
    usable: Vec<usize>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { missing, usable } = self;
        write!(
            f,
            "server.cpus: processors {missing:?} are not there for this process: offline, or not granted to it; it may \
             use {usable:?}"
        )
    }
}

/// A processor for each worker. The number of workers is `server.workers`, otherwise one for each processor, at most as
/// many as the quota of the control group allows.
pub(super) fn choose(settings: &Settings) -> Result<Vec<CpuPlacement>, Fault> {
    let machine = Machine::this();
    let wish = Wish { workers: settings.workers, cpus: settings.cpus.as_deref(), pin: settings.pin };
    if let (Some(quota), Some(workers)) = (machine.quota, machine.workers_by_quota(&wish)) {
        log::info!("the control group grants the time of {quota} processors: {workers} workers, and none is pinned");
    }
    plan(&wish, &machine)
}

/// The settings.
struct Wish<'a> {
    workers: Option<usize>,
    cpus: Option<&'a [usize]>,
    pin: bool,
}

/// The machine.
#[derive(Default)]
struct Machine {
    /// Processors on which the system would run this process: online, and allowed for it.
    usable: Vec<usize>,
    /// Processors that it may use only if it names them.
    isolated: Vec<usize>,
    /// The quota of processor time, in processors.
    quota: Option<f64>,
}

impl Machine {
    fn this() -> Self {
        let isolated = fs::read_to_string(ISOLATED).ok().and_then(|text| text.trim().parse().ok());
        let isolated = isolated.map(CpuList::into_vec).unwrap_or_default();
        Self {
            usable: core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect(),
            isolated: isolated.into_iter().filter(|cpu| may_use(*cpu)).collect(),
            quota: cgroup::cpu_quota(),
        }
    }

    /// Processors for workers without a configured one. Isolated processors are reserved for other work.
    fn ordinary(&self) -> Vec<usize> {
        let ordinary: Vec<_> = self.usable.iter().copied().filter(|cpu| !self.isolated.contains(cpu)).collect();
        if ordinary.is_empty() { self.usable.clone() } else { ordinary }
    }

    /// The number of workers, if the quota determines it: rounded up, so that the whole quota can be used.
    fn workers_by_quota(&self, wish: &Wish<'_>) -> Option<usize> {
        let ordinary = self.ordinary().len();
        let granted = (1..ordinary).find(|count| self.quota.is_some_and(|quota| quota <= *count as f64))?;
        (wish.workers.is_none() && wish.cpus.is_none()).then_some(granted)
    }
}

/// Whether a thread of this process can be put on a processor that the system does not choose by itself.
fn may_use(id: usize) -> bool {
    thread::spawn(move || core_affinity::set_for_current(CoreId { id })).join().unwrap_or(false)
}

fn plan(wish: &Wish<'_>, machine: &Machine) -> Result<Vec<CpuPlacement>, Fault> {
    if let Some(workers) = machine.workers_by_quota(wish) {
        // With a quota and no exclusive processors, the processes of one machine would all crowd on the first few
        // processors.
        return Ok(vec![CpuPlacement::Anywhere; workers]);
    }
    let ordinary = machine.ordinary();
    let cpus = wish.cpus.unwrap_or(&ordinary);
    let may_use = |cpu: &usize| machine.usable.contains(cpu) || machine.isolated.contains(cpu);
    let missing: Vec<usize> = cpus.iter().copied().filter(|cpu| !may_use(cpu)).collect();
    if !missing.is_empty() {
        return Err(Fault { missing, usable: machine.usable.clone() });
    }
    let workers = wish.workers.unwrap_or(cpus.len()).max(1);
    let place = |number: usize| match cpus.get(number % cpus.len().max(1)) {
        Some(cpu) if wish.pin => CpuPlacement::Pinned(*cpu),
        _ => CpuPlacement::Anywhere,
    };
    Ok((0..workers).map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use CpuPlacement::{Anywhere, Pinned};

    fn planned(
        workers: Option<usize>,
        cpus: Option<&[usize]>,
        pin: bool,
        machine: &Machine,
    ) -> Result<Vec<CpuPlacement>, Fault> {
        plan(&Wish { workers, cpus, pin }, machine)
    }

    #[test]
    fn places() {
        let machine = Machine { usable: vec![0, 1, 3], ..Machine::default() };
        let plan = |workers, cpus, pin| planned(workers, cpus, pin, &machine);
        assert_eq!(plan(None, None, true), Ok(vec![Pinned(0), Pinned(1), Pinned(3)]));
        assert_eq!(plan(Some(2), None, true), Ok(vec![Pinned(0), Pinned(1)]));
        assert_eq!(plan(Some(3), Some(&[3, 0]), true), Ok(vec![Pinned(3), Pinned(0), Pinned(3)]));
        assert_eq!(plan(None, Some(&[3, 0]), false), Ok(vec![Anywhere, Anywhere]));
        let fault = Fault { missing: vec![2, 9], usable: vec![0, 1, 3] };
        assert_eq!(plan(None, Some(&[2, 3, 9]), true), Err(fault));
    }

    #[test]
    fn isolated_processors_are_used_only_if_named() {
        let machine = Machine { usable: vec![0, 1, 2], isolated: vec![2, 3], quota: None };
        assert_eq!(planned(None, None, true, &machine), Ok(vec![Pinned(0), Pinned(1)]));
        assert_eq!(planned(None, Some(&[2, 3]), true, &machine), Ok(vec![Pinned(2), Pinned(3)]));
        let all_isolated = Machine { usable: vec![4], isolated: vec![4], quota: None };
        assert_eq!(planned(None, None, true, &all_isolated), Ok(vec![Pinned(4)]));
    }

    #[test]
    fn a_quota_sets_the_number_by_default() {
        let machine = |quota| Machine { usable: vec![0, 1, 2, 3], isolated: Vec::new(), quota: Some(quota) };
        for (quota, workers) in [(0.2, 1), (1.0, 1), (1.5, 2), (3.0, 3)] {
            assert_eq!(planned(None, None, true, &machine(quota)), Ok(vec![Anywhere; workers]), "{quota}");
        }
        for quota in [3.5, 4.0, 64.0] {
            assert_eq!(planned(None, None, true, &machine(quota)).map(|places| places.len()), Ok(4), "{quota}");
        }
        assert_eq!(planned(Some(3), None, true, &machine(1.0)), Ok(vec![Pinned(0), Pinned(1), Pinned(2)]));
        assert_eq!(planned(None, Some(&[1, 2]), true, &machine(1.0)), Ok(vec![Pinned(1), Pinned(2)]));
    }

    #[test]
    fn a_thread_can_be_put_where_the_process_may_run_and_nowhere_else() {
        let first = core_affinity::get_core_ids().expect("processors")[0].id;
        assert!(may_use(first));
        assert!(!may_use(1023), "no machine of tests has so many");
    }
}
