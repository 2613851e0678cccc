//! The switch from root to an account with fewer rights.

use crate::access_log::Target;
use crate::config::Settings;
use nix::errno::Errno;
use nix::unistd::{
    AccessFlags, Gid, Group, Uid, User, access, chown, getgroups, getresgid, getresuid, setgid, setgroups, setuid,
};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::fchown;
use std::path::Path;

/// Why the switch to the account failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The user does not exist.
    NoUser(String),
    /// The group does not exist.
    NoGroup(String),
    /// The system refused.
    Refused(&'static str, Errno),
    /// The system call succeeded but had no effect.
    Kept(&'static str, String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUser(name) => {
                write!(f, "user: there is no user {name} here; name one that exists, or root to stay root")
            }
            Self::NoGroup(name) => write!(f, "group: there is no group {name} here; name one that exists"),
            Self::Refused(what, error) => write!(f, "{what}: {error}"),
            Self::Kept(what, found) => {
                write!(f, "dropping root's rights failed: this process still has {what} {found}; not serving with them")
            }
        }
    }
}

/// The user and group without rights, which need no entry in a file (the kernel's overflow id).
const NOBODY: u32 = 65_534;

/// The account to switch to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    pub(super) user: Option<Uid>,
    pub(super) group: Option<Gid>,
}

impl Account {
    /// Looks up `user` and `group`. Without a group, the user's own group is used.
    pub(super) fn find(settings: &Settings) -> Result<Self, Fault> {
        let mut user = settings.user.as_deref().map(find_user).transpose();
        let mut group = settings.group.as_deref().map(find_group).transpose();
        if settings.has_default_user && (user.is_err() || group.is_err()) {
            // Small container images have no account but root.
            log::info!(
                "there is no user www-data here: running as user and group {NOBODY} (the setting user names another)"
            );
            user = Ok(Some((Uid::from_raw(NOBODY), Gid::from_raw(NOBODY))));
            group = Ok(Some(Gid::from_raw(NOBODY)));
        }
        let (user, group) = (user?, group?);
        Ok(Self { user: user.map(|(uid, _)| uid), group: group.or(user.map(|(_, gid)| gid)) })
    }

    /// Switches to this account for good, and verifies that no rights are left. Does nothing if no account is set.
    pub(super) fn take_on(self) -> Result<(), Fault> {
        let refused = |what| move |error| Fault::Refused(what, error);
        if let Some(gid) = self.group {
            // Root's supplementary groups would stay.
            setgroups(&[gid]).map_err(refused("dropping groups"))?;
            setgid(gid).map_err(refused("switching the group"))?;
        }
        if let Some(uid) = self.user {
            setuid(uid).map_err(refused("switching the user"))?;
        }
        self.verify()
    }

    /// Gives the access log to this account, so that it can be reopened at SIGUSR1.
    pub(super) fn own_log(self, log: Option<&File>) -> io::Result<()> {
        match log {
            Some(file) if file.metadata()?.is_file() => {
                fchown(file, self.user.map(Into::into), self.group.map(Into::into))
            }
            _ => Ok(()),
        }
    }

    /// Gives a UNIX socket to `owner` (`USER`, `USER:GROUP` or `:GROUP`), or to this account if no owner is set.
    pub(super) fn own_socket(self, path: &Path, owner: Option<&str>) -> Result<(), Fault> {
        let (user, group) = match owner.map(|owner| owner.split_once(':').unwrap_or((owner, ""))) {
            None => (self.user, self.group),
            Some((user, group)) => {
                let found = (!user.is_empty()).then(|| find_user(user)).transpose()?;
                let group = (!group.is_empty()).then(|| find_group(group)).transpose()?;
                (found.map(|(uid, _)| uid), group.or(found.map(|(_, gid)| gid)))
            }
        };
        chown(path, user, group).map_err(|error| Fault::Refused("giving the socket of admin.bind to its owner", error))
    }

