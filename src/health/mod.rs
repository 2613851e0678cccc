//! Judgement of backends: by their responses, and by probes. Pure.

mod monitor;
mod monitor_settings;
mod outlier;
mod passive;

pub use monitor::{Monitor, State, Verdict};
pub use monitor_settings::{HealthMode, MonitorSettings, ProbeMethod, StatusSet};
pub use outlier::{Outcome, Outlier, Rules, is_panic};
pub use passive::{CLOSED_IN_A_ROW, Observation, Settings, is_dead};
