//! Random changes to the answers of the table, without a socket: does a client ever get two answers to one request, or one
//! that is not whole where nobody says so; and is it another one when it comes byte by byte?
//!
//! `WIRE_MUTATIONS=1000000 cargo test --test wire answer_mutations` looks for longer, `WIRE_SEED=7` plays one change again.

use crate::machine::{Stage, messages};
use crate::mutations::{mutated, seeds};
use crate::table::{RESPONSES, To};
use crate::text;
use fastrand::Rng;
use sluice::exchange::{Input, Side};

#[test]
fn changed_responses_have_one_reading() {
    for to in [To::Get, To::Head, To::Old] {
        let rows: Vec<&str> = RESPONSES.iter().flat_map(|class| class.rows).map(|row| row.1).collect();
        for seed in seeds(4) {
            let bytes = mutated(&rows, &mut Rng::with_seed(seed));
            let what = format!("WIRE_SEED={seed}: {:?} to {to:?}", text(&bytes));
            let whole = read(to, [bytes.as_slice()], &what);
            let bytewise = read(to, bytes.chunks(1), &what);
            // Where it breaks off, the pieces that were passed on before are others.
            assert_eq!(whole.is_some(), bytewise.is_some(), "{what}");
            assert_eq!(whole, bytewise, "{what}");
        }
    }
}

/// The answers that a client gets when this comes from a backend that then closes; `None` where it is told that something
/// is missing.
fn read<'b>(to: To, pieces: impl IntoIterator<Item = &'b [u8]>, what: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let mut stage = Stage::new();
    stage.receive(Side::Client, to.request("").as_bytes());
    for piece in pieces {
        stage.receive(Side::Upstream, piece);
    }
    if stage.is_connected {
        stage.tell(Input::End(Side::Upstream));
    }
    let (found, rest) = messages(&stage.to_client, |head| head.response_framing(to.method()));
    let last = found.iter().filter(|(head, ..)| head.status() >= 200 || head.status() == 101).count();
    assert!(last <= 1, "{last} answers: {found:?} from {what}");
    if !stage.reasons.is_empty() {
        return None;
    }
    assert_eq!((last, &*rest), (1, ""), "no whole answer, and no reason: {:?} from {what}", text(&stage.to_client));
    Some(found.into_iter().map(|(head, body, _)| (head.to_string(), body)).collect())
}