    fn verify(self) -> Result<(), Fault> {
        let refused = |error| Fault::Refused("asking for this process's account", error);
        if let Some(gid) = self.group {
            let now = getresgid().map_err(refused)?;
            if [now.real, now.effective, now.saved] != [gid; 3] {
                return Err(Fault::Kept("the groups", format!("{now:?}")));
            }
            let others = getgroups().map_err(refused)?;
            if others.iter().any(|other| *other != gid) {
                return Err(Fault::Kept("the groups", format!("{others:?}")));
            }
        }
        let Some(uid) = self.user else { return Ok(()) };
        let now = getresuid().map_err(refused)?;
        if [now.real, now.effective, now.saved] != [uid; 3] {
            return Err(Fault::Kept("the users", format!("{now:?}")));
        }
        if uid.is_root() {
            return Ok(());
        }
        // Securebits can keep capabilities when the user changes (capabilities(7)).
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap_or_default().trim();
        if capabilities.bytes().any(|digit| digit != b'0') {
            return Err(Fault::Kept("the capabilities", capabilities.to_owned()));
        }
        if setuid(Uid::from_raw(0)).is_ok() {
            return Err(Fault::Kept("the way back", "to root".to_owned()));
        }
        Ok(())
    }
}

/// After the switch, warns if the account cannot recreate the access log after a rotation.
pub(super) fn warn_of_log_folder(target: &Target) {
    let Target::File(path) = target else { return };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        let user = User::from_uid(Uid::effective()).ok().flatten();
        let user = user.map_or_else(|| Uid::effective().to_string(), |user| user.name);
        log::warn!(
            "server.accessLog: the user {user} cannot make files in {}: have logrotate make the new one (create 0640 {user}) \
             before it sends SIGUSR1",
            folder.display()
        );
    }
}

/// The user with this name or number, and its group.
fn find_user(name: &str) -> Result<(Uid, Gid), Fault> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    let user = unless_absent(found).map_err(|error| Fault::Refused("looking up the user", error))?;
    let by_number = || number_of(name).map(|id| (Uid::from_raw(id), Gid::from_raw(id)));
    user.map(|user| (user.uid, user.gid)).or_else(by_number).ok_or_else(|| Fault::NoUser(name.to_owned()))
}

/// An account without an entry. Where there is no passwd file at all, as below a chroot, the C library reports one of
/// these errors (getpwnam(3)).
fn unless_absent<T>(found: Result<Option<T>, Errno>) -> Result<Option<T>, Errno> {
    match found {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        found => found,
    }
}

/// The number of an account that needs no passwd entry, which small containers do not have.
fn number_of(name: &str) -> Option<u32> {
    if name == "root" { Some(0) } else { name.parse().ok() }
}

fn find_group(name: &str) -> Result<Gid, Fault> {
    let found = match name.parse() {
        Ok(number) => Group::from_gid(Gid::from_raw(number)),
        Err(_) => Group::from_name(name),
    };
    let group = unless_absent(found).map_err(|error| Fault::Refused("looking up the group", error))?;
    let by_number = || number_of(name).map(Gid::from_raw);
    group.map(|group| group.gid).or_else(by_number).ok_or_else(|| Fault::NoGroup(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{getgid, getuid};

    #[test]
    fn a_number_needs_no_entry() {
        assert_eq!(find_user("4199999999"), Ok((Uid::from_raw(4_199_999_999), Gid::from_raw(4_199_999_999))));
        assert_eq!(find_group("4199999999"), Ok(Gid::from_raw(4_199_999_999)));
        assert_eq!(find_user("no such user"), Err(Fault::NoUser("no such user".into())));
        assert_eq!(find_group("no such group"), Err(Fault::NoGroup("no such group".into())));
        assert_eq!((number_of("root"), number_of("0"), number_of("www-data")), (Some(0), Some(0), None));
    }

    #[test]
    fn a_system_without_accounts_has_no_entry() {
        assert_eq!(unless_absent::<()>(Err(Errno::ENOENT)), Ok(None));
        assert_eq!(unless_absent::<()>(Err(Errno::EIO)), Err(Errno::EIO));
    }

    #[test]
    fn what_was_not_given_up_is_found() {
        let (uid, gid) = (getuid(), getgid());
        let [other_uid, other_gid] = [uid.as_raw() + 1, gid.as_raw() + 1];
        let user = Account { user: Some(Uid::from_raw(other_uid)), group: None };
        assert!(matches!(user.verify(), Err(Fault::Kept("the users", _))));
        let group = Account { user: None, group: Some(Gid::from_raw(other_gid)) };
        assert!(matches!(group.verify(), Err(Fault::Kept("the groups", _))));
        assert_eq!(Account::default().verify(), Ok(()));
    }
}
