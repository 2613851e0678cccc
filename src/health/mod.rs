//! Judgement of backends, by their responses and by health probes. Pure.

mod monitor;
mod monitor_settings;
mod outlier;
mod passive;
mod probe_fault;
mod sharing;

pub use monitor::{Monitor, Verdict};
pub use monitor_settings::{HealthMode, MonitorSettings, ProbeMethod, StatusSet};
pub use outlier::{Cause, Outcome, Outlier, Rules, is_panic};
pub use passive::{CLOSED_IN_A_ROW, Observation, Settings, is_dead};
pub use probe_fault::ProbeFault;
pub use sharing::{ProbeNews, ProbeOutcome, ProbeSharing, Question, Reading, SharedProbe, SharingWrite};
