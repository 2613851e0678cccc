//! `hash`: consistent hashing with bounded loads: no member gets more than 1.25 times its share of the requests in flight
//! (V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent Hashing with Bounded Loads").

use super::Candidates;

/// Below this number of requests for each unit of weight the bound does not apply: with few requests in flight, a key
/// stays at its member.
const FEW: u64 = 8;

/// Slow start does not apply: a key belongs to its member from the first request on.
pub(super) fn pick(candidates: &Candidates<'_>, key: u64) -> Option<usize> {
    let first = candidates.cluster.ring().from(key).next()?;
    let (own, weight) = (candidates.in_flight(first), candidates.weight(first));
    if own < FEW * weight && candidates.is_open(first) { Some(first) } else { search(candidates, key) }
}

/// The next member on the ring that is open and below the bound. Each member is examined once.
#[cold]
fn search(candidates: &Candidates<'_>, key: u64) -> Option<usize> {
    // Members that are not open carry no load: the bound concerns the others.
    let (mut total_weight, mut in_flight) = (0, 0);
    for place in candidates.open() {
        total_weight += candidates.weight(place);
        in_flight += candidates.in_flight(place);
    }
    let is_bounded = |place: usize| {
        let (own, weight) = (candidates.in_flight(place), candidates.weight(place));
        own < FEW * weight || own * 4 * total_weight < (in_flight + 1) * 5 * weight
    };
    let on_ring = (0..candidates.len()).filter(|place| candidates.weight(*place) > 0).count();
    let mut seen = Seen::new(candidates.len(), on_ring);
    let mut next = None;
    for place in candidates.cluster.ring().from(key) {
        if seen.add(place) && candidates.is_open(place) {
            if is_bounded(place) {
                return Some(place);
            }
            next.get_or_insert(place);
        }
        if seen.is_full() {
            break;
        }
    }
    next
}

/// The members examined so far. Up to 1024 members need no heap memory.
struct Seen {
    few: [u64; 16],
    many: Vec<u64>,
    left: usize,
}

impl Seen {
    fn new(count: usize, left: usize) -> Self {
        let many = if count > 1024 { vec![0; count.div_ceil(64)] } else { Vec::new() };
        Self { few: [0; 16], many, left }
    }

    /// Returns whether the member is new.
    fn add(&mut self, place: usize) -> bool {
        let words = if self.many.is_empty() { &mut self.few[..] } else { &mut self.many };
        let Some(word) = words.get_mut(place / 64) else { return false };
        let bit = 1 << (place % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        self.left -= usize::from(is_new);
        is_new
    }

    fn is_full(&self) -> bool {
        self.left == 0
    }
}
