//! Judgement of members by requests and by probes: kept here for all cores and for the probe thread.
//!
//! A member serves only if it has no obstacle: it is in the list and not disabled, probes do not find it down, it is
//! not ejected, and no mark of the host excludes it. Only the probe thread gives verdicts ([`Cluster::set_up`],
//! [`Cluster::set_down`]); cores notify it of members to examine.

use super::admission::Admission;
use super::cluster::Cluster;
use super::member::{Member, MemberState};
use super::recent_failures::RecentFailures;
use super::route::Mark;
use crate::base::clock::Moment;
use crate::health::{Cause, HealthMode, Outcome, Outlier, ProbeFault, is_panic};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// The greatest number of marks of one member that a good probe ends. Further ones end by time alone.
const MAX_MARKS: usize = 4096;

/// The interface of the probe thread for clusters.
pub trait HealthWatcher: Debug + Send + Sync {
    /// Makes the thread examine a cluster: its list or options are new, or the [`MemberHealth`] of a member is. It
    /// never blocks for long.
    fn look_at(&self, admission: &Arc<Admission>);
}

/// Details of a member's health, besides whether it serves. Members without trouble and without rules have none.
#[derive(Debug, Default)]
pub struct MemberHealth {
    outlier: Outlier,
    /// A request has failed, and probes have not judged the member yet.
    is_suspect: AtomicBool,
    /// It is disabled because it was down (`health.stickyOffline`).
    is_kept_disabled: AtomicBool,
    /// Why probes find it down.
    fault: AtomicU32,
    /// Marks made since probes last found it good, with their hosts.
    marks: Mutex<Vec<(Box<str>, Weak<Mark>)>>,
}

impl MemberHealth {
    /// Whether a request has failed, and probes have not judged the member yet.
    pub fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::SeqCst)
    }

    /// The end and the cause of its ejection; `None` if it is not ejected. It serves all the same if too few other
    /// members do.
    pub fn ejection(&self, now: Moment) -> Option<(Moment, Cause)> {
        self.outlier.ejection(now)
    }

    /// Whether it is disabled because it was down, and not by an operator (`health.stickyOffline`).
    pub fn is_kept_disabled(&self) -> bool {
        self.is_kept_disabled.load(Ordering::Relaxed)
    }

    pub(super) fn set_kept_disabled(&self, is_kept: bool) {
        self.is_kept_disabled.store(is_kept, Ordering::Relaxed);
    }

    /// Why probes find the member down.
    pub fn fault(&self) -> Option<ProbeFault> {
        ProbeFault::from_code(self.fault.load(Ordering::Relaxed))
    }

    fn note_mark(&self, host: &str, mark: &Arc<Mark>) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = marks.iter().any(|(_, known)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(mark)));
        if marks.len() >= MAX_MARKS {
            marks.retain(|(_, mark)| mark.strong_count() > 0);
        }
        if !is_known && marks.len() < MAX_MARKS {
            marks.push((host.into(), Arc::downgrade(mark)));
        }
    }

    /// Ends the marks made by this node. Returns their hosts.
    fn end_marks(&self, now: Moment) -> Vec<Box<str>> {
        let marks = std::mem::take(&mut *self.marks.lock().unwrap_or_else(PoisonError::into_inner));
        let end = |(host, mark): (Box<str>, Weak<Mark>)| {
            let mark = mark.upgrade()?;
            let was_dead = mark.dead_until(now).is_some();
            mark.mark_dead(Moment::ZERO);
            mark.note_good();
            was_dead.then_some(host)
        };
        marks.into_iter().filter_map(end).collect()
    }
}

impl Cluster {
    /// Whether outcomes of requests are used to judge its members: it has a monitor, or outlier detection.
    pub fn judges_requests(&self) -> bool {
        self.judges_requests
    }

    /// Judges the member at `place` by the outcome of a request. Returns whether that ejects it.
    pub fn judge_outcome(&self, place: usize, outcome: Outcome, now: Moment) -> bool {
        let rules = self.options.health.rules();
        let Some(member) = self.members.get(place).filter(|_| rules.are_on()) else { return false };
        let is_ejected = member.state.health().outlier.note(outcome, rules, now).is_some();
        if is_ejected {
            self.admission.update_ejections(now);
            self.serve(now);
            self.admission.report();
        }
        is_ejected
    }

    /// Requests a probe of the member at `place`, if there is a monitor, because a request failed there. A mark made
    /// for this host ends when probes find the member good.
    pub fn suspect(&self, place: usize, mark: Option<(&str, &Arc<Mark>)>) {
        let Some(member) = self.members.get(place).filter(|_| self.options.health.mode != HealthMode::Off) else {
            return;
        };
        let health = member.state.health();
        if let Some((host, mark)) = mark {
            health.note_mark(host, mark);
        }
        if !health.is_suspect.swap(true, Ordering::SeqCst) {
            self.admission.report();
        }
    }

