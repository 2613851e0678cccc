//! The mailboxes of the cores. Cores come and go while the process runs: one that is replaced still wants its answers
//! when its successor has long begun to ask.

use super::News;
use crate::base::clock::Moment;
use crate::net::mailbox::Post;
use std::sync::{Arc, PoisonError, RwLock};

/// A core, to the directory. Given again when a core has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreId(pub(super) usize);

/// The cores that are there. The lock is the threads' of the directory and the supervisor's: no core waits for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Cores(Arc<RwLock<Members>>);

#[derive(Debug, Default)]
struct Members {
    posts: Vec<Option<Post<News>>>,
    /// What all were told last of the active health checker: the one news that nobody asks for.
    checker_until: Option<Moment>,
}

impl Cores {
    pub(super) fn join(&self, post: Post<News>) -> CoreId {
        let mut members = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = members.checker_until {
            post.send(News::Checker { until });
        }
        let free = members.posts.iter().position(Option::is_none);
        let place = free.unwrap_or(members.posts.len());
        match free {
            Some(place) => members.posts[place] = Some(post),
            None => members.posts.push(Some(post)),
        }
        CoreId(place)
    }

    pub(super) fn leave(&self, core: CoreId) {
        let mut members = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(post) = members.posts.get_mut(core.0) {
            *post = None;
        }
    }

    /// Tells one core. One that has left needs no answer any more.
    pub(super) fn tell(&self, core: CoreId, news: News) {
        let members = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(post)) = members.posts.get(core.0) {
            post.send(news);
        }
    }

    pub(super) fn tell_all(&self, news: &News) {
        if let News::Checker { until } = news {
            self.0.write().unwrap_or_else(PoisonError::into_inner).checker_until = Some(*until);
        }
        let members = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // Where there was no room, the core learns of it and asks anew.
        members.posts.iter().flatten().for_each(|post| _ = post.send(news.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::mailbox::{Inbox, mailbox};
    use mio::{Poll, Token, Waker};

    fn core() -> (Poll, Post<News>, Inbox<News>) {
        let poll = Poll::new().expect("a poll");
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
        let (post, inbox) = mailbox(8, waker);
        (poll, post, inbox)
    }

    #[test]
    fn a_successor_is_told_beside_who_leaves_and_knows_of_the_checker() {
        let cores = Cores::default();
        let [first, second, third] = [(); 3].map(|()| core());
        let old = cores.join(first.1);
        let until = Moment::from_micros(7);
        cores.tell_all(&News::Checker { until });
        let new = cores.join(second.1);
        assert_ne!(old, new);
        for inbox in [&first.2, &second.2] {
            assert!(matches!(inbox.receive(), Some(News::Checker { until: told }) if told == until));
            assert!(inbox.receive().is_none());
        }
        cores.tell_all(&News::Changed { hosts: Arc::new([]), unknowns: true });
        assert!(first.2.receive().is_some() && second.2.receive().is_some());
        cores.leave(old);
        cores.tell(old, News::Checker { until });
        assert!(first.2.receive().is_none());
        assert_eq!(cores.join(third.1), old, "an identity is given again");
    }
}
