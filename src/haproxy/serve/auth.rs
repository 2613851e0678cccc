//! `Authorization: Basic` (RFC 7617) with user lists.

use crate::base::base64;
use crate::haproxy::model::{UserCredential, Userlist};

/// The greatest length of user and password together, in bytes.
const LONGEST: usize = 256;

/// The user and the password of a request.
#[derive(Debug)]
pub(super) struct Login<'a> {
    text: &'a str,
    colon: usize,
}

impl<'a> Login<'a> {
    /// Parses the value of `Authorization`. `room` is the buffer for the decoded login.
    pub(super) fn read(value: &[u8], room: &'a mut Vec<u8>) -> Option<Self> {
        let encoded =
            value.get(6..).filter(|_| value.get(..6).is_some_and(|word| word.eq_ignore_ascii_case(b"basic ")))?;
        room.clear();
        base64::decode(encoded.trim_ascii(), room)?;
        let text = std::str::from_utf8(room).ok().filter(|text| text.len() <= LONGEST)?;
        Some(Self { text, colon: text.find(':')? })
    }

    pub(super) fn user(&self) -> &str {
        self.text.get(..self.colon).unwrap_or_default()
    }

    fn password(&self) -> &str {
        self.text.get(self.colon + 1..).unwrap_or_default()
    }
}

impl Login<'_> {
    /// Whether user and password match.
    pub(super) fn is(&self, user: &str, password: &str) -> bool {
        self.user() == user && is_equal(self.password().as_bytes(), password.as_bytes())
    }
}

impl Userlist {
    /// The user of a login, if the password is correct. Passwords are in the clear: hashed ones are refused when a
    /// configuration is lowered.
    pub(super) fn user(&self, login: &Login<'_>) -> Option<&UserCredential> {
        let user = self.users.iter().find(|user| user.name == login.user())?;
        let password = user.password.as_ref().filter(|_| user.is_clear)?;
        is_equal(password.as_bytes(), login.password().as_bytes()).then_some(user)
    }

    /// The groups of a user.
    pub(super) fn groups_of<'a>(&'a self, user: &'a UserCredential) -> impl Iterator<Item = &'a str> {
        let named = self.groups.iter().filter(|(_, users)| users.contains(&user.name)).map(|(group, _)| group);
        user.groups.iter().chain(named).map(String::as_str)
    }
}

/// A comparison in constant time.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_read() {
        let table = [
            ("Basic dXNlcjpwYXNz", Some(("user", "pass"))),
            ("basic dTo=", Some(("u", ""))),
            ("Basic dTphOmI=", Some(("u", "a:b"))),
            ("Basic dQ==", None),
            ("Basic d*==", None),
            ("Bearer x", None),
            ("", None),
        ];
        for (value, expected) in table {
            let mut room = Vec::new();
            let login = Login::read(value.as_bytes(), &mut room);
            assert_eq!(login.as_ref().map(|login| (login.user(), login.password())), expected, "{value}");
        }
    }

    #[test]
    fn a_user_needs_the_right_password() {
        let user = |name: &str, groups: &[&str]| UserCredential {
            name: name.into(),
            password: Some("pass".into()),
            is_clear: true,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        };
        let list = Userlist {
            name: "l".into(),
            users: vec![user("user", &["a"]), user("other", &[])],
            groups: vec![("b".into(), vec!["user".into()])],
        };
        let mut room = Vec::new();
        let login = Login::read(b"Basic dXNlcjpwYXNz", &mut room).expect("a login");
        let found = list.user(&login).expect("the user");
        assert_eq!(list.groups_of(found).collect::<Vec<_>>(), ["a", "b"]);
        let mut room = Vec::new();
        let login = Login::read(b"Basic dXNlcjpwYXN6", &mut room).expect("a login");
        assert!(list.user(&login).is_none());
    }
}
