//! The choice of the server to read from: the first driver, or the last one while the first is a replica without its
//! master or is unreachable.

use super::Stop;
use super::connect::{self, Role};
use super::connection::Connection;
use super::target::Target;
use redis::{ProtocolVersion, RedisResult};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The interval of checks of the two servers.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The servers that can be read from, shared by all reading threads.
#[derive(Clone, Debug)]
pub(super) struct Sources(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    first: Target,
    /// The last driver, if it is another one.
    last: Option<Target>,
    uses_last: AtomicBool,
}

impl Sources {
    pub(super) fn new(read: &Target, write: &Target) -> Self {
        let last = (read != write).then(|| write.clone());
        Self(Arc::new(Inner { first: read.clone(), last, uses_last: AtomicBool::new(false) }))
    }

    /// Whether the last driver is read from.
    pub(super) fn uses_last(&self) -> bool {
        self.0.uses_last.load(Ordering::Relaxed)
    }

    /// The server to read from now.
    pub(super) fn current(&self) -> &Target {
        self.get(self.uses_last())
    }

    /// The server of the last driver or of the first.
    pub(super) fn get(&self, last: bool) -> &Target {
        self.0.last.as_ref().filter(|_| last).unwrap_or(&self.0.first)
    }

    /// Whether there is more than one.
    pub(super) fn has_last(&self) -> bool {
        self.0.last.is_some()
    }

    /// The loop of the choosing thread. It must not be started with a single server.
    pub(super) fn choose(self, stop: &Stop) {
        let (mut first, mut last, mut was_stale) = (None, None, false);
        loop {
            let problem = problem_of(&self.0.first, &mut first);
            // One failure is ignored: a master that was restarted is back in a moment.
            let is_stale = problem.is_some() && was_stale;
            was_stale = problem.is_some();
            let uses_last = is_stale && problem_of(self.get(true), &mut last).is_none();
            if self.0.uses_last.swap(uses_last, Ordering::Relaxed) != uses_last {
                match problem {
                    Some(problem) => {
                        log::warn!("redis: {}: {problem}; reading from {}", self.0.first, self.get(true));
                    }
                    None => log::info!("redis: {} follows its master again; reading from it", self.0.first),
                }
            }
            if stop.wait(LOOK_EVERY) {
                return;
            }
        }
    }
}

/// Why a server must not be read from.
fn problem_of(target: &Target, connection: &mut Option<Connection>) -> Option<String> {
    for _ in 0..=usize::from(connection.is_some()) {
        match role_of(target, connection) {
            Ok(Role::Replica { is_linked: false, .. }) => return Some(connect::LOST_MASTER.to_owned()),
            // A server that may not be queried counts as good.
            Ok(_) => return None,
            // An idle connection may be closed.
            Err(_) if connection.take().is_some() => {}
            Err(error) => return Some(error.to_string()),
        }
    }
    None
}

fn role_of(target: &Target, connection: &mut Option<Connection>) -> RedisResult<Role> {
    let open = match connection {
        Some(open) => open,
        None => {
            let server = connect::find(target)?;
            connection.insert(connect::open(target, &server, ProtocolVersion::RESP2)?)
        }
    };
    connect::role(open)
}
