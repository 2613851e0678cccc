//! Hipache's policy: any living member, each as likely as the next.

use crate::base::clock::Moment;
use crate::cluster::{BackendId, Frontend, Member};
use std::sync::Arc;

/// Picks a member that has not been tried for this request: one of the living at random. When none is alive, the
/// member whose mark ends first: a mark of this node's own is an old guess, and to act on it when nothing else is left
/// can only help. A member that others have marked is never picked.
///
/// The answer is the member's place in the list.
pub fn pick(frontend: &Frontend, tried: &[BackendId], now: Moment, rng: &mut fastrand::Rng) -> Option<usize> {
    let may_serve = |(_, member): &(usize, &Arc<Member>)| {
        !member.is_removed() && !member.is_dead_external(now) && !tried.contains(&member.backend.id())
    };
    let members = || frontend.members.iter().enumerate().filter(may_serve);
    if frontend.members.len() == 1 {
        return members().next().map(|(place, _)| place);
    }
    let living = || members().filter(|(_, member)| member.dead_until(now).is_none());
    let chosen = match living().count() {
        0 => members().min_by_key(|(_, member)| member.dead_until(now)),
        // Another core may mark a member between the two walks; then any that is left serves.
        count => living().nth(rng.usize(..count)).or_else(|| members().next()),
    };
    chosen.map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Backend, BackendUrl};
    use std::time::Duration;

    fn frontend(members: usize) -> Frontend {
        let member = |id| {
            let url = BackendUrl::parse(&format!("http://10.0.0.{id}")).expect("a good URL");
            Arc::new(Member::new(Arc::new(Backend::new(BackendId(id), url))))
        };
        let members = (1..=members as u64).map(member).collect();
        Frontend { host: "a".into(), pattern: "a".into(), id: "x".into(), members, options: Default::default() }
    }

    #[test]
    fn the_living_share_evenly_and_the_dead_get_nothing() {
        let frontend = frontend(4);
        let now = Moment::ZERO;
        frontend.members[2].mark_dead(now + Duration::from_secs(1));
        let mut rng = fastrand::Rng::with_seed(1);
        let mut counts = [0; 4];
        for _ in 0..30_000 {
            let picked = pick(&frontend, &[], now, &mut rng).expect("somebody is alive");
            counts[picked] += 1;
        }
        assert_eq!(counts[2], 0);
        for place in [0, 1, 3] {
            assert!((9_500..10_500).contains(&counts[place]), "{counts:?}");
        }
    }

    #[test]
    fn the_tried_and_the_retired_are_left_out_and_the_dead_come_last() {
        let frontend = frontend(3);
        let now = Moment::ZERO;
        let mut rng = fastrand::Rng::with_seed(1);
        let mut pick = |tried: &[u64]| {
            let tried: Vec<_> = tried.iter().map(|id| BackendId(*id)).collect();
            pick(&frontend, &tried, now, &mut rng).map(|place| place + 1)
        };
        frontend.members[0].mark_dead(now + Duration::from_secs(2));
        frontend.members[1].mark_dead(now + Duration::from_secs(1));
        assert_eq!(pick(&[]), Some(3));
        assert_eq!(pick(&[3]), Some(2), "the mark that ends first");
        assert_eq!(pick(&[3, 2]), Some(1));
        assert_eq!(pick(&[3, 2, 1]), None);
        frontend.members[1].mark_removed();
        assert_eq!(pick(&[3]), Some(1));
    }
}
