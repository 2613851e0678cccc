//! From root to somebody who may do less.

use crate::config::Settings;
use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, setgid, setgroups, setuid};
use std::fmt;

/// Why the account could not be taken on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no such user.
    NoUser(String),
    /// There is no such group.
    NoGroup(String),
    /// The system refused.
    Refused(&'static str, Errno),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUser(name) => {
                write!(f, "user: there is no user {name} here; name one that exists, or root to stay root")
            }
            Self::NoGroup(name) => write!(f, "group: there is no group {name} here; name one that exists"),
            Self::Refused(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

/// Takes on `user` and `group`, for good. Does nothing where none is set.
pub(super) fn drop(settings: &Settings) -> Result<(), Fault> {
    let user = settings.user.as_deref().map(find_user).transpose()?;
    let group = settings.group.as_deref().map(find_group).transpose()?;
    let gid = group.or(user.map(|(_, gid)| gid));
    let refused = |what| move |error| Fault::Refused(what, error);
    if let Some(gid) = gid {
        // Root's other groups would stay behind.
        setgroups(&[gid]).map_err(refused("giving up groups"))?;
        setgid(gid).map_err(refused("taking on the group"))?;
    }
    if let Some((uid, _)) = user {
        setuid(uid).map_err(refused("taking on the user"))?;
        let may_go_back = !uid.is_root() && setuid(Uid::from_raw(0)).is_ok();
        assert!(!may_go_back, "root's rights were given up, and are still there");
    }
    Ok(())
}

/// The user of this name or number, and its own group.
fn find_user(name: &str) -> Result<(Uid, Gid), Fault> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    let user = found.map_err(|error| Fault::Refused("looking up the user", error))?;
    user.map(|user| (user.uid, user.gid)).ok_or_else(|| Fault::NoUser(name.to_owned()))
}

fn find_group(name: &str) -> Result<Gid, Fault> {
    let found = match name.parse() {
        Ok(number) => Group::from_gid(Gid::from_raw(number)),
        Err(_) => Group::from_name(name),
    };
    let group = found.map_err(|error| Fault::Refused("looking up the group", error))?;
    group.map(|group| group.gid).ok_or_else(|| Fault::NoGroup(name.to_owned()))
}
