//! A slab whose keys carry a generation, so the key of a removed value never reaches its successor in the slot.

use slab::Slab;
use std::num::NonZeroU32;

/// The key of one value in one [`GenSlab`]: the index of its slot, and the slot's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotKey {
    index: u32,
    generation: NonZeroU32,
}

impl SlotKey {
    /// Bits of the generation in a packed key; the bits above belong to the caller (see [`SlotKey::pack`]).
    const GENERATION_BITS: u32 = 28;
    const GENERATION_MASK: u32 = (1 << Self::GENERATION_BITS) - 1;

    /// A key of no value.
    pub const NONE: Self = Self { index: u32::MAX, generation: NonZeroU32::MIN };

    /// The index of the slot: no other value has it while this one is there.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// The key in the low 60 bits of a word, for a poll token; the high 4 bits are left to the caller.
    pub fn pack(self) -> u64 {
        (u64::from(self.generation.get()) << 32) | u64::from(self.index)
    }

    /// The key that [`SlotKey::pack`] put into the low 60 bits of `word`.
    pub fn unpack(word: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the word are wanted apart")]
        let (index, high) = (word as u32, (word >> 32) as u32);
        Self { index, generation: Self::generation(high) }
    }

    /// The generation of this number; after the last one comes the first.
    fn generation(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number & Self::GENERATION_MASK).unwrap_or(NonZeroU32::MIN)
    }
}

/// Values in reusable slots. The generation of a slot goes up with each value and wraps after 2^28; it is never 0, so
/// an optional key is no larger than a key.
#[derive(Debug)]
pub struct GenSlab<T> {
    slab: Slab<(NonZeroU32, T)>,
    next_generation: NonZeroU32,
}

impl<T> Default for GenSlab<T> {
    fn default() -> Self {
        Self { slab: Slab::new(), next_generation: NonZeroU32::MIN }
    }
}

impl<T> GenSlab<T> {
    /// Puts a value into a free slot.
    pub fn insert(&mut self, value: T) -> SlotKey {
        self.insert_with(|_| value)
    }

    /// Puts a value that needs its own key into a free slot.
    pub fn insert_with(&mut self, make: impl FnOnce(SlotKey) -> T) -> SlotKey {
        let generation = self.next_generation;
        self.next_generation = SlotKey::generation(generation.get() + 1);
        let entry = self.slab.vacant_entry();
        let index = u32::try_from(entry.key()).unwrap_or_else(|_| panic!("more than 2^32 slots in use"));
        let key = SlotKey { index, generation };
        entry.insert((generation, make(key)));
        key
    }

    /// The value of `key`, if it is still there.
    pub fn get(&self, key: SlotKey) -> Option<&T> {
        match self.slab.get(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Mutable access to the value of `key`, if it is still there.
    pub fn get_mut(&mut self, key: SlotKey) -> Option<&mut T> {
        match self.slab.get_mut(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Removes the value of `key`, if it is still there, and returns it.
    pub fn remove(&mut self, key: SlotKey) -> Option<T> {
        self.get(key)?;
        Some(self.slab.remove(key.index as usize).1)
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Memory of the slots in bytes, without memory that the values own.
    pub fn bytes(&self) -> usize {
        self.slab.capacity() * size_of::<(NonZeroU32, T)>()
    }

    /// Frees memory, as far as possible, if far more is allocated than used. Keys stay valid.
    pub fn trim(&mut self) {
        if self.slab.capacity() > 64 && self.slab.len() < self.slab.capacity() / 4 {
            self.slab.shrink_to_fit();
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// All values, in the order of their slots.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.slab.iter().map(|(_, (_, value))| value)
    }

    /// The keys of all values, in the order of their slots.
    pub fn keys(&self) -> impl Iterator<Item = SlotKey> + '_ {
        self.slab.iter().map(|(index, (generation, _))| SlotKey {
            #[expect(clippy::cast_possible_truncation, reason = "`insert` refused what does not fit")]
            index: index as u32,
            generation: *generation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_reaches_the_next_tenant() {
        let mut slots = GenSlab::default();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(first.index, second.index, "the slot is used again");
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
    }

    #[test]
    fn room_is_given_back_and_keys_stay_good() {
        let mut slots = GenSlab::default();
        let keys: Vec<_> = (0..1000).map(|number| slots.insert(number)).collect();
        let full = slots.bytes();
        slots.trim();
        assert_eq!(slots.bytes(), full);
        keys[10..].iter().for_each(|key| assert!(slots.remove(*key).is_some()));
        slots.trim();
        assert!(slots.bytes() < full / 50, "{} of {full} bytes", slots.bytes());
        let new = slots.insert(7);
        assert_eq!((slots.get(keys[9]), slots.get(keys[10]), slots.get(new)), (Some(&9), None, Some(&7)));
    }

    #[test]
    fn a_packed_key_comes_back_whatever_the_high_bits() {
        let generation = NonZeroU32::new(SlotKey::GENERATION_MASK).unwrap_or(NonZeroU32::MAX);
        let key = SlotKey { index: 7, generation };
        assert_eq!(SlotKey::unpack(key.pack()), key);
        assert_eq!(SlotKey::unpack(key.pack() | (0xF << 60)), key);
    }
}