    /// Records that probes find a member down.
    pub fn set_down(&self, state: &MemberState, fault: ProbeFault, now: Moment) {
        let health = state.health();
        health.fault.store(fault.code(), Ordering::Relaxed);
        health.is_suspect.store(false, Ordering::SeqCst);
        state.set_down(true, now);
        self.admission.update_ejections(now);
        self.serve(now);
    }

    /// Records that probes find a member good: it serves from now on, or is disabled until an operator enables it. The
    /// marks of this node end, and waiting requests get its slots. Returns the hosts that had a mark.
    pub fn set_up(&self, state: &MemberState, stays_disabled: bool, now: Moment) -> Vec<Box<str>> {
        if stays_disabled {
            state.set_disabled(true, now);
            state.health().set_kept_disabled(true);
        }
        let hosts = state.known_health().map_or_else(Vec::new, |health| {
            health.is_suspect.store(false, Ordering::SeqCst);
            health.end_marks(now)
        });
        state.set_down(false, now);
        self.admission.update_ejections(now);
        self.serve(now);
        hosts
    }

    /// Stops the probes of a member and clears their verdict. Returns whether it was down.
    pub fn unwatch(&self, state: &MemberState, now: Moment) -> bool {
        if let Some(health) = state.known_health() {
            health.is_suspect.store(false, Ordering::SeqCst);
        }
        let was_down = state.is_down();
        if was_down {
            state.set_down(false, now);
            self.admission.update_ejections(now);
            self.serve(now);
        }
        was_down
    }

    /// Passes this cluster and its later lists to the probe thread.
    pub fn set_watcher(&self, watcher: &Arc<dyn HealthWatcher>) {
        if self.admission.judgement.watcher.set(Arc::clone(watcher)).is_ok() {
            self.report_edit();
        }
    }

    /// Declares that all nodes with the same source have this cluster: one of them probes its members.
    pub fn set_shared(&self) {
        self.admission.judgement.is_shared.store(true, Ordering::Relaxed);
    }

    /// Whether all nodes with the same source have this cluster.
    pub fn is_shared(&self) -> bool {
        self.admission.judgement.is_shared.load(Ordering::Relaxed)
    }

    /// Reports a new list, if this or an earlier one is watched: a member that was away for a moment keeps its verdict.
    pub(super) fn report_edit(&self) {
        let judgement = &self.admission.judgement;
        let is_on = self.options.health.is_on();
        if judgement.watcher.get().is_some() && (judgement.is_watched.fetch_or(is_on, Ordering::SeqCst) || is_on) {
            self.admission.report();
        }
    }
}

/// The part of an admission that judges members.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    watcher: OnceLock<Arc<dyn HealthWatcher>>,
    is_watched: AtomicBool,
    is_shared: AtomicBool,
    failures: RecentFailures,
}

impl Admission {
    /// The last failed requests.
    pub fn failures(&self) -> &RecentFailures {
        &self.judgement.failures
    }

    fn report(self: &Arc<Self>) {
        if let Some(watcher) = self.judgement.watcher.get() {
            watcher.look_at(self);
        }
    }

    /// Takes ejected members out of service, and returns those whose ejection is over. While too few others serve
    /// (`health.panicPercent`), all ejected members serve.
    pub fn update_ejections(&self, now: Moment) {
        // Two cores at once could undo each other's work.
        self.with_newest(|cluster| {
            let is_in_list = |member: &&Member| !(member.attributes.is_disabled || member.state.is_disabled());
            let members = || cluster.members.iter().filter(is_in_list);
            let usable = members().filter(|member| !member.state.is_down() && !has_ejection(member, now)).count();
            let panics = is_panic(usable, members().count(), cluster.options.health.panic_percent);
            for member in &cluster.members {
                let is_over = !has_ejection(member, now);
                member.state.set_ejected(!is_over && !panics, is_over, now);
            }
        });
    }

    /// Ends all ejections, because the rules were removed.
    pub fn pardon(&self, now: Moment) {
        if let Some(cluster) = self.newest() {
            let healths = cluster.members.iter().filter_map(|member| member.state.known_health());
            healths.for_each(|health| health.outlier.pardon());
        }
        self.update_ejections(now);
    }
}

fn has_ejection(member: &Member, now: Moment) -> bool {
    member.state.known_health().is_some_and(|health| health.ejection(now).is_some())
}
