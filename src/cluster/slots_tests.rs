use super::slots::{Counted, Limit, Slots};
use std::num::NonZeroU32;

#[test]
fn a_limit_counts_those_of_before() {
    let slots = Slots::default();
    let held = [(); 2].map(|()| slots.take(u32::MAX).expect("no limit"));
    assert_eq!((held, slots.held()), ([Counted::Apart; 2], 2));
    slots.set_limit(Limit::Most(NonZeroU32::MIN));
    assert_eq!((slots.take(u32::MAX), slots.held()), (None, 2));
    slots.give_back(held[0]);
    assert_eq!(slots.take(u32::MAX), None);
    slots.give_back(held[1]);
    assert!(!slots.has_apart());
    assert_eq!((slots.take(0), slots.take(u32::MAX)), (None, Some(Counted::Together)));
    assert_eq!((slots.take_beyond(), slots.held()), (Counted::Together, 2), "beyond the limit");
    slots.give_back(Counted::Together);
    slots.set_limit(Limit::None);
    assert_eq!((slots.take(u32::MAX), slots.held()), (Some(Counted::Together), 2));
    slots.set_limit(Limit::Apart);
    assert_eq!((slots.take(0), slots.held()), (Some(Counted::Apart), 3));
    slots.give_back(Counted::Together);
    slots.give_back(Counted::Apart);
    assert_eq!((slots.held(), slots.peak()), (1, 2));
}

#[test]
fn a_slot_that_another_thread_gives_back_is_free() {
    let slots = Slots::default();
    let held = slots.take(u32::MAX).expect("no limit");
    std::thread::scope(|scope| _ = scope.spawn(|| slots.give_back(held)));
    assert_eq!(slots.held(), 0);
}

#[test]
fn flags_that_all_read_stand_apart_from_what_is_written() {
    let (flags, written) = Slots::default().addresses();
    assert!(flags.iter().all(|flag| flag / 64 != written / 64));
}
